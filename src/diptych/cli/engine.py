"""Where the work of a verb is done: here, or by Ray."""

import argparse
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

from diptych.errors import ConfigError

if TYPE_CHECKING:
    from diptych.scale.ray import RayEngine


def configure_engine(parser: argparse.ArgumentParser) -> None:
    """Arguments of all verbs that can go to a cluster."""
    add = parser.add_argument
    add(
        "--engine", choices=("local", "ray"), default="local", help="ray: the cluster of RAY_ADDRESS, or here"
    )
    add("--parallel", type=int, help="workers of ray (default: one per GPU, or as many as the CPUs allow)")
    add("--threads", type=int, help="on CPU, here or of each worker of ray (default: those of PyTorch here)")


def chosen_engine(
    arguments: argparse.Namespace, *, device: str
) -> "AbstractContextManager[RayEngine | None]":
    """The engine, None for this process.

    Raises:
        ConfigError: numbers below 1, or Ray is missing or too small.
    """
    if any(number is not None and number < 1 for number in (arguments.threads, arguments.parallel)):
        raise ConfigError("--threads and --parallel are numbers from 1 on.")
    if arguments.engine == "local":
        if arguments.threads is not None:
            import torch

            torch.set_num_threads(arguments.threads)
        return nullcontext()
    from diptych.scale import ray_engine

    return ray_engine(parallel=arguments.parallel, threads=arguments.threads, gpu=device.startswith("cuda"))
