"""Bundles: a trained model as one folder with its weights, configuration, vocabulary and provenance.

    weights.safetensors   model.* and task.*
    bundle.yaml           nodes `model`, `processor`, `task` (each one call), features, metrics, provenance
    files/                vocabulary and sentence vectors of the processor and the task
    README.md             the model card

Loading does not execute untrusted code: weights are safetensors, and `diptych.nodes` restricts calls. Shapes
are compared with the weights before memory is allocated.
"""

import json
import platform
import shutil
from collections.abc import Collection, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, Literal, NotRequired

import torch
from torch import nn
from typing_extensions import TypedDict

from diptych import __version__
from diptych.card import card
from diptych.data import Place, Processor, require_vocabulary
from diptych.documents import (
    check_shape,
    closed,
    dump_yaml,
    extensible,
    read_json,
    read_yaml,
    shorten,
)
from diptych.errors import CheckpointMismatch, ConfigError, FormatError
from diptych.files import atomic_file, atomic_folder, require_file
from diptych.nodes import HERE, build, is_file, parameters_of
from diptych.tasks import Trainable
from diptych.types import FeatureMeta, Tokenizer
from diptych.weights import (
    COPY,
    Unfilled,
    at_most,
    fill,
    read_shapes,
    read_weights,
    require_finite,
    require_types,
    write_weights,
)

FORMAT = 1
PLACES = "places.json"
NODES = ("model", "processor", "task")


@extensible
class Converted(TypedDict):
    """Origin of converted weights, and the original names for converting back."""

    family: NotRequired[str]
    prefix: NotRequired[str]
    outer: NotRequired[str]
    head: NotRequired[list[str]]
    absent: NotRequired[list[str]]


@extensible
class Training(TypedDict):
    """Facts about the training data of a run."""

    examples: int


@extensible
class Provenance(TypedDict):
    """Fields of `Bundle.provenance` that the package reads; others are information for readers."""

    name: NotRequired[str | None]
    seed: NotRequired[int | None]
    region_merge: NotRequired[Literal["vilio", "fair", "detector_only"]]
    converted: NotRequired[Converted]
    data: NotRequired[dict[str, Any]]
    training: NotRequired[Training]
    steps: NotRequired[int]


@closed
class Features(TypedDict):
    """The fields of `FeatureMeta`."""

    feature_dim: int
    detector: NotRequired[str]
    box_rule: NotRequired[str]
    classes: NotRequired[list[str]]
    attributes: NotRequired[list[str]]
    dtype: NotRequired[str]
    count: NotRequired[int]
    checksum: NotRequired[str]
    parts: NotRequired[list[str]]


@extensible
class Content(TypedDict):
    """`bundle.yaml`."""

    format: int
    model: dict[str, Any]
    processor: dict[str, Any]
    task: dict[str, Any]
    features: NotRequired[Features | None]
    metrics: NotRequired[dict[str, float]]
    provenance: NotRequired[Provenance]


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """A loaded bundle.

    Args:
        features: description of the training features; None for models without regions.
        metrics: metrics of these weights on the validation split.
        provenance: version, data, seed, settings.
    """

    model: nn.Module
    task: Trainable
    processor: Processor
    features: FeatureMeta | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)


def save_bundle(
    folder: Path,
    *,
    overwrite: bool = False,
    places: Mapping[str, Place] | None = None,
    **content: Any,
) -> None:
    """Write a bundle atomically; for `content` see `write_bundle`.

    Args:
        places: paths of the data of a run. They are written beside the bundle, which has no local paths.
    """
    if places is not None:
        plain = {key: _absolute(place) for key, place in places.items()}
        with atomic_file(folder.parent / PLACES, "w", encoding="utf-8") as file:
            json.dump(plain, file, indent=1)
    with atomic_folder(folder, kind="a bundle", overwrite=overwrite) as beside:
        write_bundle(beside, **content)


def write_bundle(
    folder: Path,
    *,
    model: nn.Module,
    task: nn.Module,
    nodes: Mapping[str, Any],
    features: FeatureMeta | None = None,
    metrics: Mapping[str, float] | None = None,
    provenance: Mapping[str, Any] | None = None,
    proofs: Mapping[str, Mapping[str, Any]] | None = None,
) -> None:
    """Write the files of a bundle to an empty folder.

    Args:
        nodes: the resolved configuration nodes `model`, `processor` and `task`. Files of the
            processor and the task, which are the values of parameters with the type `Path`, are copied.
        provenance: further facts as plain YAML values. Bundles are shared, so it must not have local paths.
        proofs: golden files that the model's family was compared with, for the card.

    Raises:
        FormatError: a file of the processor is missing.
        CheckpointMismatch: weights are not finite.
    """
    state = {f"model.{key}": value for key, value in model.state_dict().items()}
    state |= {f"task.{key}": value for key, value in task.state_dict().items()}
    # safetensors takes contiguous tensors only, and a bundle must load without a GPU.
    state = {key: value.detach().cpu().contiguous() for key, value in state.items()}
    # Refused here: a bundle of NaN would only be noticed by whoever uses it.
    require_finite(state, where=type(model).__name__)
    write_weights(state, folder / "weights.safetensors")
    about = {"diptych": __version__, "python": platform.python_version(), **(provenance or {})}
    taken: dict[str, Path] = {}  # both parts may name one vocabulary, which is then copied once
    text = {
        "format": FORMAT,
        "model": nodes["model"],
        "processor": _adopt_files(nodes["processor"], folder / "files", taken),
        "task": _adopt_files(nodes["task"], folder / "files", taken),
        "features": None if features is None else features.as_dict(),
        "metrics": {name: float(value) for name, value in (metrics or {}).items()},
        "provenance": about,
    }
    (folder / "bundle.yaml").write_text(dump_yaml(text), encoding="utf-8")
    (folder / "README.md").write_text(card(text, proofs=proofs), encoding="utf-8")


def load_bundle(folder: Path, *, trust: Collection[str] = ()) -> Bundle:
    """Rebuild a trained model in evaluation mode.

    Args:
        folder: a bundle, or a run folder with a bundle in `bundle/`.
        trust: further module prefixes whose classes may be called, for bundles with your own code.

    Raises:
        FormatError: the folder is not a bundle, or its files are damaged.
        ConfigError: the bundle calls code that is neither diptych's nor trusted.
        CheckpointMismatch: the weights do not fit the model.
    """
    folder = find_bundle(folder)
    text = read_content(folder)
    path, source = folder / "weights.safetensors", folder / "bundle.yaml"
    shapes = read_shapes(path)

    def made() -> dict[str, Any]:
        model = build(text["model"], trust=trust, where=source, key="model")
        _require_kind(model, nn.Module, source, "model")
        task = build(text["task"], trust=trust, where=source, key="task", folder=folder, model=model)
        _require_kind(task, Trainable if not trust else nn.Module, source, "task")
        return {"model": model, "task": task}

    # A dry run on the meta device compares all shapes first, so that a forged configuration cannot allocate
    # large memory. Your own code may not support the meta device.
    if not trust:
        with torch.random.fork_rng(devices=[]), torch.device("meta"), at_most(len(shapes), source):
            parts = made()
        empty = {name: torch.empty(shape, device="meta") for name, (shape, _) in shapes.items()}
        _fill(parts, empty, folder)
        require_types(nn.ModuleDict(parts), shapes, path)
    # After the shapes were compared: sentence vectors may have gigabytes.
    processor = build(text["processor"], trust=trust, where=source, key="processor", folder=folder)
    _require_kind(processor, Processor if not trust else object, source, "processor")
    with nullcontext() if trust else Unfilled():
        parts = made()
    _fill(parts, read_weights(path), folder)
    require_vocabulary(parts["model"], processor)
    features = text.get("features")
    return Bundle(
        model=parts["model"].eval(),
        task=parts["task"].eval(),
        processor=processor,
        features=None if features is None else FeatureMeta.from_dict(features),
        metrics=text.get("metrics", {}),
        provenance=text.get("provenance", {}),
    )


def load_tokenizer(folder: Path, *, trust: Collection[str] = ()) -> Tokenizer | None:
    """Rebuild the tokenizer of a bundle without its model; None if the model reads no text.

    Raises:
        FormatError: the folder is not a bundle.
        ConfigError: the bundle calls code that is neither diptych's nor trusted.
    """
    folder = find_bundle(folder)
    node, source = read_content(folder)["processor"].get("text"), folder / "bundle.yaml"
    if node is None:
        return None
    _require_kind(node, dict, source, "processor.text")
    made: Tokenizer = build(node, trust=trust, where=source, key="processor.text", folder=folder)
    return made


def _fill(parts: Mapping[str, nn.Module], weights: Mapping[str, Any], folder: Path) -> None:
    if strange := [name for name in weights if name.partition(".")[0] not in parts]:
        raise CheckpointMismatch(f"{folder}: {shorten(strange[0])} is a weight of neither model nor task.")
    for part, module in parts.items():
        own = {name: weight for name, weight in weights.items() if name.startswith(f"{part}.")}
        fill(module, {name.removeprefix(f"{part}."): weight for name, weight in own.items()}, where=folder)


def find_bundle(folder: Path) -> Path:
    """Find the bundle at `folder` or inside it.

    Raises:
        FormatError: there is no bundle.
    """
    folder = Path(folder)
    for place in (folder, folder / "bundle"):
        if (place / "bundle.yaml").is_file():
            return place
    state = "exists but has no bundle.yaml" if folder.exists() else "does not exist"
    raise FormatError(f"{folder} {state}; expected a folder of `diptych train` or `diptych convert`.")


@closed
class Places(TypedDict):
    """Paths of a run's data, in the file `places.json` beside its bundle."""

    root: str | None
    features: str | dict[str, str] | None
    more_features: str | None


def _absolute(place: Place) -> str | dict[str, str] | None:
    if isinstance(place, Mapping):
        return {name: str(Path(path).absolute()) for name, path in place.items()}
    return None if place is None else str(Path(place).absolute())


def trained_on(folder: Path) -> Places:
    """Return the paths of a run's training data; None for paths that are unknown."""
    bundle = find_bundle(folder)
    path = bundle.parent / PLACES
    if bundle.name == "bundle" and path.is_file():
        return read_json(path, Places, advice="Remove it, and specify the paths of the data.")
    about = read_content(bundle).get("provenance", {})  # diptych 0.1 wrote absolute paths here
    root, main, more = (str(about.get(key, "")) for key in ("root", "features", "more_features"))
    absolute = [place if Path(place).is_absolute() else None for place in (root, main, more)]
    return {"root": absolute[0], "features": absolute[1], "more_features": absolute[2]}


def read_content(folder: Path) -> Content:
    """Read and validate the settings of a bundle without building anything.

    Raises:
        FormatError: the folder is not a bundle, has a newer format, or a value has another type; names file
            and key.
    """
    path = folder / "bundle.yaml"
    tree: Any = read_yaml(path, object, advice=COPY)
    if not isinstance(tree, dict) or not {*NODES} <= tree.keys():
        raise FormatError(f"{path}: not a bundle; expected the nodes {', '.join(NODES)}.")
    # Before the shape, which a newer format may change.
    if isinstance(tree.get("format"), int) and tree["format"] != FORMAT:
        raise FormatError(
            f"{path}: has format {tree['format']}, but this version reads {FORMAT}; update diptych."
        )
    content: Content = check_shape(tree, Content, where=path, advice=COPY)
    for name, value in tree.items():
        _require_plain(value, f"{path}: {name}", files=name in ("processor", "task"))
    return content


def _require_plain(value: Any, where: str, *, files: bool) -> None:
    """Reject interpolations, which Hydra would resolve; with `files`, `${bundle}/` may be a prefix."""
    if isinstance(value, Mapping):
        for name, item in value.items():
            _require_plain(name, f"{where}: a key", files=False)
            _require_plain(item, f"{where}.{name}", files=files)
    elif isinstance(value, list):
        for row, item in enumerate(value):
            _require_plain(item, f"{where}.{row}", files=files)
    elif isinstance(value, str) and "${" in (value.removeprefix(f"{HERE}/") if files else value):
        raise FormatError(f"{where} is {shorten(value)}; interpolations are not allowed. {COPY}")


def _require_kind(value: object, kind: type, where: Path, key: str) -> None:
    if not isinstance(value, kind):
        raise ConfigError(f"{where}: {key} builds a {type(value).__name__}; expected a {kind.__name__}.")


def _adopt_files(node: Mapping[str, Any], folder: Path, taken: dict[str, Path]) -> dict[str, Any]:
    """Copy the files of a node's file parameters into `folder`, and return the node with their new paths."""
    types = parameters_of(resolve_name(node["_target_"])).types if "_target_" in node else {}
    result = dict(node)
    for key, value in node.items():
        if isinstance(value, Mapping):
            result[key] = _adopt_files(value, folder, taken)
        elif is_file(types.get(key)) and isinstance(value, str | Path):
            source = require_file(value).resolve()
            name, number = Path(value).name, 2
            while taken.setdefault(name, source) != source:  # another file has this name already
                name, number = f"{Path(value).stem}-{number}{Path(value).suffix}", number + 1
            folder.mkdir(exist_ok=True)
            shutil.copyfile(source, folder / name)
            result[key] = f"{HERE}/files/{name}"
    return result
