"""Build model, task, data and training settings from a settled configuration."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from diptych.bundle import load_bundle
from diptych.convert import HeadWeights, find, load_mmbert, load_model, load_parts, start_task
from diptych.data import Collate, DataModule, require_sources, require_vocabulary
from diptych.data.stream import different_targets, look_at_labels
from diptych.datasets.answer_table import pretraining_table, read_answers
from diptych.errors import ConfigError, nearest
from diptych.models import VlBert
from diptych.nodes import parameters
from diptych.recipe.call import call
from diptych.recipe.settle import Settled
from diptych.tasks import Classify, Predicting, Trainable
from diptych.types import Dataset, Example, RegionSource
from diptych.weights import fill


@dataclass(frozen=True, kw_only=True)
class Parts:
    """Arguments of `fit`, built from a settled configuration.

    Args:
        settings: optimizer, schedule, averaging and trainer, by the name of the argument.
        start: what the task took over from the heads of the starting weights; None if nothing.
    """

    model: Any
    task: Trainable
    data: DataModule
    settings: Mapping[str, Any]
    start: str | None = None


def build(settled: Settled) -> Parts:
    """Build and check model, task, data, optimizer and trainer of a run.

    Raises:
        ConfigError: a node has invalid arguments, or the parts do not fit each other.
        MissingFeatures: images have no regions.
    """
    config, processor, sources = settled.config, settled.processor, settled.sources
    train, validate = settled.train, settled.validate
    averaging = config["averaging"] or {}
    # before the model, which takes long to build: a mistyped setting of the optimizer fails at once
    settings = {
        "optim": call(config["optim"]),
        "schedule": call(config["schedule"]),
        "averaging": call(averaging) if "_target_" in averaging else None,
        "trainer": call(config["trainer"]),
    }
    torch.manual_seed(config["seed"])  # before the first random weight, which is the model's
    model = call(config["model"])
    heads = load_weights(model, config["weights"], sources.regions)
    task = call(config["task"], model=model)
    if not heads and config["weights"].get("answers"):
        raise ConfigError(
            "weights.answers says what an answer head means; give its checkpoint as weights.model."
        )
    told = []
    if config["weights"].get("answers") is not False:
        told = [start_task(task, model, one, learned=_learned_answers(config, one)) for one in heads]
    start = "\n".join(one for one in told if one) or None
    task.begin(model)
    _require_two_classes(task, settled.criterion)
    data = _data(settled, Collate(processor, sources=sources, targets=task.targets))
    if isinstance(task, Predicting):
        members = getattr(train, "members", {}) if task.unread else {}
        # FixMatch takes examples that nobody has judged; the others need labels as everywhere.
        for one in [one for name, one in members.items() if name not in task.unread] or [train]:
            require_labels("training", one)
        require_labels("validation", validate)
    # The checks that look at all examples and images come last, as they take longest.
    require_vocabulary(model, processor)
    require_sources(model.needs, processor, sources, train, validate)
    for split in (train, validate):
        for window in different_targets(split):
            task.targets(window)  # an invalid label fails here instead of in the middle of an epoch
    return Parts(model=model, task=task, data=data, settings=settings, start=start)


def _learned_answers(config: Mapping[str, Any], heads: HeadWeights) -> Sequence[str] | None:
    """The answers of an answer head: as given, else of the list beside the checkpoint or the data."""
    given = config["weights"].get("answers")
    if given is not None:
        return read_answers(find(given))
    # For original files only: a bundle knows its answers.
    file = pretraining_table(heads.where, Path(config["root"]))
    return read_answers(file) if file is not None and heads.weights and heads.answer_head else None


def _require_two_classes(task: Trainable, criterion: str | None) -> None:
    if criterion is not None and not (isinstance(task, Classify) and len(task.labels) == 2):
        raise ConfigError(f"task.threshold={criterion} needs a task with two classes; set a number instead.")


def require_labels(name: str, examples: Dataset | Sequence[Example]) -> None:
    """Require all labels for training and some for validation. Warn if training has a single class.

    Raises:
        ConfigError: labels are missing; names their number and the first examples.
    """
    missing, first, labels = look_at_labels(examples)
    if missing and (name == "training" or missing == len(examples)):
        role = "train" if name == "training" else "validate"
        shown = f"{', '.join(first)}{', ...' if missing > len(first) else ''}"
        raise ConfigError(
            f"{missing} of {len(examples)} {name} examples have no label: {shown}. "
            f"Add labels, or choose another split with data.{role}.split=NAME."
        )
    if name == "training" and len(labels) == 1:  # for validation, the metrics show it
        warnings.warn(f"all {name} examples have the label {labels.pop()!r}.", stacklevel=2)


def _data(settled: Settled, collate: Collate) -> DataModule:
    node = settled.config["data"]
    known = {
        "train",
        "validate",
        "beside",
        "fine",
        *node["train"],
    }  # settings of both splits may be set once, above them
    settings = {key: value for key, value in node.items() if key not in known}
    allowed = parameters(DataModule)
    if unknown := [key for key in settings if key not in allowed]:
        raise ConfigError(
            f"data has no key {unknown[0]!r}.{nearest(unknown[0], allowed)} It takes: {', '.join(allowed)}."
        )
    try:
        return DataModule(train=settled.train, validate=settled.validate, collate=collate, **settings)
    except TypeError as error:
        raise ConfigError(f"data is {settings}: {error}. Check the types of its values.") from error


def load_weights(model: Any, weights: Mapping[str, Any], regions: RegionSource | None) -> list[HeadWeights]:
    """Load starting weights from bundles of diptych, original checkpoints, or files for single towers.

    Args:
        weights: sources by part: `model` (one or a list, loaded in order), `words`, `text`, `image`; see
            `diptych.convert.find`.

    Returns:
        The heads of the checkpoints, which belong to a task, in the order of loading.
    """
    given = {name: source for name, source in weights.items() if source and name not in ("answers", "model")}
    paths = {name: find(str(source)) for name, source in given.items()}
    wholes = [find(source) for source in model_sources(weights)]
    if "words" in paths:
        return [_hybrid(model, wholes, paths["words"])]
    heads = [_load_whole(model, whole, regions) for whole in wholes]
    text, image = paths.get("text"), paths.get("image")
    if wholes and text is not None:
        raise ConfigError("weights.model fills the text encoder, too; remove weights.text.")
    below = load_parts(model, text=text, image=image)
    return [HeadWeights(where=text, weights=below)] if text is not None and below else heads


def model_sources(weights: Mapping[str, Any]) -> list[str]:
    """The checkpoints of the whole model, in the order of loading."""
    source = weights.get("model")
    return [str(one) for one in (source if isinstance(source, list) else [source]) if one]


def _load_whole(model: Any, whole: Path, regions: RegionSource | None) -> HeadWeights:
    if not any((place / "bundle.yaml").exists() for place in (whole, whole / "bundle")):
        return HeadWeights(where=whole, weights=load_model(model, whole))
    source = load_bundle(whole)
    # the region embedding was trained on features of one detector; others give no error, only bad scores
    if regions is not None and source.features is not None:
        regions.meta.require_like(source.features, where=getattr(regions, "path", "the feature store"))
    fill(model, source.model.state_dict(), where=whole)
    return HeadWeights(where=whole, task=source.task)


def _hybrid(model: Any, wholes: Sequence[Path], words: Path) -> HeadWeights:
    if not isinstance(model, VlBert) or len(wholes) != 1:
        raise ConfigError(
            f"weights.words={words} starts VL-BERT from two files; expected such a model, and the file of a "
            "VL-BERT as weights.model."
        )
    return HeadWeights(where=wholes[0], weights=load_mmbert(model, bert=words, vlbert=wholes[0]))
