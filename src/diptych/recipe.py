"""One training run as one call: from a resolved configuration to a bundle.

What lies in the run folder afterwards:

    config.yaml     the resolved configuration
    checkpoints/    what a stopped run continues from
    files/          vocabulary and sentence vectors learned for this run
    metrics.csv     losses and metrics by step (and TensorBoard's files)
    bundle/         the trained model; its presence means that the run is complete
"""

import copy
import os
import shutil
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast, get_args

import numpy as np
import torch
import yaml

from diptych.bundle import Bundle, call, fill, find_bundle, load_bundle, parameters, save_bundle
from diptych.convert import load_towers, load_uniter
from diptych.data import Collate, DataModule, Processor, Sources, require_sources
from diptych.errors import ConfigError, nearest
from diptych.features import FeatureStore
from diptych.files import atomic_file
from diptych.metrics import best_threshold
from diptych.models import Concat, Uniter
from diptych.predict import Predictor
from diptych.text import learn_vocabulary, train_fasttext, write_vocabulary
from diptych.train import FitResult, fit
from diptych.types import Dataset, Example, RegionSource

Criterion = Literal["accuracy", "f1", "youden"]  # how a threshold may be chosen
CRITERIA = get_args(Criterion)
FREE_TO_CHANGE = ("progress", "loggers", "overwrite", "data.workers")  # do not change what is trained


@dataclass(frozen=True, kw_only=True)
class Run:
    """What became of a run.

    Args:
        fit: None when the run was complete before.
        metrics: of the kept weights on the validation split.
    """

    folder: Path
    fit: FitResult | None
    metrics: Mapping[str, float]

    @property
    def interrupted(self) -> bool:
        return self.fit is not None and self.fit.interrupted


def run_recipe(config: dict[str, Any]) -> Run:
    """Train what a configuration describes, or continue where it was stopped.

    Args:
        config: the tree of `conf/train.yaml`, resolved to plain values.

    Raises:
        ConfigError: a setting cannot work, or the folder holds a run with other settings.
        MissingFeatures: images without regions, before the first step.
    """
    folder = Path(config["out"])
    first = is_first_process()
    if first:
        _require_folder(folder, config)
    else:
        _await(folder / "config.yaml")
    asked, config = config, copy.deepcopy(config)
    train, validate = call(config["data"]["train"]), call(config["data"]["validate"])
    examples = [dataset[index] for dataset in (train, validate) for index in range(len(dataset))]
    if not len(train):
        raise ConfigError("the training split has no examples; nothing can be learned.")
    if (folder / "bundle").exists():
        return Run(folder=folder, fit=None, metrics=load_bundle(folder).metrics)

    criterion = _take_threshold(config, validate)
    _balance_classes(config, train)
    _learn_text_files(config, [train[index] for index in range(len(train))], folder / "files")
    processor = call(config["processor"])
    regions = FeatureStore(Path(config["features"])) if processor.regions else None
    _fill_sizes(config["model"], processor, regions)
    torch.manual_seed(config["seed"])  # before anything random is built
    model = call(config["model"])
    _load_weights(model, config["weights"], regions)
    task = call(config["task"], model=model)
    sources = Sources(regions=regions, images=_images(train, validate))
    require_sources(model.needs, processor, sources, examples)
    for dataset in (train, validate):  # a wrong label shows now, not in the middle of an epoch
        task.targets([dataset[index] for index in range(len(dataset))])
    data = _data(config["data"], train, validate, Collate(processor, sources=sources, targets=task.targets))
    averaging = config["averaging"] or {}
    settings = {
        "optim": call(config["optim"]),
        "schedule": call(config["schedule"]),
        "averaging": call(averaging) if "_target_" in averaging else None,
        "trainer": call(config["trainer"]),
    }
    if first:
        with atomic_file(folder / "config.yaml", "w", encoding="utf-8") as file:
            yaml.safe_dump(asked, file, sort_keys=False, allow_unicode=True)
    result = fit(
        model,
        task,
        data,
        folder=folder,
        seed=config["seed"],
        loggers=config["loggers"],
        progress=config["progress"],
        **settings,
    )
    if not result.main:  # another process of this run writes the bundle
        return Run(folder=folder, fit=result, metrics=result.metrics)
    if result.interrupted:
        return Run(folder=folder, fit=result, metrics=result.metrics)
    nodes = {name: copy.deepcopy(config[name]) for name in ("model", "processor", "task")}
    if criterion is not None:
        task.threshold = nodes["task"]["threshold"] = _choose_threshold(
            model, task, processor, validate, sources, criterion
        )
    save_bundle(
        folder / "bundle",
        model=model,
        task=task,
        nodes=nodes,
        features=None if regions is None else regions.meta,
        metrics=result.metrics,
        provenance={
            "name": config["name"],
            "seed": config["seed"],
            "root": str(Path(config["root"]).resolve()),
            "features": None if regions is None else str(Path(config["features"]).resolve()),
            "training": {"examples": len(train), "split": config["data"]["train"].get("split")},
            "validation": {"examples": len(validate), "split": config["data"]["validate"].get("split")},
            "steps": result.steps,
            "optim": config["optim"],
            "schedule": config["schedule"],
            "trainer": config["trainer"],
        },
    )
    return Run(folder=folder, fit=result, metrics=result.metrics)


def is_first_process() -> bool:
    """False in the further processes of a distributed run, however it was launched."""
    return all(int(os.environ.get(name, 0)) == 0 for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID"))


def _await(path: Path, *, seconds: float = 600) -> None:
    """Wait for what the first process writes."""
    until = time.monotonic() + seconds
    while not path.exists():
        if time.monotonic() > until:
            raise ConfigError(f"{path} did not appear; the first process of this run must write it.")
        time.sleep(0.05)


def _require_folder(folder: Path, config: Mapping[str, Any]) -> None:
    """The folder is new, or holds this very run; an old run is removed when asked to."""
    path = folder / "config.yaml"
    began = (folder / "bundle").exists() or any(folder.glob("checkpoints/*.ckpt"))
    if path.exists() and began:
        before = yaml.safe_load(path.read_text(encoding="utf-8"))
        different = sorted(_differences(before, config))
        if different and not config.get("overwrite"):
            raise ConfigError(
                f"{folder} holds a run with other settings ({'; '.join(different[:5])}). "
                "Choose another out=, or say overwrite=true to replace it."
            )
        if different:
            _clear(folder)
    elif strange := sorted({entry.name for entry in folder.glob("*")} - {"files", "config.yaml"}):
        raise ConfigError(f"{folder} holds {strange[0]!r} but no run; choose another out=.")
    else:
        _clear(folder)  # files learned for a run that never began


def _clear(folder: Path) -> None:
    """Remove what a run writes, and nothing else."""
    for name in ("bundle", "checkpoints", "files", "tensorboard"):
        shutil.rmtree(folder / name, ignore_errors=True)
    for name in ("config.yaml", "metrics.csv"):
        (folder / name).unlink(missing_ok=True)


def _differences(before: Any, after: Any, path: str = "") -> list[str]:
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        keys = {**before, **after}
        return [
            line
            for key in keys
            for line in _differences(before.get(key), after.get(key), f"{path}.{key}".lstrip("."))
        ]
    return [] if before == after or path in FREE_TO_CHANGE else [f"{path} was {before!r}, now {after!r}"]


def _data(node: Mapping[str, Any], train: Dataset, validate: Dataset, collate: Collate) -> DataModule:
    settings = {key: value for key, value in node.items() if key not in ("train", "validate")}
    allowed = parameters(DataModule)
    if unknown := [key for key in settings if key not in allowed]:
        raise ConfigError(
            f"data has no key {unknown[0]!r}.{nearest(unknown[0], allowed)} It takes: {', '.join(allowed)}."
        )
    return DataModule(train=train, validate=validate, collate=collate, **settings)


def _take_threshold(config: dict[str, Any], validate: Dataset) -> str | None:
    """Replace a criterion by a number until training is over; returns the criterion."""
    value = config["task"].get("threshold")
    if not isinstance(value, str):
        return None
    if value not in CRITERIA:
        raise ConfigError(
            f"task.threshold is {value!r}; expected a number or one of {CRITERIA}.{nearest(value, CRITERIA)}"
        )
    if not any(validate[index].target is not None for index in range(len(validate))):
        raise ConfigError(f"task.threshold={value} needs labels in the validation split.")
    config["task"]["threshold"] = 0.5
    return value


def _choose_threshold(
    model: Any, task: Any, processor: Processor, validate: Dataset, sources: Sources, criterion: str
) -> float:
    predictor = Predictor(Bundle(model=model.eval(), task=task.eval(), processor=processor))
    predictions = predictor.predict_dataset(validate, features=sources.regions, images=sources.images)
    targets = [validate[index].target for index in range(len(validate))]
    known = [row for row, target in enumerate(targets) if target is not None]
    truth = [targets[row] == task.labels[1] for row in known]
    scores = predictions.column(task.labels[1])[known]
    return best_threshold(np.array(truth), scores, criterion=cast(Criterion, criterion))


def _balance_classes(config: dict[str, Any], train: Dataset) -> None:
    """`class_weights: balanced` becomes numbers: examples / (classes * examples of the class)."""
    task = config["task"]
    if task.get("class_weights") != "balanced":
        return
    counts = Counter(train[index].target for index in range(len(train)))
    if missing := [label for label in task["labels"] if not counts[label]]:
        raise ConfigError(
            f"task.class_weights=balanced, but the training split has no {missing[0]!r} example."
        )
    task["class_weights"] = [len(train) / (len(task["labels"]) * counts[label]) for label in task["labels"]]


def _learn_text_files(config: dict[str, Any], examples: Sequence[Example], folder: Path) -> None:
    """Settle `vocabulary` and `fasttext.path`; what is `auto` and not at hand is learned here."""
    texts = [
        text for example in examples for pair in example.pairs for text in (pair.text, pair.text_b) if text
    ]
    processor = config["processor"]
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


def _fill_sizes(model: dict[str, Any], processor: Processor, regions: RegionSource | None) -> None:
    """The sizes that data decide, where the configuration does not say them."""
    if processor.text is not None:
        model.setdefault("vocab_size", processor.text.vocab_size)
    if processor.vectors is not None:
        model.setdefault("vector_dim", processor.vectors.dim)
    if regions is not None:
        model.setdefault("feature_dim", regions.meta.feature_dim)


def _load_weights(model: Any, weights: Mapping[str, str | None], regions: RegionSource | None) -> None:
    """Fill the model from a bundle of diptych, an original checkpoint, or files for its towers."""
    paths = {name: Path(path) for name, path in weights.items() if path}
    whole = paths.get("model")
    if whole is not None and whole.is_dir():
        source = load_bundle(find_bundle(whole))
        if regions is not None and source.features is not None:
            regions.meta.require_like(source.features, where=getattr(regions, "path", "the feature store"))
        fill(model, source.model.state_dict(), where=whole)
    elif whole is not None and isinstance(model, Uniter):
        load_uniter(model, whole)
    elif whole is not None:
        raise ConfigError(
            f"weights.model={whole}: {type(model).__name__} has no published checkpoint as a whole; "
            "say weights.text or weights.image."
        )
    if "text" in paths or "image" in paths:
        if not isinstance(model, Concat):
            raise ConfigError(f"{type(model).__name__} has no towers to fill; say weights.model.")
        load_towers(model, text=paths.get("text"), image=paths.get("image"))


def _images(*datasets: Dataset) -> dict[str, Path]:
    return {key: path for dataset in datasets for key, path in getattr(dataset, "images", {}).items()}
