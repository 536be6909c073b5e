"""Replicas on Ray Serve: a question goes to one of them, and to another one if that dies."""

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from contextlib import ExitStack
from threading import Thread
from typing import Any
from uuid import uuid4

import torch

from diptych.errors import ConfigError, missing_library
from diptych.scale.ray import connected, workers_of

try:
    from ray import serve
    from ray.exceptions import RayActorError
except Exception as error:  # Ray that is installed but broken raises others than ImportError
    raise missing_library("replicas need Ray Serve", "ray", error) from error

PAUSE = 0.1  # seconds between two tries
Answer = Callable[[Any], Awaitable[Any]]


class Replicas:
    """Several processes that each build the same function and answer questions with it.

    Args:
        build: called once in every replica; its function is called for several questions at once.
        count: number of replicas; None means as many as the cluster has room for.
        threads: CPU threads of each replica.
        gpu: give each replica a GPU.
        most: questions that a replica has at once.

    Raises:
        ConfigError: the cluster has too little room, or no replica could be built.
    """

    def __init__(
        self,
        build: Callable[[], Answer],
        *,
        count: int | None = None,
        threads: int = 1,
        gpu: bool = False,
        most: int = 256,
    ) -> None:
        self._name = f"diptych-{os.getpid()}-{uuid4().hex[:8]}"  # several services may share a cluster
        # The calls are awaited in a loop of their own: that of HTTP must not wait for Ray.
        self._loop = asyncio.new_event_loop()
        with ExitStack() as stack:
            stack.enter_context(connected())
            self.count, resources = workers_of(count, threads=threads, gpu=gpu)
            logging.getLogger("ray.serve").setLevel(logging.ERROR)
            # HTTP is ours: Ray's own has neither our keys nor our limits.
            serve.start(proxy_location="Disabled")
            stack.callback(serve.shutdown)
            replica = serve.deployment(_Replica).options(  # type: ignore[attr-defined]
                num_replicas=self.count,
                max_ongoing_requests=most,
                ray_actor_options=resources,
                health_check_period_s=2,
            )
            stack.callback(serve.delete, self._name)
            try:
                # Returns when all replicas are built.
                self._handle = serve.run(replica.bind(build, threads), name=self._name, route_prefix=None)
            except RuntimeError as error:
                raise ConfigError(f"Ray Serve could not start the replicas: {error}") from error
            self._open = stack.pop_all()
        self._thread = Thread(target=self._loop.run_forever, name="replicas", daemon=True)
        self._thread.start()

    def ask(self, question: Any, *, seconds: float) -> "Future[Any]":
        """Send a question, which may be answered more than once but is never lost.

        Args:
            question: that can be pickled.
            seconds: in which another replica is tried.

        Returns:
            The answer. Canceling it cancels the question. It raises what the function raised, or
            `RayActorError` if no replica lived long enough.
        """
        return asyncio.run_coroutine_threadsafe(self._ask(question, time.monotonic() + seconds), self._loop)

    async def _ask(self, question: Any, end: float) -> Any:
        while True:
            response = self._handle.remote(question)
            try:
                return await response
            except asyncio.CancelledError:
                response.cancel()  # type: ignore[no-untyped-call]
                raise
            except RayActorError:
                # Its replica is dead. What it had computed, nobody has seen: ask another one.
                if time.monotonic() > end:
                    raise
                await asyncio.sleep(PAUSE)

    def close(self) -> None:
        """End the replicas, and Ray if this process started it."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._open.close()


class _Replica:
    """A process of Ray Serve."""

    def __init__(self, build: Callable[[], Answer], threads: int) -> None:
        torch.set_num_threads(threads)
        self.answer = build()

    async def __call__(self, question: Any) -> Any:
        return await self.answer(question)
