"""The engine that does a verb's work: this process, or Ray."""

import argparse
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

from diptych.errors import ConfigError

if TYPE_CHECKING:
    from diptych.scale.ray import RayEngine


def configure_engine(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of verbs that can run on a cluster."""
    add = parser.add_argument
    add(
        "--engine",
        choices=("local", "ray"),
        default="local",
        help="ray: workers on the cluster of RAY_ADDRESS, or on this machine if that is not set",
    )
    add("--parallel", type=int, help="Ray workers (default: one per GPU, or as many as the CPUs allow)")
    add("--threads", type=int, help="CPU threads of this process or of each Ray worker (default: PyTorch's)")


def require_counts(arguments: argparse.Namespace) -> None:
    """Check the numbers of threads and workers.

    Raises:
        ConfigError: one of them is below 1.
    """
    for name in ("threads", "parallel"):
        number = getattr(arguments, name)
        if number is not None and number < 1:
            raise ConfigError(f"--{name} is {number}; expected at least 1.")


def chosen_engine(
    arguments: argparse.Namespace, *, device: str
) -> "AbstractContextManager[RayEngine | None]":
    """Return the engine; None means this process.

    Raises:
        ConfigError: --threads or --parallel is below 1, Ray is not installed, or its cluster is too small.
    """
    require_counts(arguments)
    if arguments.engine == "local":
        if arguments.threads is not None:
            import torch

            torch.set_num_threads(arguments.threads)  # OMP_NUM_THREADS would come too late
        return nullcontext()
    from diptych.scale import ray_engine

    # The engine asks Ray for a GPU per worker; which one it is, Ray decides.
    return ray_engine(parallel=arguments.parallel, threads=arguments.threads, gpu=device.startswith("cuda"))
