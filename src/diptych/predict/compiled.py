"""Compilation of a model's layers with torch.compile, for predictions."""

import os
import shutil
import time
from collections import Counter
from collections.abc import Callable

from torch import nn

from diptych.errors import ConfigError


def compile_layers(model: nn.Module, ready: Callable[[float], object] | None = None) -> int:
    """Compile the layers of a model's stacks, in place; returns how many there are.

    Layers of one class share their code, so that a model of twelve layers takes as long to compile as one of
    two. Shapes are dynamic: batches of other sizes and lengths need no further compilation, except those of
    one row. Compilation begins with the first batch.

    Args:
        ready: called with the seconds that the first batch took, nearly all of them for compilation.

    Raises:
        ConfigError: the model has no stack of equal layers, or there is no compiler for the processor.
    """
    compiler = os.environ.get("CXX", "g++")
    if next(model.parameters()).device.type == "cpu" and shutil.which(compiler) is None:
        raise ConfigError(
            f"--compile needs a C++ compiler, and {compiler!r} is not here; install g++ or set CXX."
        )
    layers = [
        layer for stack in model.modules() if isinstance(stack, nn.ModuleList) for layer in _equal(stack)
    ]
    if not layers:
        raise ConfigError(
            f"{type(model).__name__} has no stack of equal layers, so there is nothing to compile; "
            "remove --compile."
        )
    for layer in layers:
        layer.compile(dynamic=True)
    if ready is not None:
        _time_first(model, ready)
    return len(layers)


def _time_first(model: nn.Module, ready: Callable[[float], object]) -> None:
    """Call `ready` with the seconds of the model's next call, once."""
    began = 0.0

    def start(*_: object) -> None:
        nonlocal began
        began = time.perf_counter()

    def stop(*_: object) -> None:
        before.remove()
        after.remove()
        ready(time.perf_counter() - began)

    before, after = model.register_forward_pre_hook(start), model.register_forward_hook(stop)


def _equal(stack: nn.ModuleList) -> list[nn.Module]:
    """The layers of a stack whose class occurs more than once: only these share what is compiled."""
    counts = Counter(type(layer) for layer in stack)
    return [layer for layer in stack if counts[type(layer)] > 1]
