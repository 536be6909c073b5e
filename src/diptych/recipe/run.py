"""Run a training with one call: settle the configuration, build the parts, fit them, save a bundle.

The run folder then contains:

    config.yaml     the resolved configuration
    inputs.json     checksums of the data, which must not change until the run is complete
    checkpoints/    state for resuming an interrupted run
    files/          vocabulary and sentence vectors learned for this run
    places.json     paths of the data, for `diptych predict` and `score`
    metrics.csv     losses and metrics by step (and TensorBoard's files)
    bundle/         the trained model; its presence means that the run is complete
"""

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diptych.bundle import load_bundle
from diptych.convert import find
from diptych.data.inputs import checksums, picture_checksum
from diptych.errors import ConfigError
from diptych.recipe.build import Parts, build, model_sources
from diptych.recipe.folder import PICTURES, entered, is_first_process, write_settings
from diptych.recipe.save import save
from diptych.recipe.settle import Settled, settle
from diptych.tasks import Trainable
from diptych.train import FitResult, fit


@dataclass(frozen=True, kw_only=True)
class Run:
    """Result of a run.

    Args:
        fit: result of the training; None if the run was already complete.
        task: task with the selected weights.
        metrics: metrics of these weights on the validation split.
    """

    folder: Path
    fit: FitResult | None
    task: Trainable
    metrics: Mapping[str, float]

    @property
    def interrupted(self) -> bool:
        """Whether the training was stopped before its end; the same call continues it."""
        return self.fit is not None and self.fit.interrupted


def run_recipe(config: Mapping[str, Any]) -> Run:
    """Train the model of a configuration, or resume an interrupted run.

        run = run_recipe(compose(["experiment=hateful_memes/uniter_tiny", "root=memes"]))
        print(run.metrics["auroc"], run.folder / "bundle")

    Args:
        config: configuration with the keys of `conf/train.yaml`, resolved to plain values; see `compose`.

    Raises:
        ConfigError: a setting is invalid, or the folder holds a run with other settings.
        MissingFeatures: images have no regions; checked before the first step.
    """
    _require_settings(config)
    folder = Path(config["out"])
    with entered(folder, config):
        if (folder / "bundle").exists():  # with these settings, as `entered` has checked
            before = load_bundle(folder)
            return Run(folder=folder, fit=None, task=before.task, metrics=before.metrics)
        # All checks come before the first step, and before an old run is deleted.
        settled = settle(config, folder)
        parts = build(settled)
        # only now, when nothing in the settings or data can be wrong: this deletes a run that is replaced
        if is_first_process():
            write_settings(folder, config, _inputs(settled, parts, folder))
            if config["progress"]:
                sys.stderr.writelines(_remarks(settled, parts))
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
        # One process writes; an interrupted run gets no bundle, whose presence means "complete".
        if result.main and not result.interrupted:
            save(settled, parts, result)
        return Run(folder=folder, fit=result, task=parts.task, metrics=result.metrics)


def _remarks(settled: Settled, parts: Parts) -> Iterator[str]:
    """What a person should know before the first step."""
    if parts.start is not None:
        yield f"{parts.start}\n"
    if settled.coverage is not None:
        yield f"{len(settled.config['task']['answers']):,} answers: {settled.coverage}\n"
    if settled.cut:
        share, most = settled.cut / len(settled.train), settled.processor.max_tokens
        yield (
            f"processor.max_tokens={most} cuts a text of {settled.cut:,} of {len(settled.train):,} training "
            f"examples ({share:.1%}).\n"
        )


SETTINGS = (
    "root", "out", "name", "seed", "features", "more_features", "region_merge", "vocabulary",
    "vocabulary_size", "answer_minimum", "fasttext", "loggers", "progress", "overwrite", "weights", "model",
    "processor", "limit", "task", "data", "optim", "schedule", "averaging", "trainer",
)  # fmt: skip


def _require_settings(config: Mapping[str, Any]) -> None:
    """Check the settings that are not arguments of a call in a node, which checks its own."""
    if missing := [name for name in SETTINGS if name not in config]:
        raise ConfigError(f"there is no {missing[0]} in the settings; expected {', '.join(SETTINGS)}.")
    out, seed = config["out"], config["seed"]
    if not isinstance(out, str) or not out:
        raise ConfigError(f"out is {out!r}; expected the name of a folder.")
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**63:  # signed 64 bits
        raise ConfigError(f"seed is {seed!r}; expected a whole number from 0.")
    nodes = {name: config[name] for name in ("model", "processor", "task", "weights")}
    nodes |= {f"data.{name}": config["data"].get(name) for name in ("train", "validate")}
    if odd := [name for name, node in nodes.items() if not isinstance(node, Mapping)]:
        raise ConfigError(
            f"{odd[0]} is {nodes[odd[0]]!r}; expected a mapping, as `diptych train --cfg job` prints it."
        )


def _inputs(settled: Settled, parts: Parts, folder: Path) -> dict[str, str]:
    """Return checksums of the files and feature stores that the run reads, including starting weights."""
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
    others = [source for name, source in config["weights"].items() if source and name != "model"]
    weights = [_bundle_or(find(source)) for source in (*model_sources(config["weights"]), *others)]
    given = [*annotations, *(Path(place) for place in places if isinstance(place, str)), *weights]
    paths = [path for path in dict.fromkeys(given) if path.exists()]
    # files that the run itself has learned are no inputs; overwrite=true removes them
    inputs = checksums(path for path in paths if (folder / "files") not in path.parents)
    if "pixels" in parts.model.needs or settled.processor.prepare is not None:
        inputs[PICTURES] = picture_checksum(sources.images or {})
    return inputs


def _bundle_or(path: Path) -> Path:
    """Return the bundle if `path` is a run folder, whose other files are not inputs."""
    return path / "bundle" if (path / "bundle" / "bundle.yaml").exists() else path
