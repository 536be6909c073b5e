"""From a request to what a model reads: the picture from wherever it is, the text given or read, the rows."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256

from diptych.errors import DiptychError, FormatError
from diptych.serve.given import Given, Stages, Words
from diptych.serve.limits import Limits
from diptych.serve.metrics import Metrics
from diptych.serve.models import Prepared, Resident
from diptych.serve.pictures import POINTER, Decoded, decode
from diptych.serve.problems import Problem
from diptych.serve.regions import Meme
from diptych.serve.structs import Read, ScoreRequest


@dataclass(kw_only=True)
class Reader:
    """Reads memes; its methods run in any thread.

    Args:
        words: reads the text of pictures; None if the service does not.
        fetch: fetches a picture by its address; None refuses all.
        picture_of: the encoded picture of a key, where the operator gave a folder; None if there is none.
    """

    limits: Limits
    metrics: Metrics
    words: Words | None = None
    fetch: Callable[[str], bytes] | None = None
    picture_of: Callable[[str], bytes | None] | None = None

    def bytes_of(self, given: Given) -> tuple[bytes | None, str]:
        """The encoded picture, wherever it is, and its checksum."""
        data = given.data if given.data is not None else self._fetched(given)
        return data, "" if data is None else sha256(data).hexdigest()

    def _fetched(self, given: Given) -> bytes | None:
        image = given.request.image
        if image is None:
            return None
        if image.url is not None:
            if self.fetch is None:
                raise Problem(
                    "fetch-refused",
                    "this service fetches no pictures; send the bytes. Operators name hosts by --fetch-from.",
                    pointer=f"{POINTER}/url",
                )
            return self.fetch(image.url)
        return None if self.picture_of is None else self.picture_of(image.key or "")

    def read(
        self, request: ScoreRequest, data: bytes | None, stages: Stages, model: Resident
    ) -> tuple[Meme, Prepared, Read]:
        """Decode, read words, find regions and tokenize; runs in a pool."""
        start = time.monotonic()
        decoded = None if data is None else decode(data, self.limits)
        self.metrics.prepare_seconds.labels("decode").observe(time.monotonic() - start)
        text, source = self._text(request, decoded, stages)
        picture = None if decoded is None else decoded.image
        key = request.image.key if request.image is not None else None
        began = time.monotonic()
        try:
            meme = Meme(text=text, image=picture, key=key)
            prepared = model.prepare(meme)
        except FormatError as error:
            raise Problem("bad-picture", str(error), pointer=POINTER) from error
        self.metrics.prepare_seconds.labels("tokens").observe(time.monotonic() - began)
        if prepared.regions is not None:
            self.metrics.regions.observe(prepared.regions)
        stages.prepare = time.monotonic() - start - stages.ocr
        width, height = (None, None) if decoded is None else decoded.image.size
        read = Read(
            text=text,
            text_source=source,  # type: ignore[arg-type]
            regions=prepared.regions,
            width=width,
            height=height,
            animated=decoded is not None and decoded.animated,
        )
        return meme, prepared, read

    def _text(self, request: ScoreRequest, decoded: Decoded | None, stages: Stages) -> tuple[str, str]:
        wanted = request.options.ocr
        given = request.text or ""
        if wanted == "never" or (wanted == "if_empty" and given.strip()):
            return given, "given" if request.text is not None else "none"
        if self.words is None or decoded is None:
            if wanted == "always":
                found = (
                    "there is no picture" if self.words is not None else "this service reads no words (--ocr)"
                )
                raise Problem("no-text", f"{found}; send the text.", pointer="/options/ocr")
            # An empty text is a text: a meme without words is scored by its picture.
            if request.text is None:
                raise Problem(
                    "no-text", 'there is no text; send it, or "" for a meme without.', pointer="/text"
                )
            return given, "given"
        start = time.monotonic()
        try:
            text = self.words.text(decoded.image)[: self.limits.text]
        except DiptychError as error:
            raise Problem(
                "no-text", "the words could not be read; send the text.", pointer="/text"
            ) from error
        stages.ocr = time.monotonic() - start
        self.metrics.prepare_seconds.labels("ocr").observe(stages.ocr)
        self.metrics.characters.observe(len(text))
        return text, "ocr"
