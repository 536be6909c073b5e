"""One meme in, a probability out: by one trained model, or by all members of a study and their blend."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import compress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from typing_extensions import TypedDict

from diptych.bundle import trained_on
from diptych.data import open_regions
from diptych.detect import ExtractSettings, extract
from diptych.documents import closed, read_json
from diptych.ensemble import Members, blend, fit_blend, read_predictions
from diptych.errors import ConfigError, FormatError, nearest
from diptych.features import FeatureStore
from diptych.files import atomic_file, require_new
from diptych.predict import Predictor, Verdict, load
from diptych.predictions import Predictions
from diptych.study.graph import Graph
from diptych.study.settings import Fitted
from diptych.types import FeatureMeta

NAME = "members.json"
STORES = ("features", "more_features")
Place = str | Path | None


@closed
class MemberEntry(TypedDict):
    """A member in `Tree`; the names of its stores are keys of `features`."""

    family: str
    bundle: str
    features: str | None
    more_features: str | None


@closed
class Tree(TypedDict):
    """The file `members.json`: what `score_meme` has to know of a study."""

    study: str
    method: Fitted
    compat: bool
    features: dict[str, str]
    members: dict[str, MemberEntry]
    dev: dict[str, str]
    labels: dict[str, int | None]


def score_meme(
    source: Path | str,
    *,
    image: Path | str,
    text: str,
    features: Mapping[str, Path] | None = None,
    device: str = "auto",
    precision: str = "32",
) -> Verdict:
    """Score one picture and its text.

    Of a study, those models of its members answer that predict its test splits, one after the other. The
    blend is fitted again on the study's predictions of dev with the meme beside them. As scales and ranks are
    those of dev, the probability is the one that the meme would have in a FIN file.

    Args:
        source: a run, a bundle, or the folder of a study that was run.
        image: a picture; the name of its file is the key of its regions.
        features: places instead of those used in training, by the study's names of features; of one model, by
            `features` and `more_features`.

    Raises:
        ConfigError: the study has a blend in which a score depends on the other memes of its split; an
            unknown name of features; a task without probabilities.
        MissingFeatures: a store lacks the picture.
    """
    source, image, given = Path(source), Path(image), dict(features or {})

    places = places_of(source)
    if unknown := sorted(given.keys() - places):
        raise ConfigError(
            f"{source} reads no features called {unknown[0]!r}.{nearest(unknown[0], places)} "
            f"It reads: {', '.join(places) or 'none'}."
        )
    places |= given
    if not (source / NAME).is_file():
        predictor = load(source, device=device, precision=precision)
        return _verdict(_ask(predictor, image, text, *(places[key] for key in STORES)))
    tree = _read(source / NAME)
    members: dict[str, Predictions] = {}
    for name, about in tree["members"].items():
        predictor = load(source / about["bundle"], device=device, precision=precision)
        stores = [None if key is None else places[key] for key in (about["features"], about["more_features"])]
        members[name] = _ask(predictor, image, text, *stores)
    families = {
        family: blend([members[name] for name, about in tree["members"].items() if about["family"] == family])
        for family in tree["dev"]
    }
    final = _blended(source, tree, families)
    return _verdict(final, families={**families}, members=members)


def _ask(predictor: Predictor, image: Path, text: str, main: Place, more: Place) -> Predictions:
    merge = predictor.bundle.provenance.get("region_merge")
    if more is None and merge not in (None, "detector_only"):
        raise ConfigError("the model was trained on two feature stores; say --features more_features=FOLDER.")
    regions = open_regions(predictor.processor, main, {image.stem: image}, more=more, merge=merge or "vilio")
    verdict = predictor.predict(text=text, image=image, regions=regions)
    if not verdict.scores:
        raise ConfigError(
            f"{type(predictor.task).__name__} answers without probabilities, so there is no score; "
            "see `diptych predict`."
        )
    scores = np.array([[*verdict.scores.values()]])
    return Predictions(
        ids=(image.stem,), scores=scores, answers=(verdict.answer,), classes=(*verdict.scores,)
    )


def places_of(source: Path) -> dict[str, Place]:
    """Where the regions lie that the models of a run, a bundle or a study were trained on, by their names."""
    if (source / NAME).is_file():
        return {name: source / place for name, place in _read(source / NAME)["features"].items()}
    places = trained_on(source)
    named = places["features"]  # of several stores, none is that of any picture
    return {"features": None if isinstance(named, dict) else named, "more_features": places["more_features"]}


@contextmanager
def found_in(
    image: Path, source: Path, weights: Mapping[str, Path | None], *, device: str = "cpu"
) -> Iterator[dict[str, Path]]:
    """Stores of one picture, made by the detectors and rules of those that `source` was trained on.

    They are there within the block, for the `features` of `score_meme`.

    Args:
        weights: files by detector; None means random ones.

    Raises:
        ConfigError: a store does not say how it was made, or by a detector without weights here.
    """
    names = {(name if file is not None else f"{name}-random"): (name, file) for name, file in weights.items()}
    places = {name: FeatureStore(Path(place)) for name, place in places_of(source).items() if place}
    metas = {name: store.meta for name, store in places.items()}
    for name, meta in metas.items():
        if meta.detector not in names or meta.box_rule == "unknown":
            raise ConfigError(
                f"{places[name].path} was made by the detector {meta.detector!r} with the box rule "
                f"{meta.box_rule!r}, which {sorted(names)} cannot repeat; give weights of that detector, or "
                f"make a store with `diptych extract` and say --features {name}=FOLDER."
            )
    with TemporaryDirectory() as folder:
        listing = Path(folder) / "picture.txt"
        listing.write_text(f"{image.absolute()}\n", encoding="utf-8")
        made: dict[str, Path] = {}
        for detector, mode in sorted({(meta.detector, _rule(meta)[1]) for meta in metas.values()}):
            same = (meta.detector == detector and _rule(meta)[1] == mode for meta in metas.values())
            mine = dict(compress(metas.items(), same))
            settings = _settings(*names[detector], mode, list(mine.values()))
            report = extract(listing, Path(folder) / f"{detector} {mode}", settings, device=device)
            stores = dict(zip(settings.rules, report.stores, strict=True))
            made |= {name: stores[_rule(meta)[0]].path for name, meta in mine.items()}
        yield made


def _rule(meta: FeatureMeta) -> tuple[str, str]:
    """Numbers of boxes, and the way to choose them, which stores name only if it is not the usual one."""
    boxes, _, mode = meta.box_rule.partition(" ")
    return boxes, mode or "max-class"


def _settings(preset: str, weights: Path | None, mode: str, metas: Sequence[FeatureMeta]) -> ExtractSettings:
    return ExtractSettings(
        detector=preset,
        weights=weights,
        rules=tuple(sorted({_rule(meta)[0] for meta in metas})),
        mode=mode,
        classes=metas[0].classes,
        attributes=metas[0].attributes,
        dtype="float16" if metas[0].dtype == "float16" else "float32",
    )


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
    dev = graph.data.open(graph.root, study.dev, limit=graph.limit)
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
        "labels": dev.truth(),
    }
    require_new(out / NAME, overwrite=True, kind="a list of members")
    with atomic_file(out / NAME, "w", encoding="utf-8") as file:
        json.dump(tree, file, indent=1)
    return out / NAME


def _below(path: Path | str, folder: Path) -> str:
    """Relative where it may move along with the folder."""
    return str(Path(path).relative_to(folder) if Path(path).is_relative_to(folder) else path)


def _read(path: Path) -> Tree:
    advice = "Run the study again; it is written anew."
    tree = read_json(path, Tree, advice=advice)
    named = {one["family"] for one in tree["members"].values()}
    stores = {one["features"] for one in tree["members"].values()}
    stores |= {one["more_features"] for one in tree["members"].values()}
    if not tree["members"] or named != tree["dev"].keys() or not stores - {None} <= tree["features"].keys():
        raise FormatError(f"{path}: members, dev and features do not belong together. {advice}")
    if tree["compat"]:
        raise ConfigError(
            f"{path.parent}: the study blends with Vilio's arithmetic (`ensemble.compat`), in which scales "
            "and ranks are those of a whole split, so that one meme has no score. Run it again with "
            "ensemble.compat: false."
        )
    return tree


def _blended(source: Path, tree: Tree, families: Mapping[str, Predictions]) -> Predictions:
    names = tuple(sorted(families))
    found = {
        "dev": tuple(read_predictions(source / tree["dev"][name]) for name in names),
        "meme": tuple(families[name] for name in names),
    }
    members = Members(names=names, predictions=found, dropped={})
    blends, _ = fit_blend(members, tree["labels"], dev="dev", method=tree["method"], folds=0)
    return blends["meme"]


def _verdict(
    final: Predictions,
    families: Mapping[str, Predictions] | None = None,
    members: Mapping[str, Predictions] | None = None,
) -> Verdict:
    return Verdict(
        answer=(final.answers or ("",))[0],
        scores={name: float(final.column(name)[0]) for name in final.classes or ()},
        families={name: _last(one) for name, one in (families or {}).items()},
        members={name: _last(one) for name, one in (members or {}).items()},
    )


def _last(predictions: Predictions) -> float:
    return float(predictions.column((predictions.classes or ())[-1])[0])
