"""Reads, checks and writes the weights of a bundle."""

import os
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook
from torch.overrides import TorchFunctionMode

from diptych.documents import shorten
from diptych.errors import CheckpointMismatch, DiptychError, FormatError
from diptych.files import require_file

COPY = "Train again or copy it again."
FLOATS = ("F32", "F64", "F16", "BF16")  # safetensors' names of floating-point types
WHOLE = {torch.int64: "I64", torch.int32: "I32", torch.uint8: "U8", torch.bool: "BOOL"}


def read_shapes(path: Path) -> dict[str, tuple[list[int], str]]:
    """Read the shape and number type of every tensor, without reading tensors."""
    with _clear_errors(path), safe_open(require_file(path), framework="pt") as file:
        parts = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118  (not a mapping)
        return {name: (part.get_shape(), part.get_dtype()) for name, part in parts.items()}


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read all tensors.

    Raises:
        FormatError: the file is not a safetensors file.
        CheckpointMismatch: a number is not finite.
    """
    with _clear_errors(path):
        weights = load_file(path)
    require_finite(weights, where=path)
    return weights


def write_weights(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write tensors as safetensors.

    Raises:
        OSError: the file cannot be written. safetensors has the error number in its message only.
    """
    try:
        save_file(dict(tensors), path)
    except SafetensorError as error:
        if (code := re.search(r"os error (\d+)", str(error))) is None:
            raise
        raise OSError(int(code[1]), os.strerror(int(code[1])), str(path)) from error


@contextmanager
def _clear_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except DiptychError:
        raise
    except (SafetensorError, OSError, ValueError, TypeError, KeyError, RuntimeError, OverflowError) as error:
        raise FormatError(f"{path}: cannot be read ({shorten(str(error), 300)}). {COPY}") from error


def require_types(module: nn.Module, shapes: Mapping[str, tuple[list[int], str]], path: Path) -> None:
    """Check number types, because loading silently rounds or wraps numbers of another type."""
    for name, own in module.state_dict().items():
        wanted = FLOATS if own.dtype.is_floating_point else (WHOLE.get(own.dtype, ""),)
        if (got := shapes[name][1]) not in wanted:
            raise FormatError(f"{path}: {name} has numbers of type {got}; expected {wanted[0]}. {COPY}")


def require_finite(weights: Mapping[str, Tensor], *, where: object) -> None:
    """Raise CheckpointMismatch if a weight is not finite."""
    for name, weight in weights.items():
        # The sum needs no more memory, but may overflow although all numbers are finite: hence both tests.
        if weight.is_floating_point() and not weight.sum().isfinite() and not weight.isfinite().all():
            raise CheckpointMismatch(
                f"{where}: {name} has NaN or infinity, so every score would be NaN. Did the training "
                "diverge (a lower optim.lr helps), or is the file damaged?"
            )


@contextmanager
def at_most(tensors: int, where: Path) -> Iterator[None]:
    """Limit the number of parameters built inside the block: a forged bundle may ask for a billion layers."""
    made, own = 0, threading.get_ident()

    def count(module: nn.Module, name: str, parameter: Tensor | None) -> None:
        nonlocal made
        made += threading.get_ident() == own  # the hook is global: ignore models of other threads
        if made > 2 * tensors + 1000:  # tied and replaced parameters are registered twice
            raise CheckpointMismatch(
                f"{where}: describes more than {made - 1} tensors, but there are {tensors}. {COPY}"
            )

    handle = register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        handle.remove()


class Unfilled(TorchFunctionMode):
    """Skips random initialization inside the block, which takes two thirds of the time of loading a model."""

    RANDOM = frozenset({"normal_", "uniform_", "trunc_normal_", "kaiming_uniform_", "xavier_uniform_"})

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if getattr(func, "__name__", "") in self.RANDOM:
            # The functions in RANDOM work in place and return their argument.
            return args[0] if args else (kwargs or {})["tensor"]
        return func(*args, **(kwargs or {}))


def fill(module: nn.Module, state: Mapping[str, Any], *, where: object) -> None:
    """Load a state dict; every name and shape must fit.

    Raises:
        CheckpointMismatch: lists missing and unexpected names, and names with another shape.
    """
    try:
        module.load_state_dict(state, strict=True)
    except RuntimeError as error:
        reason = _difference(module.state_dict(), state) or str(error)
        raise CheckpointMismatch(
            f"{where}: the weights do not fit {type(module).__name__}: {reason}"
        ) from error


def _difference(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> str:
    """List the first names that do not fit; torch's own message lists all."""
    both = [name for name in own if name in state and own[name].shape != state[name].shape]
    problems = {
        "missing": [name for name in own if name not in state],
        "unexpected": [name for name in state if name not in own],
        "size mismatch for": [f"{n} ({[*state[n].shape]}, expected {[*own[n].shape]})" for n in both],
    }
    return "; ".join(
        f"{what} {', '.join(names[:3])}{f' and {len(names) - 3} more' if names[3:] else ''}"
        for what, names in problems.items()
        if names
    )
