"""The service without HTTP: from a request to a verdict. `app` puts it on the network."""

import asyncio
import random
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from threading import Event
from typing import Any

from diptych.memory import DEFAULT, Recall
from diptych.serve.audit import AuditLog
from diptych.serve.decisions import calibrated, decided, line_of, reference, remembered, votes_of
from diptych.serve.engine import Engine, Observer, Ticket
from diptych.serve.evidence import explained
from diptych.serve.given import Given, Known, Stages, Words, require_consistent
from diptych.serve.keys import ROLES, Caller
from diptych.serve.memories import Lesson, lesson_of
from diptych.serve.metrics import Metrics
from diptych.serve.models import Resident
from diptych.serve.problems import Problem
from diptych.serve.reading import Reader
from diptych.serve.review import ReviewQueue
from diptych.serve.structs import (
    FeedbackAnswer,
    FeedbackRequest,
    MemberScore,
    ScoreAnswer,
    ScoreRequest,
)

RECENT = 10_000  # decisions that feedback may be about
SHORT, SMALL = 2000, 1 << 20  # characters and bytes that are read on the spot, in under 2 ms


class Service:
    """Scores memes, decides on them, and writes down what it decided.

    Args:
        engine: with the models.
        words: as for `Reader`, like `fetch` and `picture_of`.
        audit: log of decisions.
        review: keeps the memes that people look at; None keeps none.
        sample: share of the allowed memes that are marked for people to look at.
        teachers: the least role that may add to a memory.
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
        teachers: str = "reviewer",
        workers: int = 2,
    ) -> None:
        self.engine, self.limits, self.metrics = engine, engine.limits, metrics or Metrics()
        self.reader = Reader(
            limits=self.limits, metrics=self.metrics, words=words, fetch=fetch, picture_of=picture_of
        )
        self.audit, self.review, self.sample, self.teachers = audit, review, sample, teachers
        self.leaving = False  # balancers should go elsewhere, but requests are still taken
        self.recent: OrderedDict[str, dict[str, Any]] = OrderedDict()
        self.lessons: OrderedDict[str, Lesson] = (
            OrderedDict()
        )  # of the same requests, where there is a memory
        self._cache: OrderedDict[tuple[str, ...], Known] = OrderedDict()
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="prepare")
        # Jobs prepare their memes beside the others, one at a time.
        self._later = ThreadPoolExecutor(1, thread_name_prefix="jobs")
        # One explanation at a time: each asks the model hundreds of times, and holds a decoded picture.
        self._explaining = ThreadPoolExecutor(1, thread_name_prefix="explain")
        self._draw = random.Random()
        engine.observe = self._observer()
        for model in engine.models.values():
            self.metrics.know(model, str(reference(model).calibration))

    async def score(
        self,
        given: Given,
        *,
        request_id: str,
        caller: str,
        deadline: float | None = None,
        low: bool = False,
    ) -> ScoreAnswer:
        """Score one meme.

        Args:
            caller: name of the key.
            deadline: seconds, if they are less than the limit.
            low: it is of a job: it comes after all others and takes no room from them; `deadline` is its own.

        Raises:
            Problem: the request is invalid, or there is no answer in time.
        """
        most = self.limits.explain if given.request.options.explain else self.limits.deadline
        seconds = deadline if low and deadline is not None else min(most, deadline or most)
        room = nullcontext() if low else self.engine.admitted(given.size)
        try:
            with room:
                async with asyncio.timeout(seconds):
                    return await self._score(given, request_id, caller, time.monotonic() + seconds, low)
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

    async def _score(
        self, given: Given, request_id: str, caller: str, deadline: float, low: bool
    ) -> ScoreAnswer:
        request, stages = given.request, Stages(low=low)
        pool = self._later if low else self._pool
        model = self.engine.find(request.model)
        require_consistent(given, model, self.limits)
        policy = model.policy_id
        loop, image = asyncio.get_running_loop(), request.image
        key = None if image is None else image.key
        elsewhere = image is not None and given.data is None
        # To hand something to the pool and back costs two turns of the interpreter's lock, under load many
        # times what a short text does.
        if elsewhere or len(given.data or b"") > SMALL:
            data, checksum = await loop.run_in_executor(pool, self.reader.bytes_of, given)
        else:
            data, checksum = self.reader.bytes_of(given)
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
        votes = None
        if model.memory is not None:
            # After the cache: what was taught a moment ago counts for a repeated meme, too.
            work = partial(self._recalled, request, model, known, data, request_id)
            votes = await loop.run_in_executor(pool, work)
        answer = self._answer(
            request, model, known, stages, votes, request_id=request_id, caller=caller, picture=checksum
        )
        if self.review is not None:
            self.review.add(request, answer, picture=data, checksum=checksum)
        return answer

    async def _scored(
        self, request: ScoreRequest, data: bytes | None, stages: Stages, model: Resident, deadline: float
    ) -> Known:
        short = data is None and request.image is None and len(request.text or "") <= SHORT
        if short and not stages.low:
            _, prepared, read = self.reader.read(request, data, stages, model)
        else:
            work = partial(self.reader.read, request, data, stages, model)
            _, prepared, read = await asyncio.get_running_loop().run_in_executor(
                self._later if stages.low else self._pool, work
            )
        ticket = Ticket(model=model, meme=prepared, deadline=deadline, low=stages.low)
        # Canceling this waiting cancels the ticket, so a gone client costs the model nothing.
        scored, stages.queue, stages.model = await asyncio.wrap_future(self.engine.submit(ticket))
        self.metrics.queue_seconds.observe(stages.queue)
        return Known(scored=scored, read=read)

    async def _explained(
        self, request: ScoreRequest, data: bytes | None, stages: Stages, model: Resident, deadline: float
    ) -> Known:
        gone = Event()

        def work() -> Known:
            meme, prepared, read = self.reader.read(request, data, stages, model)
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

    def _recalled(
        self, request: ScoreRequest, model: Resident, known: Known, data: bytes | None, request_id: str
    ) -> tuple[Recall, str]:
        """What the memory makes of a meme; and keep the meme, so that it can be taught. Runs in a pool."""
        scores, vector = known.scored.scores, known.scored.vector
        assert model.memory is not None
        assert vector is not None  # a model with a memory gives them
        key = None if request.image is None else request.image.key
        self.lessons[request_id] = lesson_of(
            model.sha256, scores, vector, text=known.read.text, picture=data, key=key
        )
        _bound(self.lessons, RECENT)
        return model.memory.recall(scores, vector)

    def _keep(self, same: tuple[str, ...], known: Known) -> None:
        self._cache[same] = known
        _bound(self._cache, self.limits.cache)

    def _answer(
        self,
        request: ScoreRequest,
        model: Resident,
        known: Known,
        stages: Stages,
        votes: tuple[Recall, str] | None,
        *,
        request_id: str,
        caller: str,
        picture: str,
    ) -> ScoreAnswer:
        drawn = self.sample > 0 and self._draw.random() < self.sample
        recall, version = votes or (None, "")
        scored = remembered(model, known.scored, recall)
        decision = decided(model, scored, audit=drawn)
        members = known.scored.members.items() if request.options.members else ()
        answer = ScoreAnswer(
            id=request.id,
            request_id=request_id,
            model=reference(model),
            scores=calibrated(model, scored),
            raw=scored.scores,
            answer=scored.answer,
            decision=decision,
            read=known.read,
            members=[MemberScore(name=name, score=score) for name, score in members],
            timing_ms=stages.answer(),
            evidence=known.evidence,
            memory=None if recall is None else votes_of(recall, version),
        )
        self._record(request, answer, caller=caller, picture=picture)
        # Drift is about the model, and not about what it was taught.
        self.metrics.scored(model.name, known.scored.scores.get(model.positive, 0.0))
        if decision is not None:
            self.metrics.decisions.labels(model.name, model.policy_name, decision.action).inc()
        return answer

    def _record(self, request: ScoreRequest, answer: ScoreAnswer, *, caller: str, picture: str) -> None:
        """Write the decision down before it is told."""
        ocr = None if self.reader.words is None else self.reader.words.identity()
        about = line_of(request, answer, caller=caller, picture=picture, ocr=ocr)
        if self.audit is not None:
            self.audit.append(about)
        self.recent[answer.request_id] = about
        _bound(self.recent, RECENT)

    def feedback(self, given: FeedbackRequest, *, caller: Caller) -> FeedbackAnswer:
        """Write the decision of a person down, and teach it if that is asked for; runs in any thread.

        Raises:
            Problem: the service keeps no log, or the meme cannot be taught.
        """
        if self.audit is None and not given.teach:
            raise Problem("conflict", "this service keeps no audit log; start it with --audit FOLDER.")
        known = self.recent.get(given.request_id)
        about = {"action": given.action, "label": given.label, "note": given.note}
        said = None if known is None else known["action"]
        model = self.engine.find(None if known is None else known["model"])
        # Before it is written down: a lesson that is refused has not happened.
        version = self._taught(given, model, caller) if given.teach else None
        case = None if version is None else self.lessons[given.request_id].id
        if self.audit is not None:
            taught = {"case": case, "policy": given.policy or DEFAULT, "memory": version} if case else {}
            name = {"kind": "feedback", "request_id": given.request_id, "key": caller.name}
            self.audit.append({**name, "decided": said, **about, **taught})
        if self.review is not None:
            self.review.done(given.request_id)
        # Bounded: whoever has a key could otherwise make labels without end.
        label = given.label if given.label in model.classes else "other"
        self.metrics.feedback.labels(given.action, label).inc()
        return FeedbackAnswer(request_id=given.request_id, known=known is not None, case=case, memory=version)

    def _taught(self, given: FeedbackRequest, model: Resident, caller: Caller) -> str:
        """Make a case of a meme; returns the version of the memory that has it."""
        if ROLES.index(caller.role) < ROLES.index(self.teachers):
            detail = f"the key {caller.name} has the role {caller.role}; teaching needs {self.teachers}."
            raise Problem("forbidden", detail, pointer="/teach")
        if model.memory is None:
            detail = f"the model {model.name} has no memory; start the service with --memory FOLDER."
            raise Problem("conflict", detail)
        if given.label is None:
            detail = f"expected the class of the meme, one of {', '.join(model.classes)}."
            raise Problem("invalid-request", detail, pointer="/label")
        lesson = self.lessons.get(given.request_id)
        if lesson is None:
            detail = "this process has not answered that lately; score the meme again, and teach that."
            raise Problem("conflict", detail)
        taught = model.memory.teach(lesson, label=given.label, policy=given.policy or DEFAULT)
        self.metrics.memory_cases.labels(model.name).set(len(taught.memory.cases))
        return taught.name

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
        for pool in (self._pool, self._later, self._explaining):
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


def _bound(kept: OrderedDict[Any, Any], most: int) -> None:
    while len(kept) > most:
        kept.popitem(last=False)
