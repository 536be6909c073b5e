"""The service without HTTP: from a request to a verdict. `app` puts it on the network."""

import asyncio
import random
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from hashlib import sha256
from threading import Event
from typing import Any

from diptych.errors import DiptychError, FormatError
from diptych.serve.audit import AuditLog
from diptych.serve.decisions import calibrated, decided, reference
from diptych.serve.engine import Engine, Observer, Ticket
from diptych.serve.evidence import explained
from diptych.serve.given import Given, Known, Stages, Words, require_consistent
from diptych.serve.metrics import Metrics
from diptych.serve.models import Prepared, Resident
from diptych.serve.pictures import POINTER, Decoded, decode
from diptych.serve.problems import Problem
from diptych.serve.regions import Meme
from diptych.serve.review import ReviewQueue
from diptych.serve.structs import (
    Decision,
    FeedbackAnswer,
    FeedbackRequest,
    MemberScore,
    Read,
    ScoreAnswer,
    ScoreRequest,
)

RECENT = 10_000  # decisions that feedback may be about
SHORT, SMALL = 2000, 1 << 20  # characters and bytes that are read on the spot, in under 2 ms


class Service:
    """Scores memes, decides on them, and writes down what it decided.

    Args:
        engine: with the models.
        words: reads the text of pictures; None if the service does not.
        fetch: fetches a picture by its address; None refuses all.
        picture_of: the encoded picture of a key, where the operator gave a folder; None if there is none.
        audit: log of decisions.
        review: keeps the memes that people look at; None keeps none.
        sample: share of the allowed memes that are marked for people to look at.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        metrics: Metrics | None = None,
        words: Words | None = None,
        fetch: Callable[[str], bytes] | None = None,
        picture_of: Callable[[str], bytes | None] | None = None,
        audit: AuditLog | None = None,
        review: ReviewQueue | None = None,
        sample: float = 0.0,
        workers: int = 2,
    ) -> None:
        self.engine, self.limits, self.metrics = engine, engine.limits, metrics or Metrics()
        self.words, self.fetch, self.picture_of = words, fetch, picture_of
        self.audit, self.review, self.sample = audit, review, sample
        self.leaving = False  # balancers should go elsewhere, but requests are still taken
        self.recent: OrderedDict[str, dict[str, Any]] = OrderedDict()
        self._cache: OrderedDict[tuple[str, ...], Known] = OrderedDict()
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="prepare")
        # One explanation at a time: each asks the model hundreds of times, and holds a decoded picture.
        self._explaining = ThreadPoolExecutor(1, thread_name_prefix="explain")
        self._draw = random.Random()
        engine.observe = self._observer()
        for model in engine.models.values():
            self.metrics.know(model, str(reference(model).calibration))

    async def score(
        self, given: Given, *, request_id: str, caller: str, deadline: float | None = None
    ) -> ScoreAnswer:
        """Score one meme.

        Args:
            caller: name of the key.
            deadline: seconds, if they are less than the limit.

        Raises:
            Problem: the request is invalid, or there is no answer in time.
        """
        most = self.limits.explain if given.request.options.explain else self.limits.deadline
        seconds = min(most, deadline or most)
        try:
            with self.engine.admitted(given.size):
                async with asyncio.timeout(seconds):
                    return await self._score(given, request_id, caller, time.monotonic() + seconds)
        except TimeoutError as error:
            self.metrics.expired.inc()
            self.metrics.refused.labels("deadline").inc()
            raise Problem(
                "deadline", f"there was no answer within {seconds:g} seconds.", retry_after=1
            ) from error
        except asyncio.CancelledError:
            self.metrics.cancelled.inc()
            raise
        except Problem as problem:
            self.metrics.refused.labels(problem.kind).inc()
            if problem.kind in ("bad-picture", "picture-too-big"):
                self.metrics.bad_pictures.labels(problem.kind).inc()
            raise

    def require_room(self) -> None:
        """Refuse before the body is read: a crowd that is sent away must not cost the time of those served.

        Raises:
            Problem: `overloaded` or `draining`.
        """
        try:
            with self.engine.admitted(0):
                pass
        except Problem as problem:
            self.metrics.refused.labels(problem.kind).inc()
            raise

    async def _score(self, given: Given, request_id: str, caller: str, deadline: float) -> ScoreAnswer:
        request, stages = given.request, Stages()
        model = self.engine.find(request.model)
        require_consistent(given, model, self.limits)
        policy = model.policy_id
        loop, image = asyncio.get_running_loop(), request.image
        key = None if image is None else image.key
        elsewhere = image is not None and given.data is None
        # To hand something to the pool and back costs two turns of the interpreter's lock, under load many
        # times what a short text does.
        if elsewhere or len(given.data or b"") > SMALL:
            data, checksum = await loop.run_in_executor(self._pool, self._bytes, given)
        else:
            data, checksum = self._bytes(given)
        asked = request.options.ocr + ("+" if request.options.explain else "")
        same = (model.sha256, policy, checksum, key or "", request.text or "", asked)
        known = self._cache.get(same)
        self.metrics.cache.labels("miss" if known is None else "hit").inc()
        if known is None:
            scored = self._explained if request.options.explain else self._scored
            known = await scored(request, data, stages, model, deadline)
            self._keep(same, known)
        else:
            self._cache.move_to_end(same)
            stages.hit = True
        answer = self._answer(
            request, model, known, stages, request_id=request_id, caller=caller, picture=checksum
        )
        if self.review is not None:
            self.review.add(request, answer, picture=data, checksum=checksum)
        return answer

    def _bytes(self, given: Given) -> tuple[bytes | None, str]:
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

    def _read(
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

    async def _scored(
        self, request: ScoreRequest, data: bytes | None, stages: Stages, model: Resident, deadline: float
    ) -> Known:
        if data is None and request.image is None and len(request.text or "") <= SHORT:
            _, prepared, read = self._read(request, data, stages, model)
        else:
            work = partial(self._read, request, data, stages, model)
            _, prepared, read = await asyncio.get_running_loop().run_in_executor(self._pool, work)
        ticket = Ticket(model=model, meme=prepared, deadline=deadline)
        # Canceling this waiting cancels the ticket, so a gone client costs the model nothing.
        scored, stages.queue, stages.model = await asyncio.wrap_future(self.engine.submit(ticket))
        self.metrics.queue_seconds.observe(stages.queue)
        return Known(scored=scored, read=read)

    async def _explained(
        self, request: ScoreRequest, data: bytes | None, stages: Stages, model: Resident, deadline: float
    ) -> Known:
        gone = Event()

        def work() -> Known:
            meme, prepared, read = self._read(request, data, stages, model)
            ticket = Ticket(model=model, meme=prepared, deadline=deadline)
            future, left = self.engine.submit(ticket), max(0.0, deadline - time.monotonic())
            scored, stages.queue, stages.model = future.result(left)
            start = time.monotonic()
            why = explained(self.engine, model, meme, scored, deadline=deadline, gone=gone)
            stages.explain = time.monotonic() - start
            self.metrics.explain_seconds.labels(model.name).observe(stages.explain)
            return Known(scored=scored, read=read, evidence=why)

        try:
            return await asyncio.get_running_loop().run_in_executor(self._explaining, work)
        finally:
            gone.set()

    def _keep(self, same: tuple[str, ...], known: Known) -> None:
        self._cache[same] = known
        while len(self._cache) > self.limits.cache:
            self._cache.popitem(last=False)

    def _answer(
        self,
        request: ScoreRequest,
        model: Resident,
        known: Known,
        stages: Stages,
        *,
        request_id: str,
        caller: str,
        picture: str,
    ) -> ScoreAnswer:
        drawn = self.sample > 0 and self._draw.random() < self.sample
        decision = decided(model, known.scored, audit=drawn)
        members = known.scored.members.items() if request.options.members else ()
        answer = ScoreAnswer(
            id=request.id,
            request_id=request_id,
            model=reference(model),
            scores=calibrated(model, known.scored),
            raw=known.scored.scores,
            answer=known.scored.answer,
            decision=decision,
            read=known.read,
            members=[MemberScore(name=name, score=score) for name, score in members],
            timing_ms=stages.answer(),
            evidence=known.evidence,
        )
        self._record(request, answer, caller=caller, picture=picture)
        self.metrics.scored(model.name, known.scored.scores.get(model.positive, 0.0))
        if decision is not None:
            self.metrics.decisions.labels(model.name, model.policy_name, decision.action).inc()
        return answer

    def _record(self, request: ScoreRequest, answer: ScoreAnswer, *, caller: str, picture: str) -> None:
        """Write the decision down before it is told; without texts and pictures."""
        decision: Decision | None = answer.decision
        about: dict[str, Any] = {
            "kind": "decision",
            "request_id": answer.request_id,
            "key": caller,
            "picture": picture or None,
            "image_key": request.image.key if request.image is not None else None,
            "text": sha256(answer.read.text.encode("utf-8", "surrogatepass")).hexdigest(),
            "text_source": answer.read.text_source,
            "ocr": self.words.identity() if self.words and answer.read.text_source == "ocr" else None,
            "model": answer.model.name,
            "model_sha256": answer.model.sha256,
            "calibration": answer.model.calibration,
            "raw": answer.raw,
            "probability": None if decision is None else decision.probability,
            "action": None if decision is None else decision.action,
            "label": None if decision is None else decision.label,
            "why": None if decision is None else decision.why,
            "policy": None if decision is None else decision.policy,
            "audit": decision is not None and decision.audit,
            "tags": request.tags,
            "milliseconds": answer.timing_ms.total,
        }
        if self.audit is not None:
            self.audit.append(about)
        self.recent[answer.request_id] = about
        while len(self.recent) > RECENT:
            self.recent.popitem(last=False)

    def feedback(self, given: FeedbackRequest, *, caller: str) -> FeedbackAnswer:
        """Write the decision of a person into the audit log.

        Raises:
            Problem: the service keeps no log.
        """
        if self.audit is None:
            raise Problem("conflict", "this service keeps no audit log; start it with --audit FOLDER.")
        known = self.recent.get(given.request_id)
        about = {"action": given.action, "label": given.label, "note": given.note}
        said = None if known is None else known["action"]
        self.audit.append(
            {"kind": "feedback", "request_id": given.request_id, "key": caller, "decided": said, **about}
        )
        if self.review is not None:
            self.review.done(given.request_id)
        # Bounded: whoever has a key could otherwise make labels without end.
        labels = set(self.engine.find(None if known is None else known["model"]).classes)
        self.metrics.feedback.labels(given.action, given.label if given.label in labels else "other").inc()
        return FeedbackAnswer(request_id=given.request_id, known=known is not None)

    def exchange(self, model: Resident) -> None:
        """Serve another model under the name of an old one."""
        self.engine.swap(model)
        self.metrics.forget(model.name)
        self.metrics.know(model, str(reference(model).calibration))

    def ready(self) -> str:
        """Why requests are not welcome; empty if they are."""
        admitted, _ = self.engine.busy
        reasons = {
            "draining": self.leaving or self.engine.draining,
            "the thread of the models has ended": not self.engine.alive,
            "the queue is full": admitted >= self.limits.queue,
        }
        return next((why for why, so in reasons.items() if so), "")

    def close(self, timeout: float = 30.0) -> bool:
        """Finish what was accepted, and force the audit log onto the disk; whether all was finished."""
        self.engine.draining = True
        finished = self.engine.stop(timeout)
        for pool in (self._pool, self._explaining):
            pool.shutdown(wait=finished, cancel_futures=True)
        if self.audit is not None:
            self.audit.close()
        return finished

    def _observer(self) -> Observer:
        metrics = self.metrics

        def batch(model: Resident, rows: int, fill: float, seconds: float) -> None:
            metrics.batch_rows.labels(model.name).observe(rows)
            metrics.fill.observe(fill)
            metrics.model_seconds.labels(model.name).observe(seconds)

        def failed(model: Resident, error: Exception) -> None:
            metrics.failures.labels(model.name).inc()

        return replace(self.engine.observe, batch=batch, failed=failed)
