"""Score a picture and its text with a trained model, or with all members of a study and their blend.

A model that was trained on NLVR2 takes two pictures. A model that answers questions gives its best answers.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import compress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from typing_extensions import TypedDict

from diptych.bundle import find_bundle, load_tokenizer, read_content, trained_on
from diptych.data import open_regions, refuse_unread
from diptych.data.inputs import file_checksum
from diptych.detect import ExtractSettings, extract
from diptych.documents import closed, read_json
from diptych.ensemble import Members, blend, fit_blend, read_predictions
from diptych.errors import ConfigError, FormatError, first_five, nearest
from diptych.features import FeatureStore
from diptych.files import atomic_file, require_new
from diptych.predict import Predictor, Verdict, bundle_checksum, load
from diptych.predictions import Predictions
from diptych.study.graph import Graph
from diptych.study.settings import Fitted
from diptych.types import FeatureMeta, Tokenizer

NAME = "members.json"
STORES = ("features", "more_features")  # settings of a member that name a store
Place = str | Path | None


@closed
class MemberEntry(TypedDict):
    """A member in `Tree`. The names of its stores are keys of `Tree.features`."""

    family: str
    bundle: str
    features: str | None
    more_features: str | None


@closed
class Tree(TypedDict):
    """Content of `members.json`, from which `score_meme` reads a study."""

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
    image: Path | str | Sequence[Path | str],
    text: str,
    features: Mapping[str, Path] | None = None,
    device: str = "auto",
    precision: str = "32",
) -> Verdict:
    """Score one picture and its text, or a text and the pictures that it compares.

    For a study, it loads in sequence the models of the members that predict the test splits. It fits the
    blend again on the study's predictions of dev and applies it to the meme. Scales and ranks come from dev,
    so the meme gets the same probability as in a FIN file.

    Args:
        source: a run, a bundle, or the folder of a study that was run.
        image: a picture, or the left and the right one; a file name without the extension is the key of the
            regions.
        features: stores used instead of those of training. For a study, the keys are the study's names of
            features; for a single model, `features` and `more_features`.

    Raises:
        ConfigError: the study's blend needs all memes of a split (`compat`); an unknown name of features; a
            task without probabilities.
        MissingFeatures: a store has no regions of the picture.
    """
    source, given = Path(source), dict(features or {})
    images = [Path(image)] if isinstance(image, str | Path) else [Path(one) for one in image]
    places = places_of(source)
    if unknown := sorted(given.keys() - places):
        raise ConfigError(
            f"{source} reads no features called {unknown[0]!r}.{nearest(unknown[0], places)} "
            f"It reads: {', '.join(places) or 'none'}."
        )
    places |= given
    # A single model: there is nothing to blend.
    if not is_study(source):
        predictor = load(source, device=device, precision=precision)
        refuse_unread(predictor.processor, **given)
        return _ask(predictor, images, text, *(places[key] for key in STORES))
    tree = read_tree(source)
    members: dict[str, Predictions] = {}
    for name, about in tree["members"].items():
        predictor = load(source / about["bundle"], device=device, precision=precision)
        stores = [None if key is None else places[key] for key in (about["features"], about["more_features"])]
        # one model in memory at a time
        members[name] = _as_predictions(_ask(predictor, images, text, *stores), images[0].stem)
    families = averaged(tree, members)
    # Fitted again from the stored predictions of dev,
    # which takes seconds and needs no format for a fitted blend.
    final, threshold = _blended(source, tree, families)
    return replace(_verdict(final, families={**families}, members=members), threshold=threshold)


def tokenizer_of(source: Path | str) -> Tokenizer | None:
    """Return the tokenizer of a model, or that of a study's first member; no weights are loaded."""
    source = Path(source)
    if is_study(source):
        source /= next(iter(read_tree(source)["members"].values()))["bundle"]
    return load_tokenizer(source)


def is_study(folder: Path) -> bool:
    """Whether a folder is that of a study whose blend is done."""
    return (folder / NAME).is_file()


def model_of(source: Path) -> str:
    """Identity of a run, a bundle or a study, as prediction files and policies record it."""
    # The list names the bundles by the keys of their settings, and what the blend is fitted on.
    return file_checksum(source / NAME) if is_study(source) else bundle_checksum(source)


def _ask(predictor: Predictor, images: Sequence[Path], text: str, main: Place, more: Place) -> Verdict:
    merge = predictor.bundle.provenance.get("region_merge")  # None: trained on one store
    if more is None and merge not in (None, "detector_only"):
        raise ConfigError("the model was trained on two stores; add --features more_features=FOLDER.")
    keys = _keys(images)
    regions = open_regions(predictor.processor, main, keys, more=more, merge=merge or "vilio")
    verdict = predictor.predict(text=text, image=images, regions=regions)
    # Answers such as texts and boxes cannot be blended.
    if not verdict.scores:
        raise ConfigError(
            f"{type(predictor.task).__name__} gives answers without probabilities; use `diptych predict`."
        )
    return verdict


def _as_predictions(verdict: Verdict, key: str) -> Predictions:
    # A split of one meme, so that blending takes it like any other.
    scores = np.array([[*verdict.scores.values()]])
    return Predictions(ids=(key,), scores=scores, answers=(verdict.answer,), classes=(*verdict.scores,))


def _keys(images: Sequence[Path]) -> dict[str, Path]:
    """The pictures by the keys of their regions."""
    keys = {image.stem: image for image in images}
    if len(keys) < len(images):
        raise ConfigError(
            f"several pictures have the same name: {first_five(image.name for image in images)}."
        )
    return keys


def places_of(source: Path) -> dict[str, Place]:
    """Return the stores that a run, a bundle or a study was trained on, by name; see `score_meme`."""
    if is_study(source):
        return {name: source / place for name, place in read_tree(source)["features"].items()}
    places = trained_on(source)
    named = places["features"]  # if there are several, each covers one data set, and the picture is of none
    return {"features": None if isinstance(named, dict) else named, "more_features": places["more_features"]}


@contextmanager
def found_in(
    images: Sequence[Path],
    source: Path,
    weights: Mapping[str, Path | None],
    *,
    boxes: str = "36",
    device: str = "cpu",
) -> Iterator[dict[str, Path]]:
    """Extract stores of pictures, with the detectors and box rules of the stores `source` was trained on.

    They exist within the block; pass them to `score_meme` as `features`.

    Args:
        weights: weight files by detector; None means random weights.
        boxes: box rule for a model that knows no store, such as a converted one.

    Raises:
        ConfigError: a store does not record how it was made, `weights` lacks its detector, or there is no
            store to make.
    """
    if not (passes := extractions(source, weights, boxes=boxes)):
        raise ConfigError(
            f"weights of {', '.join(weights)} are given, but {source} was trained without the features of a "
            "detector, so nothing would read them; remove them."
        )
    with TemporaryDirectory() as folder:
        listing = Path(folder) / "picture.txt"
        paths = (image.absolute() for image in _keys(images).values())
        # A list and not the folder of the picture, which may hold thousands of others.
        listing.write_text("".join(f"{path}\n" for path in paths), encoding="utf-8")
        made: dict[str, Path] = {}
        for number, (settings, rules) in enumerate(passes):
            report = extract(listing, Path(folder) / str(number), settings, device=device)
            stores = dict(zip(settings.rules, report.stores, strict=True))
            made |= {name: stores[rule].path for name, rule in rules.items()}
        yield made


def extractions(
    source: Path, weights: Mapping[str, Path | None], *, boxes: str = "36"
) -> list[tuple[ExtractSettings, dict[str, str]]]:
    """Settings of the detectors behind the stores that `source` was trained on; see `found_in`.

    Returns:
        For each pass of a detector, its settings, and by the name of each store its rule in `settings.rules`.

    Raises:
        ConfigError: a store does not record how it was made, or `weights` lacks its detector.
    """
    names = {(name if file is not None else f"{name}-random"): (name, file) for name, file in weights.items()}
    places = {name: FeatureStore(Path(place)) for name, place in places_of(source).items() if place}
    # The stores say which detector and rule made them; the picture must be treated alike.
    metas = {name: store.meta for name, store in places.items()}
    if not metas and len(names) == 1 and read_content(find_bundle(source)).get("features") is not None:
        # A converted bundle does not say how its features were made, so the caller decides.
        metas = {"features": FeatureMeta(feature_dim=1, detector=next(iter(names)), box_rule=boxes)}
    for name, meta in metas.items():
        if meta.detector not in names or meta.box_rule == "unknown":
            raise ConfigError(
                f"{places[name].path} was made by the detector {meta.detector!r} with the box rule "
                f"{meta.box_rule!r}, but weights are given for {sorted(names)}. Add weights of that detector,"
                f" or make a store with `diptych extract` and add --features {name}=FOLDER."
            )
    passes = []
    # one pass of a detector makes the stores of all its box numbers, but of one way of selection
    for detector, mode in sorted({(meta.detector, _rule(meta)[1]) for meta in metas.values()}):
        same = (meta.detector == detector and _rule(meta)[1] == mode for meta in metas.values())
        mine = dict(compress(metas.items(), same))
        settings = _settings(*names[detector], mode, list(mine.values()))
        passes.append((settings, {name: _rule(meta)[0] for name, meta in mine.items()}))
    return passes


def _rule(meta: FeatureMeta) -> tuple[str, str]:
    """Split a box rule into the number of boxes and the selection; stores do not name the usual selection."""
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
    """Write `members.json` of a study whose blend is done; returns its path.

    The study's folder may be moved afterwards, the feature stores may not.
    """
    study, out = graph.study, graph.out
    # the models of the last run that does not predict dev: in Vilio's, those trained on dev too
    tests = [run for run, splits in study.runs.items() if study.dev not in splits]
    run = tests[-1] if tests else next(iter(study.runs))
    averages = {name: graph.steps[name] for name in graph.steps["ensemble"].needs}
    # Only members in the blend: others failed, or were not selected.
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
    """Return `path` relative to `folder` if it is inside, so that both can be moved together."""
    return str(Path(path).relative_to(folder) if Path(path).is_relative_to(folder) else path)


def read_tree(source: Path) -> Tree:
    """Read the list of members of a study whose blend is done.

    Raises:
        FormatError: the list is damaged.
        ConfigError: the study's blend needs all memes of a split (`compat`).
    """
    path, advice = source / NAME, "Run the study again, which rewrites it."
    tree = read_json(path, Tree, advice=advice)
    families = {member["family"] for member in tree["members"].values()}
    stores = {member["features"] for member in tree["members"].values()}
    stores |= {member["more_features"] for member in tree["members"].values()}
    # the file may have been edited: check the references, or KeyErrors follow
    if (
        not tree["members"]
        or families != tree["dev"].keys()
        or not stores - {None} <= tree["features"].keys()
    ):
        raise FormatError(f"{path}: members, dev and features do not refer to each other. {advice}")
    if tree["compat"]:
        raise ConfigError(
            f"{path.parent}: the study blends with Vilio's arithmetic (`ensemble.compat`), which needs all "
            "memes of a split for its scales and ranks, so a single meme has no score. Run it again with "
            "ensemble.compat: false."
        )
    return tree


def averaged(tree: Tree, members: Mapping[str, Predictions]) -> dict[str, Predictions]:
    """The average of the members of each family."""
    return {
        family: blend([members[name] for name, about in tree["members"].items() if about["family"] == family])
        for family in tree["dev"]
    }


def dev_of(source: Path, tree: Tree) -> Members:
    """The predictions of the families for dev, on which the blend is fitted."""
    names = tuple(sorted(tree["dev"]))
    found = {"dev": tuple(read_predictions(source / tree["dev"][name]) for name in names)}
    return Members(names=names, predictions=found, dropped={})


def _blended(source: Path, tree: Tree, families: Mapping[str, Predictions]) -> tuple[Predictions, float]:
    known = dev_of(source, tree)
    meme = {"meme": tuple(families[name] for name in known.names)}
    members = replace(known, predictions={**known.predictions, **meme})
    # without folds: their estimate is in the run card
    blends, report = fit_blend(members, tree["labels"], dev="dev", method=tree["method"], folds=0)
    return blends["meme"], report.threshold


def _verdict(
    final: Predictions,
    families: Mapping[str, Predictions] | None = None,
    members: Mapping[str, Predictions] | None = None,
) -> Verdict:
    return Verdict(
        answer=(final.answers or ("",))[0],
        scores={name: float(final.column(name)[0]) for name in final.classes or ()},
        families={name: _last(predictions) for name, predictions in (families or {}).items()},
        members={name: _last(predictions) for name, predictions in (members or {}).items()},
    )


def _last(predictions: Predictions) -> float:
    """Return the score of the last class; of two classes, that is the positive one."""
    return float(predictions.column((predictions.classes or ())[-1])[0])
