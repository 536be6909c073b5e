"""Write the bundle of a finished run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from diptych.bundle import Bundle, save_bundle
from diptych.convert import certificate
from diptych.data import Place
from diptych.data.stream import targets_of
from diptych.metrics import best_threshold
from diptych.models import EndToEnd
from diptych.predict import Predictor
from diptych.predictions import likeliest
from diptych.recipe.build import Parts
from diptych.recipe.settle import Criterion, Settled
from diptych.tasks import Classify
from diptych.train import FitResult


def save(settled: Settled, parts: Parts, result: FitResult) -> None:
    """Write the bundle of a finished run, and the paths of its data, into the run folder."""
    config, task = settled.config, parts.task
    regions, nodes = settled.sources.regions, {name: config[name] for name in ("model", "processor", "task")}
    learned = isinstance(parts.model, EndToEnd)  # computes features itself, so none must match at prediction
    if settled.criterion is not None:
        assert isinstance(task, Classify), "checked by _require_two_classes()"
        # With the kept weights, which `fit` has left in the model.
        task.threshold = choose_threshold(settled, parts.model, task)
        nodes["task"] = {**nodes["task"], "threshold": task.threshold}
    node = getattr(settled.train, "node", None)
    places: dict[str, Place] = {
        "root": config["root"],
        "features": None if regions is None else config["features"],
        "more_features": config["more_features"],
    }
    shown = _shown(places)
    save_bundle(
        Path(config["out"]) / "bundle",
        model=parts.model,
        task=task,
        nodes=nodes,
        features=None if regions is None or learned else regions.meta,
        metrics=result.metrics,
        places=places,
        proofs=certificate(type(parts.model).__module__.rpartition(".")[2]),
        provenance={
            "name": config["name"],
            "seed": config["seed"],
            **shown,
            **({} if config["limit"] is None else {"limit": config["limit"]}),
            **({"region_merge": config["region_merge"]} if places["more_features"] else {}),
            **({} if node is None else {"data": node}),
            "training": {
                "examples": len(settled.train),
                "split": config["data"]["train"].get("split"),
                "cut_texts": settled.cut,
            },
            "validation": {
                "examples": len(settled.validate),
                "split": config["data"]["validate"].get("split"),
            },
            **({} if parts.start is None else {"start": parts.start}),
            "steps": result.steps,
            "threads": torch.get_num_threads(),
            "optim": config["optim"],
            "schedule": config["schedule"],
            "trainer": config["trainer"],
        },
    )


def choose_threshold(settled: Settled, model: Any, task: Any) -> float:
    """Return the threshold that maximizes the configured criterion on the validation split."""
    validate, sources = settled.validate, settled.sources
    predictor = Predictor(Bundle(model=model.eval(), task=task.eval(), processor=settled.processor))
    predictions = predictor.predict_dataset(validate, features=sources.regions, images=sources.images)
    targets = [target for _, target in targets_of(validate)]
    # Only labeled examples can say which threshold is good.
    known = [row for row, target in enumerate(targets) if target is not None]
    truth = [likeliest(targets[row]) == task.labels[1] for row in known]
    scores = predictions.column(task.labels[1])[known]
    return best_threshold(np.array(truth), scores, criterion=cast(Criterion, settled.criterion))


def _shown(places: Mapping[str, Place]) -> dict[str, str]:
    """Return folder names without their paths: bundles are published, and paths may be private."""
    names: dict[str, str] = {}
    for key, place in places.items():
        if place is not None:
            several = place.values() if isinstance(place, Mapping) else [place]
            names[key] = ", ".join(Path(folder).resolve().name for folder in several)
    return names
