"""One training run as one call: settle the configuration, build the parts, fit them, save a bundle.

What lies in the run folder afterwards:

    config.yaml     the resolved configuration
    inputs.json     checksums of the data, which must not change while the run goes on
    checkpoints/    what a stopped run continues from
    files/          vocabulary and sentence vectors learned for this run
    places.json     where the data lie, for `diptych predict` and `score`
    metrics.csv     losses and metrics by step (and TensorBoard's files)
    bundle/         the trained model; its presence means that the run is complete
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from diptych.bundle import call, load_bundle, save_bundle, write_places
from diptych.convert import find, load_model, load_region_encoder, load_towers
from diptych.data import Collate, DataModule, Place, require_sources, require_vocabulary
from diptych.data.inputs import checksums, picture_checksum
from diptych.data.stream import different_targets
from diptych.errors import ConfigError, nearest
from diptych.models import Concat, EndToEnd
from diptych.nodes import parameters
from diptych.recipe.folder import PICTURES, entered, is_first_process, write_settings
from diptych.recipe.settle import Settled, choose_threshold, require_labels, settle
from diptych.tasks import Classify, Task, Trainable
from diptych.train import FitResult, fit
from diptych.types import RegionSource
from diptych.weights import fill


@dataclass(frozen=True, kw_only=True)
class Run:
    """What became of a run.

    Args:
        fit: None when the run was complete before.
        task: with the weights that were kept.
        metrics: of the kept weights on the validation split.
    """

    folder: Path
    fit: FitResult | None
    task: Trainable
    metrics: Mapping[str, float]

    @property
    def interrupted(self) -> bool:
        return self.fit is not None and self.fit.interrupted


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What `fit` trains, built from a settled configuration.

    Args:
        settings: further arguments of `fit`: optimizer, schedule, averaging, trainer.
    """

    model: Any
    task: Trainable
    data: DataModule
    settings: Mapping[str, Any]


def run_recipe(config: Mapping[str, Any]) -> Run:
    """Train what a configuration describes, or continue where it was stopped.

        run = run_recipe(compose(["experiment=hateful_memes/uniter_tiny", "root=memes"]))
        print(run.metrics["auroc"], run.folder / "bundle")

    Args:
        config: the tree of `conf/train.yaml`, resolved to plain values; see `compose`.

    Raises:
        ConfigError: a setting cannot work, or the folder holds a run with other settings.
        MissingFeatures: images without regions, before the first step.
    """
    _require_settings(config)
    folder = Path(config["out"])
    with entered(folder, config):
        if (folder / "bundle").exists():
            before = load_bundle(folder)
            return Run(folder=folder, fit=None, task=before.task, metrics=before.metrics)
        settled = settle(config, folder)
        parts = build(settled)
        if is_first_process():
            write_settings(folder, config, _inputs(settled, parts, folder))
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
            _save(settled, parts, result)
        return Run(folder=folder, fit=result, task=parts.task, metrics=result.metrics)


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


def build(settled: Settled) -> Parts:
    """Build and check everything that a run needs.

    Raises:
        ConfigError: a call that cannot be made, or parts that do not fit each other.
        MissingFeatures: images without regions.
    """
    config, processor, sources = settled.config, settled.processor, settled.sources
    train, validate = settled.train, settled.validate
    torch.manual_seed(config["seed"])  # before anything random is built
    model = call(config["model"])
    _load_weights(model, config["weights"], sources.regions)
    task = _require_two_classes(call(config["task"], model=model), settled.criterion)
    require_sources(model.needs, processor, sources, train, validate)
    for name, part in (("training", train), ("validation", validate)):
        for window in different_targets(part):
            task.targets(window)  # a wrong label shows now, not in the middle of an epoch
        if isinstance(task, Task):
            require_labels(name, part)
    require_vocabulary(model, processor)
    averaging = config["averaging"] or {}
    return Parts(
        model=model,
        task=task,
        data=_data(settled, Collate(processor, sources=sources, targets=task.targets)),
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


def _save(settled: Settled, parts: Parts, result: FitResult) -> None:
    config, task = settled.config, parts.task
    regions, nodes = settled.sources.regions, {name: config[name] for name in ("model", "processor", "task")}
    learned = isinstance(parts.model, EndToEnd)  # no features to agree with
    if settled.criterion is not None:
        assert isinstance(task, Classify), "only this task has a threshold"
        task.threshold = choose_threshold(settled, parts.model, task)
        nodes["task"] = {**nodes["task"], "threshold": task.threshold}
    node = getattr(settled.train, "node", None)
    places: dict[str, Place] = {
        "root": config["root"],
        "features": None if regions is None else config["features"],
        "more_features": config["more_features"],
    }
    write_places(Path(config["out"]), places)
    save_bundle(
        Path(config["out"]) / "bundle",
        model=parts.model,
        task=task,
        nodes=nodes,
        features=None if regions is None or learned else regions.meta,
        metrics=result.metrics,
        provenance={
            "name": config["name"],
            "seed": config["seed"],
            **_shown(places),
            **({"region_merge": config["region_merge"]} if places["more_features"] else {}),
            **({} if node is None else {"data": node}),
            "training": {"examples": len(settled.train), "split": config["data"]["train"].get("split")},
            "validation": {
                "examples": len(settled.validate),
                "split": config["data"]["validate"].get("split"),
            },
            "steps": result.steps,
            "threads": torch.get_num_threads(),
            "optim": config["optim"],
            "schedule": config["schedule"],
            "trainer": config["trainer"],
        },
    )


def _inputs(settled: Settled, parts: Parts, folder: Path) -> dict[str, str]:
    """Checksums of the files and feature stores that the run reads, starting weights included."""
    config, processor, sources = settled.config, settled.config["processor"], settled.sources
    stores, places = config["features"], list[Any]()
    if sources.regions is not None:
        places = [*(stores.values() if isinstance(stores, Mapping) else [stores]), config["more_features"]]
    places += [
        processor.get(name, {}).get(key) for name, key in (("text", "vocabulary"), ("vectors", "path"))
    ]
    annotations = [
        file for split in (settled.train, settled.validate) for file in getattr(split, "files", ())
    ]
    weights = [_bundle_or(find(source)) for source in config["weights"].values() if source]
    given = [*annotations, *(Path(place) for place in places if isinstance(place, str)), *weights]
    paths = [path for path in dict.fromkeys(given) if path.exists()]
    found = checksums(path for path in paths if (folder / "files") not in path.parents)
    if "pixels" in parts.model.needs or settled.processor.prepare is not None:
        found[PICTURES] = picture_checksum(sources.images or {})
    return found


def _bundle_or(path: Path) -> Path:
    """The bundle inside a run folder, which holds much else."""
    return path / "bundle" if (path / "bundle" / "bundle.yaml").exists() else path


def _shown(places: Mapping[str, Place]) -> dict[str, str]:
    """Names of folders without their paths, which a bundle must not tell others."""
    found: dict[str, str] = {}
    for key, place in places.items():
        if place is not None:
            several = place.values() if isinstance(place, Mapping) else [place]
            found[key] = ", ".join(Path(folder).resolve().name for folder in several)
    return found


def _data(settled: Settled, collate: Collate) -> DataModule:
    node = settled.config["data"]
    known = {"train", "validate", *node["train"]}  # what both splits take may be said once, above them
    settings = {key: value for key, value in node.items() if key not in known}
    allowed = parameters(DataModule)
    if unknown := [key for key in settings if key not in allowed]:
        raise ConfigError(
            f"data has no key {unknown[0]!r}.{nearest(unknown[0], allowed)} It takes: {', '.join(allowed)}."
        )
    try:
        return DataModule(train=settled.train, validate=settled.validate, collate=collate, **settings)
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
