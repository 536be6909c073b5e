"""The weights of a bundle: looked at before memory is asked for, and loaded name by name."""

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
FLOATS = ("F32", "F64", "F16", "BF16")  # number types of weights, in the words of safetensors
WHOLE = {torch.int64: "I64", torch.int32: "I32", torch.uint8: "U8", torch.bool: "BOOL"}


def read_shapes(path: Path) -> dict[str, tuple[list[int], str]]:
    """Shape and number type of every tensor; no tensor is read."""
    with _clear_errors(path), safe_open(require_file(path), framework="pt") as file:
        parts = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118  (it is no mapping)
        return {name: (part.get_shape(), part.get_dtype()) for name, part in parts.items()}


def read_weights(path: Path) -> dict[str, Tensor]:
    """All tensors.

    Raises:
        FormatError: no safetensors file.
        CheckpointMismatch: a number is not finite.
    """
    with _clear_errors(path):
        weights = load_file(path)
    require_finite(weights, where=path)
    return weights


def write_weights(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write safetensors, which hides in a text of its own that the disk is full.

    Raises:
        OSError: the file cannot be written, and why.
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
    """Loading would round and wrap numbers of another type without a word."""
    for name, own in module.state_dict().items():
        wanted = FLOATS if own.dtype.is_floating_point else (WHOLE.get(own.dtype, ""),)
        if (got := shapes[name][1]) not in wanted:
            raise FormatError(f"{path}: {name} has numbers of type {got}; expected {wanted[0]}. {COPY}")


def require_finite(weights: Mapping[str, Tensor], *, where: object) -> None:
    for name, one in weights.items():
        # A sum takes no memory; it may overflow where no number does.
        if one.is_floating_point() and not one.sum().isfinite() and not one.isfinite().all():
            raise CheckpointMismatch(
                f"{where}: {name} holds NaN or infinity, so every score would be NaN. Did the training "
                "diverge (a lower optim.lr helps), or is the file damaged?"
            )


@contextmanager
def at_most(tensors: int, where: Path) -> Iterator[None]:
    """Refuse to build much more than a file has tensors: a bundle may ask for a billion layers."""
    made, own = 0, threading.get_ident()

    def count(module: nn.Module, name: str, parameter: Tensor | None) -> None:
        nonlocal made
        made += threading.get_ident() == own
        if made > 2 * tensors + 1000:  # what is tied or replaced counts twice
            raise CheckpointMismatch(
                f"{where}: describes more than {made - 1} tensors, the weights are {tensors}. {COPY}"
            )

    handle = register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        handle.remove()


class Unfilled(TorchFunctionMode):
    """Inside the block new weights get no random numbers, which loading would overwrite: 2/3 of its time."""

    RANDOM = frozenset({"normal_", "uniform_", "trunc_normal_", "kaiming_uniform_", "xavier_uniform_"})

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if getattr(func, "__name__", "") in self.RANDOM:
            return args[0] if args else (kwargs or {})["tensor"]
        return func(*args, **(kwargs or {}))


def fill(module: nn.Module, state: Mapping[str, Any], *, where: object) -> None:
    """Load a state dict of diptych; every name and shape must fit.

    Raises:
        CheckpointMismatch: lists what is missing, unexpected or of another shape.
    """
    try:
        module.load_state_dict(state, strict=True)
    except RuntimeError as error:
        reason = _difference(module.state_dict(), state) or str(error)
        raise CheckpointMismatch(
            f"{where}: the weights do not fit {type(module).__name__}: {reason}"
        ) from error


def _difference(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> str:
    """The first names that do not fit, where torch lists them all."""
    both = [name for name in own if name in state and own[name].shape != state[name].shape]
    found = {
        "missing": [name for name in own if name not in state],
        "unexpected": [name for name in state if name not in own],
        "size mismatch for": [f"{n} ({[*state[n].shape]}, expected {[*own[n].shape]})" for n in both],
    }
    return "; ".join(
        f"{what} {', '.join(names[:3])}{f' and {len(names) - 3} more' if names[3:] else ''}"
        for what, names in found.items()
        if names
    )
