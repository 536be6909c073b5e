"""Reads third-party weight files without executing anything in them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from numpy import ndarray
from safetensors.torch import load_file
from torch import Tensor
from typing_extensions import TypedDict

from diptych.archives import guarded, open_archive, read_npz
from diptych.convert import open_clip
from diptych.convert.paddle import read_paddle
from diptych.documents import read_json, shorten
from diptych.errors import FormatError, first_five
from diptych.files import require_file
from diptych.pickle_machine import Foreign, Name
from diptych.torch_file import Lying, Unread, from_array, read_torch

WRAPPERS = ("state_dict", "model_state_dict", "model", "module", "model_state")
MAX_WRAPPERS = 8  # limit of nested wrappers
PARALLEL = ("module.", "_orig_mod.")  # prefixes of models that torch has wrapped (DDP, torch.compile)
SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".th", ".ckpt", ".model", ".npz", ".pkl")
PREFERRED = ("model.safetensors", "pytorch_model.bin")
# In the order of preference: a tokenizer.json may be of any kind.
VOCABULARIES = ("vocab.txt", "merges.txt", "spiece.model", "tokenizer.json")
PADDLE = "word_embedding"  # a folder that holds this file is one of Paddle parameters
AGAIN = "Download or copy it again."


class TowerConfig(TypedDict, total=False):
    """The fields of one tower of a dual encoder that are used."""

    __pydantic_config__ = {"strict": True, "extra": "allow"}  # type: ignore[misc] # noqa: RUF012

    num_attention_heads: int
    hidden_act: str


class Config(TypedDict, total=False):
    """The fields of Hugging Face's `config.json` that are used. Other fields are allowed."""

    __pydantic_config__ = {"strict": True, "extra": "allow"}  # type: ignore[misc] # noqa: RUF012

    num_attention_heads: int
    v_num_attention_heads: int
    bi_num_attention_heads: int
    co_num_attention_heads: int
    t_biattention_id: list[int]
    v_biattention_id: list[int]
    text_config: TowerConfig
    vision_config: TowerConfig


class Index(TypedDict):
    """Hugging Face's index of shards: the file of every tensor."""

    weight_map: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Content of a weight file or folder.

    Args:
        kind: kind of the file, for users.
        weights: tensors by their original names, without training wrappers.
        junk: names of other content, by the reason why it is left out.
        config: Hugging Face's `config.json` in the folder, or what open_clip's says; empty if there is none.
        vocabulary: the first of `VOCABULARIES` in the folder.
    """

    path: Path
    kind: str
    weights: dict[str, Tensor]
    junk: dict[str, list[str]] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    vocabulary: Path | None = None


def read_weights(path: Path | str) -> dict[str, Tensor]:
    """Read the tensors of a weight file, or of a folder with one, to the CPU; see `read_source`.

    Raises:
        FormatError: the file is not a weight file, is truncated, or has other types than tensors.
    """
    return read_source(path).weights


def read_source(path: Path | str) -> Source:
    """Read a `.safetensors`, torch or `.npz` file, a folder of Hugging Face, or one of Paddle parameters.

    The first bytes decide what a file is, not its name. Training wrappers are removed: a surrounding
    `state_dict`, and the prefix `module.` of data-parallel and averaged models. TensorFlow's `gamma` and
    `beta` become `weight` and `bias`.

    Raises:
        FormatError: the file is not a weight file, is truncated or has other types than tensors, or a folder
            has no weight file or several.
    """
    path = Path(path)
    if not path.is_dir():
        return _read_file(path)
    path = _only_folder(path)
    # Before Hugging Face's files: a folder of Paddle parameters has no file with a known suffix.
    for folder in (path, path / "params"):
        if (folder / PADDLE).is_file():
            vocabulary = _existing(folder / "vocab.txt", folder.parent / "vocab.txt")
            weights = read_paddle(folder)
            return Source(
                path=path, kind="a folder of Paddle parameters", weights=weights, vocabulary=vocabulary
            )
    content = _read_index(path) or _read_file(_only_file(path))
    config: Mapping[str, Any] = {}
    if (path / "config.json").exists():
        config = read_json(path / "config.json", Config, advice=AGAIN)
    elif (path / open_clip.FILE).exists():
        config = open_clip.read_open_clip(path / open_clip.FILE, advice=AGAIN)
    return Source(
        path=path,
        kind=f"a folder with {content.kind}",
        weights=content.weights,
        junk=content.junk,
        config=config,
        vocabulary=_existing(*(path / name for name in VOCABULARIES)),
    )


def _only_folder(path: Path) -> Path:
    """Descend into a folder that holds only one folder, as unpacked archives often do."""
    # `params` stops the descent, because its vocabulary lies beside it.
    while len(entries := [entry for entry in path.iterdir() if not entry.name.startswith(".")]) == 1:
        if not entries[0].is_dir() or entries[0].name == "params":
            break
        path = entries[0]
    return path


def _only_file(folder: Path) -> Path:
    files = sorted(file for file in folder.iterdir() if file.suffix in SUFFIXES and file.is_file())
    files = [file for file in files if file.name not in VOCABULARIES]  # SentencePiece's ends with .model, too
    for name in PREFERRED:
        if folder / name in files:
            return folder / name
    if len(files) != 1:
        raise FormatError(
            f"{folder}: has {len(files)} weight files{': ' if files else ''}"
            f"{first_five(file.name for file in files)}; expected one, Hugging Face's shards and their "
            "index, or Paddle parameters. Give the path of the file itself."
        )
    return files[0]


def _read_index(folder: Path) -> Source | None:
    """Read the shards of a Hugging Face index; None if the folder has no index."""
    for name in PREFERRED:
        index = folder / f"{name}.index.json"
        if not index.exists():
            continue
        places = read_json(index, Index, advice=AGAIN)["weight_map"]
        weights: dict[str, Tensor] = {}
        # The index comes from a stranger: it names each file,
        # and nothing it says is believed about the tensors.
        for shard in sorted(set(places.values())):
            # A name with folders in it could lead out of the folder.
            if Path(shard).name != shard or not (folder / shard).is_file():
                raise FormatError(
                    f"{index}: lists {shorten(shard)}, which is not in the folder. Download it, too."
                )
            weights |= _read_file(folder / shard).weights
        if lost := [name for name in places if _modern(name) not in weights]:
            raise FormatError(
                f"{index}: lists {len(lost)} tensors that its shards do not have, first {shorten(lost[0])}. "
                f"{AGAIN}"
            )
        return Source(path=folder, kind=f"{len(set(places.values()))} shards", weights=weights)
    return None


def _existing(*paths: Path) -> Path | None:
    return next((path for path in paths if path.is_file()), None)


def _read_file(path: Path) -> Source:
    kind, weights, junk = _read_content(require_file(path, "a weight file"))
    while any(name.startswith(PARALLEL) for name in weights):  # wrappers may be nested
        weights = {_stripped(name): tensor for name, tensor in weights.items()}
        if weights.pop("n_averaged", None) is not None:
            junk["the counter of torch's weight averaging"] = ["n_averaged"]
    # Two names may become one; a dictionary would lose a tensor without a word.
    modern = {_modern(name): tensor for name, tensor in weights.items()}
    if len(modern) < len(weights):
        names = [_modern(name) for name in weights]
        twice = next(name for name in names if names.count(name) > 1)
        raise FormatError(
            f"{path}: has {shorten(twice)} twice, once as gamma or beta. Remove one of the two tensors."
        )
    return Source(path=path, kind=kind, weights=open_clip.plain_names(modern), junk=junk)


def _read_content(path: Path) -> tuple[str, dict[str, Tensor], dict[str, list[str]]]:
    """Read a file by its first bytes; returns its kind, the tensors, and names of other content by reason."""
    with open(path, "rb") as file:
        start = file.read(262)  # up to the mark of a TAR archive, at byte 257
    junk: dict[str, list[str]] = {}
    # A damaged `.safetensors` goes to the library, too, whose message says what is wrong with it.
    if start[8:9] == b"{" or path.suffix == ".safetensors":  # 8 bytes of length, then JSON
        with guarded(path, "a whole safetensors file"):
            return "a safetensors file", load_file(path), junk
    if start[:4] == b"PK\x03\x04":  # a ZIP archive: NumPy's arrays, or a torch file
        with open_archive(path) as archive:
            # Torch's archives hold `data.pkl` and no `.npy`.
            arrays = all(name.endswith(".npy") for name in archive.namelist())
        if arrays:
            weights = {name: _as_tensor(path, name, array) for name, array in read_npz(path).items()}
            return "an archive of NumPy's arrays", weights, junk
    # Pickles of protocol 2 and later begin with \x80; a `.pkl` of a detector may use an older one.
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
    """Return the tensors by name inside of training wrappers; names of other content go to `junk`."""
    beside: list[str] = []
    for _ in range(MAX_WRAPPERS):  # a limit, because a hostile file can wrap itself
        if not isinstance(content, dict) or (key := _wrapper(content, path)) is None:
            break
        beside += [_about(name, value) for name, value in content.items() if name != key]
        content = content[key]
    if not isinstance(content, dict) or not content:
        raise FormatError(
            f"{path}: holds {_kind(content)}; expected tensors by name. Save the state dict of the model."
        )
    # `Lying` are tensors whose numbers are still in the file: they are read after all names are checked.
    tensors = {name: value for name, value in content.items() if isinstance(value, (Lying, Unread, ndarray))}
    for name, value in (tensors or content).items():
        # Names appear in messages and in the bundle; control characters could forge lines of a terminal.
        if not isinstance(name, str) or not name.isprintable() or not isinstance(value, (Lying, ndarray)):
            raise FormatError(
                f"{path}: {shorten(name)} is {_kind(value)}; expected plain tensors by name (a state dict)."
            )
    beside += [_about(name, value) for name, value in content.items() if name not in tensors]
    if beside:
        junk["state of the training, beside the weights"] = beside
    return tensors


def _wrapper(content: dict[Any, Any], path: Path) -> Any:
    """Return the key of the tensors in a training wrapper, or None if `content` holds them itself."""
    # Known names first: a checkpoint may have tensors of an optimizer beside the state dict.
    for key in WRAPPERS:
        if isinstance(content.get(key), dict) and content[key]:
            return key
    if any(isinstance(value, (Lying, ndarray)) for value in content.values()):
        return None
    inside = [
        key
        for key, value in content.items()
        if isinstance(value, dict) and any(isinstance(part, (Lying, ndarray)) for part in value.values())
    ]
    # A GAN's or a teacher's weights beside the student's: only the user knows which one.
    if len(inside) > 1:
        raise FormatError(
            f"{path}: has {len(inside)} sets of tensors: {first_five(map(shorten, inside))}; expected one. "
            "Save the one that you want to a file of its own."
        )
    return inside[0] if inside else None


def _about(name: object, value: object) -> str:
    """A name, with its class if this is not a class of Python."""
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
    """Rename TensorFlow's `gamma` and `beta` of a LayerNorm, which early versions of BERT kept."""
    head, dot, last = name.rpartition(".")
    return head + dot + {"gamma": "weight", "beta": "bias"}.get(last, last)
