"""Settings that data decide: learned text files, sizes, class weights, the threshold."""

import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, cast, get_args

import numpy as np

from diptych.bundle import Bundle
from diptych.data import Processor, Sources
from diptych.data.stream import Texts, look_at_labels, targets_of
from diptych.errors import ConfigError, nearest
from diptych.features import MergedStore
from diptych.metrics import best_threshold
from diptych.predict import Predictor
from diptych.predictions import likeliest
from diptych.text import learn_vocabulary, train_fasttext, write_vocabulary
from diptych.types import Dataset, Example, RegionSource

Criterion = Literal["accuracy", "f1", "youden"]  # how a threshold may be chosen
CRITERIA = get_args(Criterion)
OBJECTIVES = "diptych.tasks.objectives"


def require_labels(name: str, examples: Dataset | Sequence[Example]) -> None:
    """Training needs every label, validation some; a training split of one class is warned about.

    Raises:
        ConfigError: says how many labels are missing, and of which examples.
    """
    missing, first, labels = look_at_labels(examples)
    if missing and (name == "training" or missing == len(examples)):
        shown = f"{', '.join(first)}{', ...' if missing > 5 else ''}"
        raise ConfigError(
            f"{missing} of {len(examples)} {name} examples have no label: {shown}. Give labels, or name "
            f"another split with data.{'train' if name == 'training' else 'validate'}.split=NAME."
        )
    if name == "training" and len(labels) == 1:  # of validation, its metrics tell
        warnings.warn(f"all {name} examples have the label {labels.pop()!r}.", stacklevel=2)


def take_labels(config: dict[str, Any], train: Dataset) -> None:
    """`labels: auto` becomes the classes of the training split."""
    if config["task"].get("labels") != "auto":
        return
    labels = getattr(train, "labels", ())
    if len(labels) < 2:
        raise ConfigError(
            f"task.labels=auto, but the training split has the classes {list(labels)}; expected two or more. "
            "Which column holds the labels? Say data.columns.label=NAME, or task.labels=[...]."
        )
    config["task"]["labels"] = list(labels)


def take_threshold(config: dict[str, Any], validate: Dataset) -> str | None:
    """Replace a criterion by a number until training is over; returns the criterion."""
    value = config["task"].get("threshold")
    if not isinstance(value, str):
        return None
    if value not in CRITERIA:
        raise ConfigError(
            f"task.threshold is {value!r}; expected a number or one of {CRITERIA}.{nearest(value, CRITERIA)}"
        )
    if look_at_labels(validate)[0] == len(validate):
        raise ConfigError(f"task.threshold={value} needs labels in the validation split.")
    config["task"]["threshold"] = 0.5
    return value


def choose_threshold(
    model: Any, task: Any, processor: Processor, validate: Dataset, sources: Sources, criterion: str
) -> float:
    predictor = Predictor(Bundle(model=model.eval(), task=task.eval(), processor=processor))
    predictions = predictor.predict_dataset(validate, features=sources.regions, images=sources.images)
    targets = [target for _, target in targets_of(validate)]
    known = [row for row, target in enumerate(targets) if target is not None]
    truth = [likeliest(targets[row]) == task.labels[1] for row in known]
    scores = predictions.column(task.labels[1])[known]
    return best_threshold(np.array(truth), scores, criterion=cast(Criterion, criterion))


def balance_classes(config: dict[str, Any], train: Dataset) -> None:
    """`class_weights: balanced` becomes numbers: examples / (classes * examples of the class)."""
    task = config["task"]
    if task.get("class_weights") != "balanced":
        return
    counts = Counter(likeliest(target) for _, target in targets_of(train))
    if missing := [label for label in task["labels"] if not counts[label]]:
        raise ConfigError(
            f"task.class_weights=balanced, but the training split has no {missing[0]!r} example."
        )
    task["class_weights"] = [len(train) / (len(task["labels"]) * counts[label]) for label in task["labels"]]


def learn_text_files(config: dict[str, Any], train: Dataset, folder: Path) -> None:
    """Settle `vocabulary` and `fasttext.path`; what is `auto` and not at hand is learned here."""
    texts, processor = Texts(train), config["processor"]
    if "text" in processor and processor["text"]["vocabulary"] == "auto":
        given, learned = Path(config["root"]) / "vocabulary.txt", folder / "vocabulary.txt"
        if not given.exists() and not learned.exists():
            lowercase = bool(processor["text"].get("lowercase", True))
            write_vocabulary(learned, learn_vocabulary(texts, config["vocabulary_size"], lowercase=lowercase))
        processor["text"]["vocabulary"] = str(given if given.exists() else learned)
    if "vectors" in processor and processor["vectors"]["path"] == "auto":
        learned = folder / "fasttext.bin"
        if not learned.exists():
            settings = {key: value for key, value in config["fasttext"].items() if key != "path"}
            train_fasttext(texts, learned, **settings)
        processor["vectors"]["path"] = str(learned)


def fill_objectives(task: dict[str, Any], processor: Processor, regions: RegionSource | None) -> None:
    """What objectives of pre-training have to know of the vocabulary and of the features, where not said."""
    text, meta = processor.text, None if regions is None else regions.meta
    for node in _objectives(task):
        kind = node["_target_"].rpartition(".")[2]
        if kind == "MaskedText" and text is not None:
            masking = node.setdefault("masking", {"_target_": f"{OBJECTIVES}.WordMasking"})
            masking.setdefault("mask_id", text.mask_id)
            masking.setdefault("special", [*text.special_ids])
        elif processor.prepare is not None and kind == "RegionFeatures":
            raise ConfigError("RegionFeatures predicts features; end to end there are none. Leave it out.")
        elif processor.whole_image and kind == "MaskedRegions":
            raise ConfigError("MaskedRegions would hide the whole picture; set processor.whole_image=false.")
        elif kind == "RegionFeatures" and meta is not None and not node.get("tied"):
            node.setdefault("feature_dim", meta.feature_dim)
        elif kind == "RegionLabels" and meta is not None:
            names = meta.attributes if node.get("field") == "attributes" else meta.classes
            node.setdefault("classes", len(names))


def _objectives(node: Any) -> Iterator[dict[str, Any]]:
    """All nodes below one that call an objective, or a part of one."""
    if isinstance(node, dict):
        if str(node.get("_target_")).startswith(f"{OBJECTIVES}."):
            yield node
        for value in list(node.values()):
            yield from _objectives(value)


def fill_sizes(model: dict[str, Any], processor: Processor, regions: RegionSource | None) -> None:
    """The sizes that data decide, where the configuration does not say them."""
    if "model" in model:  # end to end: the network below decides how wide features are
        model, regions = model["model"], None
    if processor.text is not None:
        model.setdefault("vocab_size", processor.text.vocab_size)
    if processor.vectors is not None:
        model.setdefault("vector_dim", processor.vectors.dim)
    if regions is not None:
        model.setdefault("feature_dim", regions.meta.feature_dim)
    if isinstance(regions, MergedStore) and model.setdefault("whole_image", False):
        raise ConfigError("more_features brings a region of the whole image; leave model.whole_image out.")
