"""Engine on Ray Data: calls a function for every shard, on one machine or a cluster.

If a worker dies, another one computes its shard again. The function must therefore be idempotent: no
incomplete files left behind, and the same result every time. The functions of this package are.
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
except Exception as error:  # Ray that is installed but broken raises others than ImportError
    raise missing_library("the engine ray needs Ray", "ray", error) from error

T = TypeVar("T")
R = TypeVar("R")
BLOCKS = 10_000  # maximum number of Ray blocks; Ray's driver keeps metadata of each


class RayEngine(Protocol):
    """Calls `build()(shard)` for every shard, with one `build()` per worker; yields results in any order."""

    def __call__(self, build: Callable[[], Callable[[T], R]], shards: Sequence[T]) -> Iterator[R]: ...


@contextmanager
def ray_engine(
    *, parallel: int | None = None, threads: int | None = None, gpu: bool = False
) -> Iterator[RayEngine]:
    """Yield an engine on the cluster of `RAY_ADDRESS`, or on this machine if that is not set.

    Args:
        parallel: number of workers, each with the model in its memory; None means one per GPU, or the number
            of CPUs divided by `threads`.
        threads: CPU threads of each worker; None means PyTorch's number in this process. The last bits of
            some sums depend on it.
        gpu: give each worker a GPU.

    Raises:
        ConfigError: the cluster has too few GPUs or CPUs.
    """
    with connected():
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        ray.data.DataContext.get_current().enable_progress_bars = False
        threads = threads or torch.get_num_threads()
        size, resources = workers_of(parallel, threads=threads, gpu=gpu)

        def run(build: Callable[[], Callable[[T], R]], shards: Sequence[T]) -> Iterator[R]:
            return _run(build, shards, size=size, threads=threads, resources=resources)

        yield run


@contextmanager
def connected() -> Iterator[None]:
    """Connect to the cluster of `RAY_ADDRESS`, or start Ray on this machine."""
    ours = not ray.is_initialized()  # a caller's connection is not ours to close
    if ours:
        ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    try:
        yield
    finally:
        if ours:
            ray.shutdown()


def workers_of(parallel: int | None, *, threads: int, gpu: bool) -> tuple[int, dict[str, Any]]:
    """Number of workers for which the cluster has room, and what each of them takes.

    Raises:
        ConfigError: there is room for fewer than `parallel`, or for none.
    """
    have = ray.cluster_resources()  # type: ignore[no-untyped-call]
    room = int(have.get("GPU", 0)) if gpu else int(have.get("CPU", 0)) // threads
    if room < (parallel or 1):
        what = "GPUs" if gpu else f"times {threads} CPU(s)"
        raise ConfigError(f"Ray has {room} {what}; {parallel or 1} worker(s) need one each.")
    return parallel or room, {"num_gpus": 1} if gpu else {"num_cpus": threads}


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
    # as bytes: Ray would turn lists and paths into columns of Arrow, and change their types
    rows = [{"shard": pickle.dumps(shard)} for shard in shards]
    blocks = ray.data.from_items(rows, override_num_blocks=min(len(rows), BLOCKS))
    pool = ray.data.ActorPoolStrategy(size=min(size, len(rows)))
    results = blocks.map(  # given a class, Ray makes one object per worker and calls it
        _Worker,  # type: ignore[arg-type]
        fn_constructor_args=(build, threads),
        compute=pool,
        **resources,
    )
    for row in results.iter_rows():
        result, problem = pickle.loads(row["result"])  # safe: our own workers wrote it
        if problem is not None:
            raise DiptychError(problem)
        yield result


class _Worker:
    """Worker process: builds the function at its first shard and keeps it."""

    def __init__(self, build: Callable[[], Callable[[Any], Any]], threads: int) -> None:
        torch.set_num_threads(threads)
        self.build = build
        self.function: Callable[[Any], Any] | None = None

    def __call__(self, row: dict[str, Any]) -> dict[str, bytes]:
        # An error that a user can fix is returned as a result; Ray would retry it, and wrap it in its own.
        result = problem = None
        try:
            self.function = self.function or self.build()
            result = self.function(pickle.loads(row["shard"]))
        except DiptychError as error:
            problem = str(error)
        return {"result": pickle.dumps((result, problem))}
