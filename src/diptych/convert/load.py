"""Weight files of others: read without running anything that is in them."""

import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from diptych.errors import CheckpointMismatch, FormatError

WRAPPERS = ("state_dict", "model_state_dict", "model")


def read_weights(path: Path | str) -> dict[str, Tensor]:
    """The tensors of a `.safetensors`, `.bin`, `.pt`, `.pth` or `.ckpt` file, on the CPU.

    Training wrappers come off: a surrounding `state_dict`, the `module.` of data-parallel and averaged
    models. TensorFlow's `gamma` and `beta` become `weight` and `bias`.

    Raises:
        FormatError: the file is not a weight file, is cut short, or holds more than tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise FormatError(f"{path}: no such weight file.")
    weights = _unwrap(_read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path), path)
    if any(name.startswith("module.") for name in weights):
        weights = {name.removeprefix("module."): tensor for name, tensor in weights.items()}
        weights.pop("n_averaged", None)  # a counter of torch's weight averaging
    return {_modern(name): tensor for name, tensor in weights.items()}


def split_prefix(
    weights: Mapping[str, Tensor], anchor: str, *, where: object
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Part the backbone, without its prefix, from everything else.

    Args:
        anchor: a name that ends exactly one name of the backbone; what precedes it is the prefix.

    Raises:
        CheckpointMismatch: no name, or more than one, ends with the anchor.
    """
    ends = [name for name in weights if name == anchor or name.endswith(f".{anchor}")]
    if len(ends) != 1:
        raise CheckpointMismatch(
            f"{where}: {len(ends)} names end with {anchor}; expected exactly one. "
            f"The file holds {len(weights)} tensors, first {', '.join(list(weights)[:3])}."
        )
    prefix = ends[0].removesuffix(anchor)
    backbone = {name.removeprefix(prefix): one for name, one in weights.items() if name.startswith(prefix)}
    return backbone, {name: one for name, one in weights.items() if not name.startswith(prefix)}


def _read_safetensors(path: Path) -> object:
    try:
        return load_file(path)
    except SafetensorError as error:
        raise FormatError(
            f"{path}: not a whole safetensors file ({error}). Download or copy it again."
        ) from error


def _read_torch(path: Path) -> object:
    try:
        with warnings.catch_warnings():
            # Another pickle protocol is read or refused; a warning beside that helps nobody.
            warnings.filterwarnings("ignore", message="Detected pickle protocol")
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise FormatError(
            f"{path}: refused, since it is not a torch file of plain tensors ({_first_line(error)}). If you "
            "trust it, save its state dict as safetensors with the program that made it."
        ) from error
    except Exception as error:  # broken bytes break the reader in many ways
        raise FormatError(
            f"{path}: not a whole torch file ({_first_line(error)}). Download or copy it again."
        ) from error


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def _unwrap(content: object, path: Path) -> dict[str, Tensor]:
    while isinstance(content, Mapping):
        inside = [key for key in WRAPPERS if isinstance(content.get(key), Mapping)]
        if not inside:
            break
        content = content[inside[0]]
    if not isinstance(content, Mapping) or not content:
        raise FormatError(f"{path}: holds {_kind(content)}; expected tensors by name.")
    for name, tensor in content.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise FormatError(
                f"{path}: {name!r} is {_kind(tensor)}; expected tensors by name (a state dict)."
            )
    return dict(content)


def _kind(value: object) -> str:
    return f"a {type(value).__name__}" if value or not isinstance(value, Mapping) else "nothing"


def _modern(name: str) -> str:
    head, dot, last = name.rpartition(".")
    return head + dot + {"gamma": "weight", "beta": "bias"}.get(last, last)
