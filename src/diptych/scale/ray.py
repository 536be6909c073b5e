"""Ray Data as an engine: calls a function for every shard on one machine or a cluster.

A shard whose worker dies is computed again by another one. The function must therefore leave nothing
half-done behind and give the same result twice, as those of this package do.
"""

import logging
import pickle
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

import torch

from diptych.errors import ConfigError, DiptychError, missing_library

try:
    import ray
    import ray.data
except Exception as error:
    raise missing_library("the engine ray needs Ray", "ray", error) from error

T = TypeVar("T")
R = TypeVar("R")
BLOCKS = 10_000  # Ray keeps books on every block of shards


class RayEngine(Protocol):
    """Calls what `build` makes for every shard; results come as they are ready."""

    def __call__(self, build: Callable[[], Callable[[T], R]], shards: Sequence[T]) -> Iterator[R]: ...


@contextmanager
def ray_engine(
    *, parallel: int | None = None, threads: int | None = None, gpu: bool = False
) -> Iterator[RayEngine]:
    """An engine on the cluster of `RAY_ADDRESS`, or on this machine where that is not set.

    Args:
        parallel: workers, each with the model in its memory; None means one per GPU, or as many as the
            threads of all CPUs allow.
        threads: of every worker on CPU; None means as many as here. The last bits of some sums depend on it.
        gpu: give every worker a GPU.

    Raises:
        ConfigError: the cluster has too little for one worker.
    """
    threads = threads or torch.get_num_threads()
    ours = not ray.is_initialized()
    if ours:
        ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    ray.data.DataContext.get_current().enable_progress_bars = False
    try:
        have = ray.cluster_resources()  # type: ignore[no-untyped-call]
        room = int(have.get("GPU", 0)) if gpu else int(have.get("CPU", 0)) // threads
        if room < (parallel or 1):
            what = "GPUs" if gpu else f"times {threads} CPU(s)"
            raise ConfigError(f"Ray has {room} {what}; expected at least {parallel or 1}, one per worker.")
        size = parallel or room
        resources: dict[str, Any] = {"num_gpus": 1} if gpu else {"num_cpus": threads}

        def run(build: Callable[[], Callable[[T], R]], shards: Sequence[T]) -> Iterator[R]:
            return _run(build, shards, size=size, threads=threads, resources=resources)

        yield run
    finally:
        if ours:
            ray.shutdown()


def _run(
    build: Callable[[], Callable[[T], R]],
    shards: Sequence[T],
    *,
    size: int,
    threads: int,
    resources: dict[str, Any],
) -> Iterator[R]:
    if not shards:
        return
    rows = [{"shard": pickle.dumps(shard)} for shard in shards]
    blocks = ray.data.from_items(rows, override_num_blocks=min(len(rows), BLOCKS))
    pool = ray.data.ActorPoolStrategy(size=min(size, len(rows)))
    results = blocks.map(  # a class stands for what its objects do
        _Worker,  # type: ignore[arg-type]
        fn_constructor_args=(build, threads),
        compute=pool,
        **resources,
    )
    for row in results.iter_rows():
        result, problem = pickle.loads(row["result"])  # by our own workers
        if problem is not None:
            raise DiptychError(problem)
        yield result


class _Worker:
    """Lives in a process of its own and keeps what `build` loads."""

    def __init__(self, build: Callable[[], Callable[[Any], Any]], threads: int) -> None:
        torch.set_num_threads(threads)
        self.build = build
        self.function: Callable[[Any], Any] | None = None

    def __call__(self, row: dict[str, Any]) -> dict[str, bytes]:
        # An error that a user can mend travels as a result: Ray would retry, and wrap it in its own.
        result = problem = None
        try:
            self.function = self.function or self.build()
            result = self.function(pickle.loads(row["shard"]))
        except DiptychError as error:
            problem = str(error)
        return {"result": pickle.dumps((result, problem))}
