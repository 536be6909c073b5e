"""The queue of memes that people look at. Unlike everything else, it keeps texts and pictures, in memory."""

from collections import OrderedDict
from dataclasses import dataclass
from datetime import UTC, datetime
from threading import Lock

from diptych.serve.problems import Problem
from diptych.serve.structs import ReviewItem, ReviewList, ScoreAnswer, ScoreRequest

MOST_BYTES = 256_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kept:
    item: ReviewItem
    picture: bytes | None
    same: tuple[str, ...]

    @property
    def size(self) -> int:
        return len(self.picture or b"") + len(self.item.text)


class ReviewQueue:
    """Memes in the band and drawn ones, the oldest first. The oldest go when it is full.

    Args:
        most: memes.
        most_bytes: of their pictures and texts.
    """

    def __init__(self, most: int, *, most_bytes: int = MOST_BYTES) -> None:
        self.most, self.most_bytes = most, most_bytes
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._known: dict[tuple[str, ...], str] = {}
        self._bytes, self._lock = 0, Lock()

    def __len__(self) -> int:
        return len(self._kept)

    def add(
        self, request: ScoreRequest, answer: ScoreAnswer, *, picture: bytes | None, checksum: str
    ) -> None:
        """Keep a meme if its decision is `review`, or if it was drawn; an equal one is kept once."""
        decision = answer.decision
        if decision is None or not (decision.action == "review" or decision.audit):
            return
        key = None if request.image is None else request.image.key
        # The answer's text, which may be read from the picture: people judge what the model judged.
        same = (answer.model.name, answer.read.text, checksum, key or "")
        item = ReviewItem(
            request_id=answer.request_id,
            time=datetime.now(UTC).isoformat(timespec="seconds"),
            model=answer.model.name,
            decision=decision,
            raw=answer.raw,
            text=answer.read.text,
            text_source=answer.read.text_source,
            image_key=key,
            picture=picture is not None,
            tags=request.tags,
            memory=answer.memory,
        )
        # Added by the threads that answer, and listed by that of HTTP.
        with self._lock:
            if same in self._known:
                return
            kept = _Kept(item=item, picture=picture, same=same)
            self._kept[item.request_id] = kept
            self._known[same] = item.request_id
            self._bytes += kept.size
            # Also if the newest alone is too large: it goes, too, and the queue stays within its bytes.
            while len(self._kept) > self.most or self._bytes > self.most_bytes:
                self._drop(next(iter(self._kept)))

    def done(self, request_id: str) -> None:
        """Take a meme out, because a person has decided on it."""
        with self._lock:
            if request_id in self._kept:
                self._drop(request_id)

    def listed(self, most: int) -> ReviewList:
        """The oldest memes, and how many there are."""
        # Copied under the lock; building the answer may take longer than a meme may wait.
        with self._lock:
            kept = [*self._kept.values()]
        return ReviewList(total=len(kept), items=[one.item for one in kept[:most]])

    def picture(self, request_id: str) -> bytes:
        """The encoded picture of a meme.

        Raises:
            Problem: the meme is not in the queue, or has no picture.
        """
        kept = self._kept.get(request_id)
        if kept is None or kept.picture is None:
            raise Problem("not-found", "the queue has no picture of this request.")
        return kept.picture

    def _drop(self, request_id: str) -> None:
        kept = self._kept.pop(request_id)
        del self._known[kept.same]
        self._bytes -= kept.size
