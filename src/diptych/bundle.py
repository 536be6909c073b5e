"""A trained model as one folder: weights, the calls that rebuild it, its vocabulary, and where it comes from.

    weights.safetensors   model.* and task.*
    bundle.yaml           nodes `model`, `processor`, `task` (each one call), features, metrics, provenance
    files/                vocabulary and sentence vectors that the processor opens
    README.md             the same for people

Loading executes nothing foreign: weights are safetensors, and only classes and functions of diptych are
called.
"""

import inspect
import platform
import re
import shutil
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from hydra.errors import InstantiationException
from hydra.utils import get_object, instantiate
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from diptych import __version__
from diptych.data import Processor, require_vocabulary
from diptych.errors import CheckpointMismatch, ConfigError, DiptychError, FormatError, nearest
from diptych.files import atomic_folder
from diptych.tasks import Trainable
from diptych.types import FeatureMeta

FORMAT = 1
HERE = "${bundle}"  # stands for the bundle's folder in the processor node
TRUSTED = ("diptych.models", "diptych.nn", "diptych.tasks", "diptych.text", "diptych.data")


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """What `load_bundle` returns.

    Args:
        features: what the model was trained on; None for models without regions.
        metrics: the task's metrics on the validation split at the kept weights.
        provenance: version, data, seed, settings.
    """

    model: nn.Module
    task: Trainable
    processor: Processor
    features: FeatureMeta | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)


def save_bundle(folder: Path, *, overwrite: bool = False, **content: Any) -> None:
    """Write a bundle, whole or not at all; for `content` see `write_bundle`."""
    with atomic_folder(folder, overwrite=overwrite) as beside:
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
) -> None:
    """Fill a folder that nobody sees yet.

    Args:
        nodes: the resolved configuration nodes `model`, `processor` and `task`.
        provenance: anything worth knowing later; plain YAML values.
    """
    state = {f"model.{key}": value for key, value in model.state_dict().items()}
    state |= {f"task.{key}": value for key, value in task.state_dict().items()}
    save_file(
        {key: value.detach().cpu().contiguous() for key, value in state.items()},
        folder / "weights.safetensors",
    )
    about = {"diptych": __version__, "python": platform.python_version(), **(provenance or {})}
    text = {
        "format": FORMAT,
        "model": nodes["model"],
        "processor": _adopt_files(nodes["processor"], folder / "files"),
        "task": nodes["task"],
        "features": None if features is None else features.as_dict(),
        "metrics": {name: float(value) for name, value in (metrics or {}).items()},
        "provenance": about,
    }
    (folder / "bundle.yaml").write_text(
        yaml.safe_dump(text, sort_keys=False, allow_unicode=True), encoding="utf-8"
    )
    (folder / "README.md").write_text(_card(text), encoding="utf-8")


def load_bundle(folder: Path, *, trust: Collection[str] = ()) -> Bundle:
    """Rebuild a trained model in evaluation mode.

    Args:
        folder: a bundle, or a run folder that holds one as `bundle/`.
        trust: further module prefixes whose classes may be called, for bundles with your own code.

    Raises:
        FormatError: not a bundle, or its files are damaged.
        ConfigError: it calls something that is neither diptych's nor trusted.
        CheckpointMismatch: the weights do not fit.
    """
    folder = find_bundle(folder)
    text = _read(folder / "bundle.yaml")
    try:
        weights = load_file(folder / "weights.safetensors")
    except (OSError, SafetensorError) as error:
        raise FormatError(
            f"{folder / 'weights.safetensors'}: cannot be read ({error}). Train again or copy it again."
        ) from error
    model = build(text["model"], trust=trust)
    task = build(text["task"], trust=trust, model=model)
    processor = build(_replace(text["processor"], HERE, str(folder)), trust=trust)
    for name, module in (("model", model), ("task", task)):
        own = {
            key.removeprefix(f"{name}."): value
            for key, value in weights.items()
            if key.startswith(f"{name}.")
        }
        fill(module, own, where=folder)
    require_vocabulary(model, processor)
    features = text.get("features")
    return Bundle(
        model=model.eval(),
        task=task.eval(),
        processor=processor,
        features=None if features is None else FeatureMeta.from_dict(features),
        metrics=text.get("metrics", {}),
        provenance=text.get("provenance", {}),
    )


def find_bundle(folder: Path) -> Path:
    """The bundle at `folder` or inside it.

    Raises:
        FormatError: there is none.
    """
    folder = Path(folder)
    for place in (folder, folder / "bundle"):
        if (place / "bundle.yaml").is_file():
            return place
    state = "exists but holds no bundle.yaml" if folder.exists() else "does not exist"
    raise FormatError(f"{folder} {state}; expected a folder that `diptych train` or `diptych convert` wrote.")


def build(node: Mapping[str, Any], *, trust: Collection[str] = (), **arguments: Any) -> Any:
    """Call what a node of a bundle names, after looking at every name in it.

    Hydra would import and call anything, so each `_target_` must be defined (not merely reachable) in
    diptych's model, layer, task, text or data packages, or in a trusted module.
    """
    for target in _targets(node):
        _require_trusted(target, (*TRUSTED, *trust))
    return call(node, **arguments)


def call(node: Mapping[str, Any], **arguments: Any) -> Any:
    """Call what a node of one's own configuration names.

    Raises:
        ConfigError: the target does not exist, or a key is not one of its parameters.
    """
    try:
        return instantiate(node, _convert_="all", **arguments)
    except InstantiationException as error:
        cause = error.__cause__ or error
        if isinstance(cause, DiptychError):
            raise cause from None
        if isinstance(cause, TypeError) and (found := UNEXPECTED.search(str(cause))):
            raise ConfigError(_unknown_parameter(str(node["_target_"]), found["name"])) from cause
        if isinstance(cause, TypeError | ValueError | ImportError | AttributeError) or cause is error:
            raise ConfigError(
                f"{_shown(node)} cannot be called: {str(cause).splitlines()[0]}. "
                "Is a value of the wrong kind?"
            ) from cause
        raise cause from None


def _shown(node: Mapping[str, Any]) -> str:
    arguments = ", ".join(f"{key}={value!r}" for key, value in node.items() if key != "_target_")
    return f"{node.get('_target_')}({arguments})"


UNEXPECTED = re.compile(r"got an unexpected keyword argument '(?P<name>\w+)'")


def _unknown_parameter(target: str, name: str) -> str:
    allowed = parameters(get_object(target))
    return f"{target} has no parameter {name!r}.{nearest(name, allowed)} It takes: {', '.join(allowed)}."


def parameters(function: Callable[..., Any]) -> list[str]:
    """Names of keyword parameters; a builder that passes keys on also takes those of the class it returns."""
    signature = inspect.signature(function)
    names = [name for name, one in signature.parameters.items() if one.kind is not one.VAR_KEYWORD]
    built = signature.return_annotation
    if len(names) < len(signature.parameters) and isinstance(built, type):
        names += [name for name in parameters(built) if name not in names]
    return names


def _require_trusted(target: str, trusted: Collection[str]) -> None:
    def inside(name: str) -> bool:
        return any(name == prefix or name.startswith(f"{prefix}.") for prefix in trusted)

    home = ""
    if inside(target):
        try:
            home = getattr(get_object(target), "__module__", "") or ""
        except Exception as error:
            raise ConfigError(f"{target!r} cannot be found ({error}).") from error
    if not inside(home):
        raise ConfigError(
            f"the configuration calls {target!r}, which is outside {', '.join(TRUSTED)}. "
            "If you know and trust that code, pass its module as trust=."
        )


def _targets(node: Any) -> list[str]:
    if isinstance(node, Mapping):
        own = [str(node["_target_"])] if "_target_" in node else []
        return own + [target for value in node.values() for target in _targets(value)]
    if isinstance(node, list | tuple):
        return [target for value in node for target in _targets(value)]
    return []


def _read(path: Path) -> dict[str, Any]:
    try:
        text = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise FormatError(f"{path}: cannot be read ({reason}). Train again or copy it again.") from error
    if not isinstance(text, dict) or not {"model", "processor", "task"} <= text.keys():
        raise FormatError(f"{path}: not a bundle; expected the nodes model, processor and task.")
    if odd := [name for name in ("model", "processor", "task") if not isinstance(text[name], dict)]:
        raise FormatError(f"{path}: {odd[0]} is {text[odd[0]]!r}; expected a node with `_target_`.")
    if text.get("format") != FORMAT:
        raise FormatError(
            f"{path}: has format {text.get('format')!r}, this diptych reads {FORMAT}; update diptych."
        )
    return text


def fill(module: nn.Module, state: Mapping[str, Any], *, where: object) -> None:
    """Load a state dict of diptych; every name and shape must fit.

    Raises:
        CheckpointMismatch: lists what is missing, unexpected or of another shape.
    """
    try:
        module.load_state_dict(state, strict=True)
    except RuntimeError as error:
        raise CheckpointMismatch(
            f"{where}: the weights do not fit {type(module).__name__}: {error}"
        ) from error


def _adopt_files(node: Any, folder: Path) -> Any:
    """The node with every file it names copied into `folder` and named relative to the bundle."""
    if isinstance(node, Mapping):
        return {key: _adopt_files(value, folder) for key, value in node.items()}
    if isinstance(node, str) and Path(node).is_file():
        folder.mkdir(exist_ok=True)
        shutil.copyfile(node, folder / Path(node).name)
        return f"{HERE}/files/{Path(node).name}"
    return node


def _replace(node: Any, old: str, new: str) -> Any:
    if isinstance(node, Mapping):
        return {key: _replace(value, old, new) for key, value in node.items()}
    return node.replace(old, new) if isinstance(node, str) else node


def _card(text: Mapping[str, Any]) -> str:
    metrics = "\n".join(f"| {name} | {value:.4f} |" for name, value in text["metrics"].items())
    facts = yaml.safe_dump(text["provenance"], sort_keys=False, allow_unicode=True)
    return (
        f"# {text['model']['_target_']}\n\n"
        "A diptych bundle. Use it with `diptych predict` or `diptych.load(folder)`.\n\n"
        f"| on the validation split | |\n|---|---|\n{metrics}\n\n"
        f"```yaml\n{facts}```\n"
    )
