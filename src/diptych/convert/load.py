"""Weight files of others: read without running anything that is in them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from numpy import ndarray
from safetensors.torch import load_file
from torch import Tensor
from typing_extensions import TypedDict

from diptych.archives import guarded, open_archive, read_npz
from diptych.convert.paddle import read_paddle
from diptych.documents import read_json, shorten
from diptych.errors import FormatError
from diptych.files import require_file
from diptych.pickle_machine import Foreign, Name
from diptych.torch_file import Lying, Unread, from_array, read_torch

WRAPPERS = ("state_dict", "model_state_dict", "model", "module", "model_state")
MAX_WRAPPERS = 8  # around each other
PARALLEL = ("module.", "_orig_mod.")  # what torch puts before the names of models that it wraps
SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".th", ".ckpt", ".model", ".npz", ".pkl")
PREFERRED = ("model.safetensors", "pytorch_model.bin")
PADDLE = "word_embedding"  # a folder that holds this file is one of Paddle parameters
AGAIN = "Download or copy it again."


class Config(TypedDict, total=False):
    """The numbers of Hugging Face's `config.json` that are used, among others that are not."""

    __pydantic_config__ = {"strict": True, "extra": "allow"}  # type: ignore[misc] # noqa: RUF012

    num_attention_heads: int
    v_num_attention_heads: int
    bi_num_attention_heads: int
    co_num_attention_heads: int
    t_biattention_id: list[int]
    v_biattention_id: list[int]


class Index(TypedDict):
    """Hugging Face's index of shards: the file of every tensor."""

    weight_map: dict[str, str]


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
        config=read_json(config, Config, advice=AGAIN) if config.exists() else {},
        vocabulary=_existing(path / "vocab.txt"),
    )


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
        if not index.exists():
            continue
        places = read_json(index, Index, advice=AGAIN)["weight_map"]
        weights: dict[str, Tensor] = {}
        for shard in sorted(set(places.values())):
            # a path could lead out of the folder
            if Path(shard).name != shard or not (folder / shard).is_file():
                raise FormatError(
                    f"{index}: names {shorten(shard)}, which is not in the folder. Download it, too."
                )
            weights |= _read_file(folder / shard).weights
        if lost := [name for name in places if _modern(name) not in weights]:
            raise FormatError(
                f"{index}: names {len(lost)} tensors that its shards do not hold, first {shorten(lost[0])}. "
                f"{AGAIN}"
            )
        return Source(path=folder, kind=f"{len(set(places.values()))} shards", weights=weights)
    return None


def _existing(*paths: Path) -> Path | None:
    return next((path for path in paths if path.is_file()), None)


def _read_file(path: Path) -> Source:
    kind, weights, junk = _read_content(require_file(path, "a weight file"))
    while any(name.startswith(PARALLEL) for name in weights):
        weights = {_stripped(name): tensor for name, tensor in weights.items()}
        if weights.pop("n_averaged", None) is not None:
            junk["the counter of torch's weight averaging"] = ["n_averaged"]
    modern = {_modern(name): one for name, one in weights.items()}
    if len(modern) < len(weights):
        names = [_modern(name) for name in weights]
        twice = next(name for name in names if names.count(name) > 1)
        raise FormatError(
            f"{path}: it holds {shorten(twice)} twice, also as gamma or beta. Remove one of them."
        )
    return Source(path=path, kind=kind, weights=modern, junk=junk)


def _read_content(path: Path) -> tuple[str, dict[str, Tensor], dict[str, list[str]]]:
    """Kind, tensors and what lay beside them; the kind shows in the first bytes.

    An archive of arrays is a ZIP archive as torch's is.
    """
    with open(path, "rb") as file:
        start = file.read(262)
    junk: dict[str, list[str]] = {}
    if start[8:9] == b"{" or path.suffix == ".safetensors":
        with guarded(path, "a whole safetensors file"):
            return "a safetensors file", load_file(path), junk
    if start[:4] == b"PK\x03\x04":
        with open_archive(path) as archive:
            arrays = all(name.endswith(".npy") for name in archive.namelist())
        if arrays:
            found = {name: _as_tensor(path, name, one) for name, one in read_npz(path).items()}
            return "an archive of NumPy's arrays", found, junk
    elif start[:1] != b"\x80" and start[257:] != b"ustar" and path.suffix != ".pkl":
        raise FormatError(
            f"{path}: not a weight file; it begins with {start[:9]!r}. Expected safetensors, a torch file, a "
            "pickle or an archive of arrays."
        )
    with guarded(path, "a whole torch file"):
        return "a torch file", read_torch(path, lambda content: _unwrap(content, path, junk)), junk


def _as_tensor(path: Path, name: str, array: ndarray) -> Tensor:
    with guarded(f"{path}: {shorten(name)}", "an array of numbers"):
        return from_array(array)


def _unwrap(content: object, path: Path, junk: dict[str, list[str]]) -> dict[str, Any]:
    """The tensors by name inside of training wrappers; what lay beside them goes into `junk`."""
    beside: list[str] = []
    for _ in range(MAX_WRAPPERS):
        if not isinstance(content, dict) or (key := _wrapper(content, path)) is None:
            break
        beside += [_about(name, one) for name, one in content.items() if name != key]
        content = content[key]
    if not isinstance(content, dict) or not content:
        raise FormatError(
            f"{path}: holds {_kind(content)}; expected tensors by name. Save the state dict of the model."
        )
    tensors = {name: one for name, one in content.items() if isinstance(one, (Lying, Unread, ndarray))}
    for name, value in (tensors or content).items():
        if not isinstance(name, str) or not name.isprintable() or not isinstance(value, (Lying, ndarray)):
            raise FormatError(
                f"{path}: {shorten(name)} is {_kind(value)}; expected plain tensors by name (a state dict)."
            )
    beside += [_about(name, one) for name, one in content.items() if name not in tensors]
    if beside:
        junk["state of the training, beside the weights"] = beside
    return tensors


def _wrapper(content: dict[Any, Any], path: Path) -> Any:
    """The key under which the tensors lie; None where they lie here."""
    for key in WRAPPERS:
        if isinstance(content.get(key), dict) and content[key]:
            return key
    if any(isinstance(value, (Lying, ndarray)) for value in content.values()):
        return None
    inside = [
        key
        for key, value in content.items()
        if isinstance(value, dict) and any(isinstance(one, (Lying, ndarray)) for one in value.values())
    ]
    if len(inside) > 1:
        raise FormatError(
            f"{path}: holds several sets of tensors: {', '.join(map(shorten, inside[:8]))}. Save the one "
            "that you mean alone."
        )
    return inside[0] if inside else None


def _about(name: object, value: object) -> str:
    """A name, and the class where it is none of Python's."""
    text = name if isinstance(name, str) and name.isprintable() else shorten(name)
    known = value.name if isinstance(value, Foreign) else str(value) if isinstance(value, Name) else ""
    return f"{text} ({known})" if known else text


def _kind(value: object) -> str:
    match value:
        case Foreign(name=name):
            return f"a {name}"
        case Lying():
            return "a tensor"
        case Name():
            return f"the name {value}"
        case dict() if not value:
            return "nothing"
    return f"a {type(value).__name__}"


def _stripped(name: str) -> str:
    for prefix in PARALLEL:
        name = name.removeprefix(prefix)
    return name


def _modern(name: str) -> str:
    head, dot, last = name.rpartition(".")
    return head + dot + {"gamma": "weight", "beta": "bias"}.get(last, last)
