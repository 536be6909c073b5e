"""One meme in, a probability out: by one trained model, or by all members of a study and their blend."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from diptych.data import open_regions
from diptych.datasets import HatefulMemes
from diptych.ensemble import Members, blend, fit_blend, read_predictions
from diptych.errors import ConfigError, FormatError, nearest
from diptych.files import atomic_file
from diptych.predict import Predictor, load
from diptych.predictions import Predictions
from diptych.study.graph import Graph
from diptych.types import RegionSource

NAME = "members.json"
STORES = ("features", "more_features")
Place = str | Path | None
Look = Callable[[Predictor, Path, Place, Place], RegionSource | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Opinion:
    """What models think of one meme; all numbers are probabilities in [0, 1] of the class that is looked for.

    Args:
        probability: of the model, or of the study's blend: what its FIN files hold.
        families: averages of members; empty for one model.
        members: empty for one model.
    """

    answer: str
    probability: float
    families: Mapping[str, float] = field(default_factory=dict)
    members: Mapping[str, float] = field(default_factory=dict)


def stored(predictor: Predictor, image: Path, main: Place, more: Place) -> RegionSource | None:
    """The regions of a picture as they are written down: in a feature store, as boxes, or none but a grid."""
    merge = predictor.bundle.provenance.get("region_merge", "vilio")
    return open_regions(predictor.processor, main, {image.stem: image}, more=more, merge=merge)


def score_meme(
    source: Path | str,
    *,
    image: Path | str,
    text: str,
    features: Mapping[str, Path] | None = None,
    look: Look = stored,
    device: str = "auto",
    precision: str = "32",
) -> Opinion:
    """Score one picture and its text.

    Of a study, those models of its members answer that predict its test splits, one after the other. The
    blend is fitted again on the study's predictions of dev with the meme beside them. As scales and ranks are
    those of dev, the probability is the one that the meme would have in a FIN file.

    Args:
        source: a run, a bundle, or the folder of a study that was run.
        image: a picture; the name of its file is the key of its regions.
        features: places instead of those used in training, by the study's names of features; of one model, by
            `features` and `more_features`.
        look: where the regions of a picture come from, by the model and its one or two places.

    Raises:
        ConfigError: the study has a blend in which a score depends on the other memes of its split; or an
            unknown name of features.
        MissingFeatures: a store lacks the picture.
    """
    source, image, given = Path(source), Path(image), dict(features or {})

    def ask(predictor: Predictor, main: Place, more: Place) -> Predictions:
        verdict = predictor.predict(text=text, image=image, regions=look(predictor, image, main, more))
        scores = np.array([[*verdict.scores.values()]])
        return Predictions(
            ids=(image.stem,), scores=scores, answers=(verdict.answer,), classes=(*verdict.scores,)
        )

    if not (source / NAME).is_file():
        predictor = load(source, device=device, precision=precision)
        places = _places({key: predictor.bundle.provenance.get(key) for key in STORES}, given, source)
        return _opinion(ask(predictor, *places.values()))
    tree = _read(source / NAME)
    places = _places({name: source / place for name, place in tree["features"].items()}, given, source)
    members: dict[str, Predictions] = {}
    for name, about in tree["members"].items():
        predictor = load(source / about["bundle"], device=device, precision=precision)
        members[name] = ask(predictor, *(places.get(about[key]) for key in STORES))
    families = {
        family: blend([members[name] for name, about in tree["members"].items() if about["family"] == family])
        for family in tree["dev"]
    }
    final = _blended(source, tree, families)
    return _opinion(final, families={**families}, members=members)


def write_members(graph: Graph) -> Path:
    """Write what `score_meme` has to know of a study whose blend is done.

    The study's folder may move as a whole; the feature stores may not.
    """
    study, out = graph.study, graph.out
    tests = [run for run, splits in study.runs.items() if study.dev not in splits]
    run = tests[-1] if tests else next(iter(study.runs))
    averages = {name: graph.steps[name] for name in graph.steps["ensemble"].needs}
    asked = {name for step in averages.values() for name in step.settings["members"]}
    features: dict[str, str] = {}
    members: dict[str, dict[str, Any]] = {}
    for member in study.members:
        if member.name not in asked:
            continue
        settings = graph.steps[f"{member.name}/{run}/predict"].settings
        names = {key: getattr(member, key) for key in STORES}
        features |= {name: settings[key] for key, name in names.items() if name is not None}
        members[member.name] = {"family": member.family, "bundle": _below(settings["bundle"], out), **names}
    dev = HatefulMemes(graph.root, study.dev, limit=graph.limit)
    tree = {
        "study": study.name,
        "method": study.method,
        "compat": study.compat,
        "features": features,
        "members": members,
        "dev": {
            name.partition("/")[0]: _below(step.folder / f"{study.dev}.npz", out)
            for name, step in averages.items()
        },
        "labels": {meme.id: meme.label for meme in dev.memes},
    }
    with atomic_file(out / NAME, "w", encoding="utf-8") as file:
        json.dump(tree, file, indent=1)
    return out / NAME


def _below(path: Path | str, folder: Path) -> str:
    """Relative where it may move along with the folder."""
    return str(Path(path).relative_to(folder) if Path(path).is_relative_to(folder) else path)


def _read(path: Path) -> dict[str, Any]:
    try:
        tree: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise FormatError(f"{path}: not JSON ({error}). Run the study again; it is written anew.") from error
    if tree["compat"]:
        raise ConfigError(
            f"{path.parent}: the study blends with Vilio's arithmetic (`ensemble.compat`), in which scales "
            "and ranks are those of a whole split, so that one meme has no score. Run it again with "
            "ensemble.compat: false."
        )
    return tree


def _places(known: Mapping[str, Place], given: Mapping[str, Path], source: Path) -> dict[str, Place]:
    if unknown := sorted(given.keys() - known):
        raise ConfigError(
            f"{source} reads no features called {unknown[0]!r}.{nearest(unknown[0], known)} "
            f"It reads: {', '.join(sorted(known))}."
        )
    return {**known, **given}


def _blended(source: Path, tree: Mapping[str, Any], families: Mapping[str, Predictions]) -> Predictions:
    names = tuple(sorted(families))
    found = {
        "dev": tuple(read_predictions(source / tree["dev"][name]) for name in names),
        "meme": tuple(families[name] for name in names),
    }
    members = Members(names=names, predictions=found, dropped={})
    blends, _ = fit_blend(members, tree["labels"], dev="dev", method=tree["method"], folds=0)
    return blends["meme"]


def _opinion(final: Predictions, **parts: Mapping[str, Predictions]) -> Opinion:
    columns = {key: {name: _last(one) for name, one in part.items()} for key, part in parts.items()}
    return Opinion(answer=(final.answers or ("",))[0], probability=_last(final), **columns)


def _last(predictions: Predictions) -> float:
    return float(predictions.column((predictions.classes or ())[-1])[0])
