"""The engine: one thread owns the models, and scores what is queued in batches. It knows nothing of HTTP.

A batch is what the queue holds when the model is free: nobody waits for others to come. Batches grow by
themselves while a model is busy, and an idle service answers at once.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Condition, Lock, Thread
from typing import Any, TypeVar

from diptych.errors import DiptychError
from diptych.serve.limits import Limits
from diptych.serve.models import Prepared, Resident, Scored
from diptych.serve.problems import Problem

T = TypeVar("T")


@dataclass(slots=True, kw_only=True)
class Ticket:
    """A meme in the queue.

    Args:
        model: that prepared it; a reload in between does not change it.
        deadline: by `time.monotonic`; afterwards nobody waits for it.
        low: it is of a job, and is scored when no other waits.
        result: of the model, with the seconds in the queue and in the model; canceled if the client is gone.
    """

    model: Resident
    meme: Prepared
    deadline: float
    low: bool = False
    result: "Future[tuple[Scored, float, float]]" = field(default_factory=Future)
    queued: float = field(default_factory=time.monotonic)


@dataclass(kw_only=True)
class Observer:
    """Functions that the engine calls for the metrics; each may be called from its thread."""

    batch: Callable[[Resident, int, float, float], None] = lambda model, rows, fill, seconds: None
    failed: Callable[[Resident, Exception], None] = lambda model, error: None


class Engine:
    """Batches memes for models that one thread owns.

    Args:
        models: by name; the first is the default.
        observe: what is told to the metrics.
    """

    def __init__(
        self, models: Mapping[str, Resident], *, limits: Limits | None = None, observe: Observer | None = None
    ) -> None:
        self.models = dict(models)
        self.limits, self.observe = limits or Limits(), observe or Observer()
        self.draining = False
        self._queue: deque[Ticket] = deque()
        self._turns: deque[tuple[Callable[[], Any], Future[Any]]] = deque()
        self._changed = Condition()
        self._stop = False
        self._admitted, self._bytes, self._counting = 0, 0, Lock()
        self._batch_seconds = 0.05  # a running mean, from which `retry_after` follows
        self._thread = Thread(target=self._work, name="models", daemon=True)
        self._thread.start()

    @contextmanager
    def admitted(self, size: int) -> Iterator[None]:
        """Count a meme from its arrival to its answer.

        Args:
            size: bytes of the request.

        Raises:
            Problem: `overloaded`, or `draining` if the service stops.
        """
        with self._counting:
            if self.draining:
                raise Problem("draining", "the service is stopping; ask another one.", retry_after=5)
            if self._admitted >= self.limits.queue or self._bytes + size > self.limits.queue_bytes:
                raise Problem(
                    "overloaded",
                    f"{self._admitted} memes of {self._bytes} bytes are being scored; expected at most "
                    f"{self.limits.queue} of {self.limits.queue_bytes}. Try again later.",
                    retry_after=self.retry_after,
                )
            self._admitted += 1
            self._bytes += size
        try:
            yield
        finally:
            with self._counting:
                self._admitted -= 1
                self._bytes -= size

    @property
    def retry_after(self) -> int:
        """Seconds until the queue that there is now is empty, at least 1."""
        batches = self._admitted / self.limits.batch
        return max(1, min(60, round(batches * self._batch_seconds)))

    @property
    def busy(self) -> tuple[int, int]:
        """Memes that are accepted and not answered, and how many of them wait in the queue."""
        return self._admitted, len(self._queue)

    @property
    def alive(self) -> bool:
        return self._thread.is_alive() and not self._stop

    def find(self, name: str | None) -> Resident:
        """The model of a name; None is the first.

        Raises:
            Problem: there is none.
        """
        if name is None:
            return next(iter(self.models.values()))
        if name not in self.models:
            known = ", ".join(self.models)
            raise Problem(
                "unknown-model", f"no model is called {name[:80]!r}; there are {known}.", pointer="/model"
            )
        return self.models[name]

    def submit(self, ticket: Ticket) -> "Future[tuple[Scored, float, float]]":
        """Put a meme into the queue; canceling the future takes it out again."""
        with self._changed:
            self._queue.append(ticket)
            self._changed.notify()
        return ticket.result

    def turn(self, work: Callable[[], T]) -> "Future[T]":
        """Run a function on the thread of the models, after the batch that is next.

        Whatever takes longer than a batch is cut into several turns, so that memes do not wait for it.
        """
        result: Future[T] = Future()
        with self._changed:
            self._turns.append((work, result))
            self._changed.notify()
        return result

    def swap(self, model: Resident) -> None:
        """Replace the model of the same name; memes that the old one prepared are scored by the old one."""
        # One assignment: a request reads the table once, so it sees either model and never a mixture.
        self.models = {**self.models, model.name: model}

    def stop(self, timeout: float = 30.0) -> bool:
        """Finish the queue and end the thread; whether it ended in time."""
        with self._changed:
            self._stop = True
            self._changed.notify()
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _work(self) -> None:
        while True:
            with self._changed:
                while not (self._queue or self._turns or self._stop):
                    self._changed.wait()
                if not (self._queue or self._turns):
                    return
                batch = self._take()
                turn = self._turns.popleft() if self._turns else None
            if batch:
                self._score(batch, first=True)
            # One of each: neither memes nor explanations starve.
            if turn is not None:
                _run(*turn)

    def _take(self) -> list[Ticket]:
        """Take a batch around the oldest meme out of the queue; dead ones are dropped."""
        now = time.monotonic()
        waiting = deque[Ticket]()
        for ticket in self._queue:
            # Whatever nobody waits for must not cost the time of the model.
            if ticket.deadline <= now and ticket.result.set_running_or_notify_cancel():
                ticket.result.set_exception(Problem("deadline", "the deadline passed in the queue."))
            elif not ticket.result.done():
                waiting.append(ticket)
        self._queue = waiting
        if not waiting:
            return []
        # Memes of jobs never fill up a batch that somebody waits for. Their own batches are small, because
        # whoever comes now waits for the one that is being scored.
        turn = [ticket for ticket in waiting if not ticket.low] or [*waiting]
        chosen = chosen_for_batch(
            [ticket.meme.length if ticket.model is turn[0].model else None for ticket in turn],
            most=self.limits.job_batch if turn[0].low else self.limits.batch,
            cost=self.limits.cost,
        )
        batch = [ticket for number, ticket in enumerate(turn) if number in chosen]
        taken = {id(ticket) for ticket in batch}
        self._queue = deque(ticket for ticket in waiting if id(ticket) not in taken)
        # From here on, a client that goes away no longer stops its meme.
        return [ticket for ticket in batch if ticket.result.set_running_or_notify_cancel()]

    def _score(self, batch: Sequence[Ticket], *, first: bool = False) -> None:
        model, start = batch[0].model, time.monotonic()
        try:
            results = model.score([ticket.meme for ticket in batch])
        except Exception as error:
            if len(batch) > 1:
                # One poisoned meme must not fail its neighbors: halve until it is alone.
                middle = len(batch) // 2
                self._score(batch[:middle])
                self._score(batch[middle:])
                return
            self.observe.failed(model, error)
            # The words of the error may quote the meme, and a stranger learns nothing from them.
            what = "gave a score that is no number" if isinstance(error, DiptychError) else "failed"
            batch[0].result.set_exception(Problem("internal", f"the model {what} for this meme."))
            return
        seconds = time.monotonic() - start
        lengths = [ticket.meme.length for ticket in batch]
        fill = sum(lengths) / (len(lengths) * max(lengths))
        self.observe.batch(model, len(batch), fill, seconds)
        if first and not batch[0].low:
            self._batch_seconds += 0.1 * (seconds - self._batch_seconds)
        for ticket, scored in zip(batch, results, strict=True):
            ticket.result.set_result((scored, start - ticket.queued, seconds))


def _run(work: Callable[[], T], result: "Future[T]") -> None:
    if result.set_running_or_notify_cancel():
        try:
            result.set_result(work())
        except Exception as error:
            result.set_exception(error)


def chosen_for_batch(lengths: Sequence[int | None], *, most: int, cost: int) -> set[int]:
    """Choose the memes of a batch: the oldest, and those after it that fit.

    Args:
        lengths: tokens and regions of the memes in the queue, the oldest first; None if of another model.
        most: number of memes in a batch.
        cost: largest product of their number and the greatest length.

    Returns:
        Their numbers. Older ones go first, so that a full queue bounds the time of every meme. One that is
        too long for this batch is the oldest of a later one.
    """
    chosen, longest = set[int](), 0
    for number, length in enumerate(lengths):
        if length is None or len(chosen) == most:
            continue
        wider = max(longest, length)
        # One long text would pad all others.
        if chosen and wider * (len(chosen) + 1) > cost:
            continue
        chosen.add(number)
        longest = wider
    return chosen
