"""The engine on Ray Serve: this process speaks HTTP, decides and writes down; replicas own the models."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import CancelledError, Future, wait
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diptych.errors import ConfigError
from diptych.serve.engine import Engine, Ticket
from diptych.serve.limits import Limits
from diptych.serve.models import Prepared, Resident, Scored, Setup, load_model
from diptych.serve.problems import Problem

if TYPE_CHECKING:
    from diptych.scale.replicas import Replicas

Timed = tuple[Scored, float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A meme on its way to a replica.

    Args:
        seconds: until its deadline; the clocks of two machines differ.
        low: see `Ticket`.
    """

    model: str
    meme: Prepared
    seconds: float
    low: bool = False


class Replicated(Engine):
    """An engine whose batches are made by the engines of several replicas.

    The models of this process only turn memes into rows. Its own thread stays idle.
    """

    def __init__(
        self, models: Mapping[str, Resident], replicas: "Replicas", *, limits: Limits | None = None
    ) -> None:
        super().__init__(models, limits=limits)
        self.replicas = replicas
        self._asked: set[Future[Any]] = set()

    def submit(self, ticket: Ticket) -> "Future[Timed]":
        """Send a meme to a replica; canceling the future cancels it there."""
        # A duration and not a moment, which another machine's clock would read as another one.
        seconds = ticket.deadline - time.monotonic()
        question = Question(model=ticket.model.name, meme=ticket.meme, seconds=seconds, low=ticket.low)
        asked = self.replicas.ask(question, seconds=seconds)
        self._asked.add(asked)
        asked.add_done_callback(partial(self._told, ticket))
        # Whoever cancels the result no longer waits for the answer.
        ticket.result.add_done_callback(lambda result: asked.cancel() if result.cancelled() else None)
        return ticket.result

    def _told(self, ticket: Ticket, asked: "Future[Timed | tuple[str, str]]") -> None:
        # In a thread of Ray: the future of the ticket is all that it touches.
        self._asked.discard(asked)
        if asked.cancelled() or not ticket.result.set_running_or_notify_cancel():
            return
        if error := asked.exception():
            ticket.result.set_exception(Problem("internal", f"no replica answered ({type(error).__name__})."))
            return
        match asked.result():
            case (str() as kind, str() as detail):
                if kind == "internal":
                    self.observe.failed(ticket.model, Problem(kind, detail))
                ticket.result.set_exception(Problem(kind, detail))
            case scored, _, in_model:
                # A moving average, from which a refused client learns when to come again.
                self._batch_seconds += 0.1 * (in_model / self.replicas.count - self._batch_seconds)
                # The way to the replica and back is part of the wait.
                ticket.result.set_result((scored, time.monotonic() - ticket.queued - in_model, in_model))

    def swap(self, model: Resident) -> None:
        """Not possible: each replica has loaded its own.

        Raises:
            ConfigError: always.
        """
        raise ConfigError("replicas load no model again; start another service and stop this one.")

    def stop(self, timeout: float = 30.0) -> bool:
        """Wait for what was asked, and end the replicas; whether all was answered in time."""
        # A copy, because answers that come meanwhile change the set.
        missing = wait(self._asked.copy(), timeout).not_done
        super().stop(timeout)
        self.replicas.close()
        return not missing


def replicated(
    models: Mapping[str, Resident],
    setup: Setup,
    limits: Limits,
    *,
    count: int | None,
    threads: int,
    gpu: bool,
) -> Replicated:
    """Start replicas of loaded models on Ray Serve.

    Args:
        count: of replicas; None means as many as the cluster has room for.
        setup: of the replicas; this process may have loaded its models for another device.

    Raises:
        ConfigError: Ray is not installed, or its cluster is too small.
    """
    from diptych.scale.replicas import Replicas

    # Absolute: a replica has another working folder.
    sources = {name: (model.source.absolute(), model.sha256, model.parts) for name, model in models.items()}
    build = partial(answering, sources, setup, limits)
    replicas = Replicas(build, count=count, threads=threads, gpu=gpu, most=limits.queue)
    return Replicated(models, replicas, limits=limits)


def answering(
    sources: Mapping[str, tuple[Path, str, tuple[str, ...]]], setup: Setup, limits: Limits
) -> Callable[[Question], Awaitable[Timed | tuple[str, str]]]:
    """Load the models of a replica into an engine, and return what answers its questions.

    Raises:
        ConfigError: a folder has another model than at the start of the service.
    """
    models = {name: load_model(name, source, setup) for name, (source, *_) in sources.items()}
    for name, (source, sha256, parts) in sources.items():
        # A replica that starts later must not answer with another model than the others.
        if models[name].sha256 != sha256:
            raise ConfigError(f"{source} is no longer the model {sha256[:12]} that the service started with.")
        # The memory is with the process that decides; replicas give the vectors that it compares.
        models[name].parts = parts
    engine = Engine(models, limits=limits)

    async def answer(question: Question) -> Timed | tuple[str, str]:
        ticket = Ticket(
            model=engine.find(question.model),
            meme=question.meme,
            deadline=time.monotonic() + question.seconds,
            low=question.low,
        )
        try:
            return await asyncio.wrap_future(engine.submit(ticket))
        except (Problem, CancelledError) as error:
            # As words: an exception with arguments of its own does not survive the way through Ray.
            return (
                (error.kind, error.detail) if isinstance(error, Problem) else ("deadline", "it was canceled.")
            )

    return answer
