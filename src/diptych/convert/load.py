"""Weight files of others: read without running anything that is in them."""

import json
import pickle
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from diptych.convert.paddle import read_paddle
from diptych.errors import CheckpointMismatch, FormatError

WRAPPERS = ("state_dict", "model_state_dict", "model")
SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".th", ".ckpt", ".model", ".npz")
PREFERRED = ("model.safetensors", "pytorch_model.bin")
PADDLE = "word_embedding"  # a folder that holds this file is one of Paddle parameters


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """What somebody gave: tensors by their original names, and what lay beside them.

    Args:
        kind: of file, for people.
        weights: without training wrappers.
        junk: names that lay around the tensors, and why they are left out.
        config: Hugging Face's `config.json` of the folder.
        vocabulary: the `vocab.txt` of the folder.
    """

    path: Path
    kind: str
    weights: dict[str, Tensor]
    junk: dict[str, list[str]] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    vocabulary: Path | None = None


def read_weights(path: Path | str) -> dict[str, Tensor]:
    """The tensors of a weight file, or of a folder that holds one, on the CPU; see `read_source`.

    Raises:
        FormatError: the file is not a weight file, is cut short, or holds more than tensors.
    """
    return read_source(path).weights


def read_source(path: Path | str) -> Source:
    """Read a `.safetensors`, torch or `.npz` file, a folder of Hugging Face's, or one of Paddle parameters.

    What a file is shows in its first bytes, not in its name. Training wrappers come off: a surrounding
    `state_dict`, the `module.` of data-parallel and averaged models. TensorFlow's `gamma` and `beta` become
    `weight` and `bias`.

    Raises:
        FormatError: not weights, cut short, more than tensors, or a folder without or with several files.
    """
    path = Path(path)
    if not path.is_dir():
        return _read_file(path)
    path = _only_folder(path)
    for folder in (path, path / "params"):
        if (folder / PADDLE).is_file():
            vocabulary = _existing(folder / "vocab.txt", folder.parent / "vocab.txt")
            weights = read_paddle(folder)
            return Source(
                path=path, kind="a folder of Paddle parameters", weights=weights, vocabulary=vocabulary
            )
    found = _read_index(path) or _read_file(_only_file(path))
    config = path / "config.json"
    return Source(
        path=path,
        kind=f"a folder with {found.kind}",
        weights=found.weights,
        junk=found.junk,
        config=_read_json(config) if config.is_file() else {},
        vocabulary=_existing(path / "vocab.txt"),
    )


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


def _only_folder(path: Path) -> Path:
    """Unpacked archives hold one folder, and that one another."""
    while len(entries := [one for one in path.iterdir() if not one.name.startswith(".")]) == 1:
        if not entries[0].is_dir() or entries[0].name == "params":
            break
        path = entries[0]
    return path


def _only_file(folder: Path) -> Path:
    files = sorted(one for one in folder.iterdir() if one.suffix in SUFFIXES and one.is_file())
    for name in PREFERRED:
        if folder / name in files:
            return folder / name
    if len(files) != 1:
        raise FormatError(
            f"{folder}: holds {len(files)} weight files{': ' if files else ''}"
            f"{', '.join(one.name for one in files[:5])}; expected one, Hugging Face's shards and their "
            "index, or Paddle parameters. Give the file itself."
        )
    return files[0]


def _read_index(folder: Path) -> Source | None:
    """The shards that an index names."""
    for name in PREFERRED:
        index = folder / f"{name}.index.json"
        if not index.is_file():
            continue
        shards = _read_json(index).get("weight_map")
        if not isinstance(shards, Mapping):
            raise FormatError(f"{index}: has no weight_map; expected Hugging Face's index of shards.")
        weights: dict[str, Tensor] = {}
        for shard in sorted(set(map(str, shards.values()))):
            if not (folder / shard).is_file() or Path(shard).name != shard:
                raise FormatError(f"{index}: names {shard}, which is not in the folder. Download it, too.")
            weights |= _read_file(folder / shard).weights
        kind = f"{len(set(shards.values()))} shards"
        return Source(path=folder, kind=kind, weights=weights)
    return None


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise FormatError(f"{path}: not JSON ({error}). Download or copy it again.") from error
    if not isinstance(content, dict):
        raise FormatError(f"{path}: holds {_kind(content)}; expected names and values.")
    return content


def _existing(*paths: Path) -> Path | None:
    return next((path for path in paths if path.is_file()), None)


def _read_file(path: Path) -> Source:
    if not path.is_file():
        raise FormatError(f"{path}: no such weight file.")
    kind, content = _read_content(path)
    weights, junk = _unwrap(content, path)
    if any(name.startswith("module.") for name in weights):
        weights = {name.removeprefix("module."): tensor for name, tensor in weights.items()}
        if weights.pop("n_averaged", None) is not None:
            junk["the counter of torch's weight averaging"] = ["n_averaged"]
    return Source(
        path=path, kind=kind, weights={_modern(name): one for name, one in weights.items()}, junk=junk
    )


def _read_content(path: Path) -> tuple[str, object]:
    """Kind and content, told by the first bytes; an archive of arrays is a zip file as torch's is."""
    with open(path, "rb") as file:
        start = file.read(9)
    # zip archives begin with P; pickles, which torch wrote before version 1.6, with 0x80
    if start[8:] != b"{" and path.suffix != ".safetensors" and start[:1] not in (b"P", b"\x80", b""):
        raise FormatError(
            f"{path}: not a weight file; it begins with {start!r}. Expected safetensors, a torch file or "
            "an archive of arrays."
        )
    if start[8:] == b"{" or path.suffix == ".safetensors":
        return "a safetensors file", _read_safetensors(path)
    if start[:4] == b"PK\x03\x04" and zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
        if names and all(name.endswith(".npy") for name in names):
            return "an archive of NumPy's arrays", _read_arrays(path)
    return "a torch file", _read_torch(path)


def _read_arrays(path: Path) -> object:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    except Exception as error:  # broken bytes break the reader in many ways
        raise FormatError(
            f"{path}: not a whole archive of arrays ({_first_line(error)}). Download or copy it again."
        ) from error


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
    return next(iter(str(error).splitlines()), type(error).__name__).split(". ")[0]


def _unwrap(content: object, path: Path) -> tuple[dict[str, Tensor], dict[str, list[str]]]:
    """The tensors by name inside of training wrappers, and what lay beside them."""
    junk: list[str] = []
    while isinstance(content, Mapping):
        inside = [key for key in WRAPPERS if isinstance(content.get(key), Mapping)]
        if not inside:
            break
        junk += [str(key) for key in content if key != inside[0]]
        content = content[inside[0]]
    if not isinstance(content, Mapping) or not content:
        raise FormatError(f"{path}: holds {_kind(content)}; expected tensors by name.")
    for name, tensor in content.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise FormatError(
                f"{path}: {name!r} is {_kind(tensor)}; expected tensors by name (a state dict)."
            )
    return dict(content), {"state of the training, beside the weights": junk} if junk else {}


def _kind(value: object) -> str:
    return f"a {type(value).__name__}" if value or not isinstance(value, Mapping) else "nothing"


def _modern(name: str) -> str:
    head, dot, last = name.rpartition(".")
    return head + dot + {"gamma": "weight", "beta": "bias"}.get(last, last)
