"""One training run as one call: from a resolved configuration to a bundle.

What lies in the run folder afterwards:

    config.yaml     the resolved configuration
    inputs.json     checksums of the data, which must not change while the run goes on
    checkpoints/    what a stopped run continues from
    files/          vocabulary and sentence vectors learned for this run
    places.json     where the data lie, for `diptych predict` and `score`
    metrics.csv     losses and metrics by step (and TensorBoard's files)
    bundle/         the trained model; its presence means that the run is complete
"""

import copy
from collections import ChainMap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from diptych.bundle import call, load_bundle, save_bundle, write_places
from diptych.convert import find, load_model, load_region_encoder, load_towers
from diptych.data import (
    Collate,
    DataModule,
    Place,
    Processor,
    Sources,
    open_regions,
    require_sources,
    require_vocabulary,
    with_regions,
)
from diptych.data.inputs import checksums, picture_checksum
from diptych.data.stream import different_targets
from diptych.errors import ConfigError, nearest
from diptych.models import Concat, EndToEnd
from diptych.nodes import parameters
from diptych.recipe.folder import PICTURES, await_file, held, is_first_process, write_settings
from diptych.recipe.settle import (
    balance_classes,
    choose_threshold,
    fill_objectives,
    fill_sizes,
    learn_text_files,
    require_labels,
    take_labels,
    take_threshold,
)
from diptych.tasks import Classify, Task, Trainable
from diptych.train import FitResult, fit
from diptych.types import Dataset, RegionSource
from diptych.weights import fill


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


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What a configuration builds before the first step; `config` has every open setting settled."""

    config: dict[str, Any]
    criterion: str | None
    train: Dataset
    validate: Dataset
    model: Any
    task: Trainable
    processor: Processor
    sources: Sources
    data: DataModule
    settings: dict[str, Any]


def run_recipe(config: dict[str, Any]) -> Run:
    """Train what a configuration describes, or continue where it was stopped.

    Args:
        config: the tree of `conf/train.yaml`, resolved to plain values.

    Raises:
        ConfigError: a setting cannot work, or the folder holds a run with other settings.
        MissingFeatures: images without regions, before the first step.
    """
    _require_settings(config)
    folder = Path(config["out"])
    if is_first_process():
        with held(folder, config):
            return _run(config, folder, first=True)
    await_file(folder / "config.yaml")
    return _run(config, folder, first=False)


def _run(config: dict[str, Any], folder: Path, *, first: bool) -> Run:
    if (folder / "bundle").exists():
        return Run(folder=folder, fit=None, metrics=load_bundle(folder).metrics)
    parts = build_parts(copy.deepcopy(config), folder)
    if first:
        write_settings(folder, config, _inputs(parts, folder))
    result = fit(
        parts.model,
        parts.task,
        parts.data,
        folder=folder,
        seed=config["seed"],
        loggers=config["loggers"],
        progress=config["progress"],
        **parts.settings,
    )
    if result.main and not result.interrupted:
        _save(parts, result)
    return Run(folder=folder, fit=result, metrics=result.metrics)


SETTINGS = (
    "root", "out", "name", "seed", "features", "more_features", "region_merge", "vocabulary",
    "vocabulary_size", "fasttext", "loggers", "progress", "overwrite", "weights", "model", "processor",
    "task", "data", "optim", "schedule", "averaging", "trainer",
)  # fmt: skip


def _require_settings(config: Mapping[str, Any]) -> None:
    """The settings that no call looks at."""
    if missing := [name for name in SETTINGS if name not in config]:
        raise ConfigError(f"there is no {missing[0]} in the settings; expected {', '.join(SETTINGS)}.")
    out, seed = config["out"], config["seed"]
    if not isinstance(out, str) or not out:
        raise ConfigError(f"out is {out!r}; expected the name of a folder.")
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**63:
        raise ConfigError(f"seed is {seed!r}; expected a whole number from 0.")
    nodes = {name: config[name] for name in ("model", "processor", "task", "weights")}
    nodes |= {f"data.{name}": config["data"].get(name) for name in ("train", "validate")}
    if odd := [name for name, node in nodes.items() if not isinstance(node, Mapping)]:
        raise ConfigError(
            f"{odd[0]} is {nodes[odd[0]]!r}; expected keys below it, as `--cfg job` prints them."
        )


def build_parts(config: dict[str, Any], folder: Path) -> Parts:
    """Build and check everything that a run needs; `config` is changed in place.

    Args:
        folder: text files that are learned for the run go to its `files/`.
    """
    train, validate = call(config["data"]["train"]), call(config["data"]["validate"])
    for name, split in (("training", train), ("validation", validate)):
        if not len(split):
            raise ConfigError(f"the {name} split has no examples; expected at least one.")
    take_labels(config, train)
    criterion = take_threshold(config, validate)
    learn_text_files(config, train, folder / "files")
    processor = call(config["processor"])
    images = _images(train, validate)
    regions = open_regions(
        processor,
        config["features"],
        images,
        more=config["more_features"],
        merge=config["region_merge"],
        stores=[name for one in (train, validate) for name in getattr(one, "stores", ())],
    )
    train, validate = (with_regions(split, processor, regions) for split in (train, validate))
    balance_classes(config, train)
    fill_sizes(config["model"], processor, regions)
    fill_objectives(config["task"], processor, regions)
    torch.manual_seed(config["seed"])  # before anything random is built
    model = call(config["model"])
    _load_weights(model, config["weights"], regions)
    task = _require_two_classes(call(config["task"], model=model), criterion)
    sources = Sources(regions=regions, images=images)
    require_sources(model.needs, processor, sources, train, validate)
    for name, part in (("training", train), ("validation", validate)):
        for window in different_targets(part):
            task.targets(window)  # a wrong label shows now, not in the middle of an epoch
        if isinstance(task, Task):
            require_labels(name, part)
    require_vocabulary(model, processor)
    averaging = config["averaging"] or {}
    return Parts(
        config=config,
        criterion=criterion,
        train=train,
        validate=validate,
        model=model,
        task=task,
        processor=processor,
        sources=sources,
        data=_data(
            config["data"], train, validate, Collate(processor, sources=sources, targets=task.targets)
        ),
        settings={
            "optim": call(config["optim"]),
            "schedule": call(config["schedule"]),
            "averaging": call(averaging) if "_target_" in averaging else None,
            "trainer": call(config["trainer"]),
        },
    )


def _require_two_classes(task: Trainable, criterion: str | None) -> Trainable:
    if criterion is not None and not (isinstance(task, Classify) and len(task.labels) == 2):
        raise ConfigError(f"task.threshold={criterion} is chosen for two classes alone; give a number.")
    return task


def _save(parts: Parts, result: FitResult) -> None:
    config, task, place = parts.config, parts.task, parts.config["features"]
    regions = parts.sources.regions
    learned = isinstance(parts.model, EndToEnd)  # no features to agree with
    if parts.criterion is not None:
        threshold = choose_threshold(
            parts.model, task, parts.processor, parts.validate, parts.sources, parts.criterion
        )
        assert isinstance(task, Classify), "only this task has a threshold"
        task.threshold = config["task"]["threshold"] = threshold
    node = getattr(parts.train, "node", None)
    places: dict[str, Place] = {
        "root": Path(config["root"]),
        "features": None if regions is None else place,
        "more_features": config["more_features"],
    }
    write_places(Path(config["out"]), places)
    save_bundle(
        Path(config["out"]) / "bundle",
        model=parts.model,
        task=task,
        nodes={name: config[name] for name in ("model", "processor", "task")},
        features=None if regions is None or learned else regions.meta,
        metrics=result.metrics,
        provenance={
            "name": config["name"],
            "seed": config["seed"],
            **_shown(places),
            **({"region_merge": config["region_merge"]} if places["more_features"] else {}),
            **({} if node is None else {"data": node}),
            "training": {"examples": len(parts.train), "split": config["data"]["train"].get("split")},
            "validation": {"examples": len(parts.validate), "split": config["data"]["validate"].get("split")},
            "steps": result.steps,
            "threads": torch.get_num_threads(),
            "optim": config["optim"],
            "schedule": config["schedule"],
            "trainer": config["trainer"],
        },
    )


def _inputs(parts: Parts, folder: Path) -> dict[str, str]:
    """Checksums of the files and feature stores that the run reads, starting weights included."""
    config, processor = parts.config, parts.config["processor"]
    places: list[Any] = []
    if parts.sources.regions is not None:
        named = config["features"]
        places = [*(named.values() if isinstance(named, Mapping) else [named]), config["more_features"]]
    places += [
        processor.get(name, {}).get(key) for name, key in (("text", "vocabulary"), ("vectors", "path"))
    ]
    annotations = [file for split in (parts.train, parts.validate) for file in getattr(split, "files", ())]
    weights = [_bundle_or(find(source)) for source in config["weights"].values() if source]
    given = [*annotations, *(Path(place) for place in places if isinstance(place, str)), *weights]
    paths = [path for path in dict.fromkeys(given) if path.exists()]
    found = checksums(path for path in paths if (folder / "files") not in path.parents)
    if "pixels" in parts.model.needs or parts.processor.prepare is not None:
        found[PICTURES] = picture_checksum(parts.sources.images or {})
    return found


def _bundle_or(path: Path) -> Path:
    """The bundle inside a run folder, which holds much else."""
    return path / "bundle" if (path / "bundle" / "bundle.yaml").exists() else path


def _shown(places: Mapping[str, Place]) -> dict[str, str]:
    """Names of folders for people: where they lie is nobody's business who gets the bundle."""
    found: dict[str, str] = {}
    for key, place in places.items():
        if place is not None:
            several = place.values() if isinstance(place, Mapping) else [place]
            found[key] = ", ".join(Path(one).resolve().name for one in several)
    return found


def _data(node: Mapping[str, Any], train: Dataset, validate: Dataset, collate: Collate) -> DataModule:
    known = {"train", "validate", *node["train"]}  # what both splits take may be said once, above them
    settings = {key: value for key, value in node.items() if key not in known}
    allowed = parameters(DataModule)
    if unknown := [key for key in settings if key not in allowed]:
        raise ConfigError(
            f"data has no key {unknown[0]!r}.{nearest(unknown[0], allowed)} It takes: {', '.join(allowed)}."
        )
    try:
        return DataModule(train=train, validate=validate, collate=collate, **settings)
    except TypeError as error:
        raise ConfigError(f"data cannot be {settings}: {error}. Is a value of the wrong kind?") from error


def _load_weights(model: Any, weights: Mapping[str, str | None], regions: RegionSource | None) -> None:
    """Fill the model from a bundle of diptych, an original checkpoint, or files for its towers.

    Args:
        weights: sources; see `diptych.convert.find`.
    """
    paths = {name: find(source) for name, source in weights.items() if source}
    whole = paths.get("model")
    if whole is not None and any((place / "bundle.yaml").exists() for place in (whole, whole / "bundle")):
        source = load_bundle(whole)
        if regions is not None and source.features is not None:
            regions.meta.require_like(source.features, where=getattr(regions, "path", "the feature store"))
        fill(model, source.model.state_dict(), where=whole)
    elif whole is not None:
        load_model(model, whole)
    if isinstance(model, EndToEnd) and "image" in paths:
        load_region_encoder(model.regions, paths.pop("image"))
    if "text" in paths or "image" in paths:
        if not isinstance(model, Concat):
            raise ConfigError(f"{type(model).__name__} has no towers to fill; say weights.model.")
        load_towers(model, text=paths.get("text"), image=paths.get("image"))


def _images(*datasets: Dataset) -> Mapping[str, Path]:
    """Where several data sets have a key, the last one counts; none is looked up here."""
    found = [one.images for one in reversed(datasets) if hasattr(one, "images")]
    return ChainMap(*found)
