"""The steps of a study, each named by the content of all that it depends on.

The key of a step is a hash of its resolved settings, of the checksums of its input files and of the keys of
the steps it needs. A step whose key has a record is done; a changed setting changes the keys downstream of it
and no others. Paths are no part of a key, so a study may move.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from diptych.bundle import find_bundle
from diptych.data.inputs import digest
from diptych.datasets import Data, find_data
from diptych.errors import ConfigError, FormatError
from diptych.features import FeatureStore
from diptych.recipe import compose
from diptych.study.progress import Checksums
from diptych.study.settings import Member, Study

NO_PART = ("out", "progress", "loggers", "overwrite")  # of what a run computes


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One thing to do.

    Args:
        lane: steps of one lane run after each other, in one process.
        needs: names of the steps that come before.
        settings: of a training run its configuration; else what the kind of step takes.
        folder: where it writes.
    """

    name: str
    kind: Literal["pretrain", "train", "predict", "average", "ensemble"]
    lane: str
    needs: tuple[str, ...] = ()
    settings: Mapping[str, Any]
    key: str
    folder: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Graph:
    """A planned study; `wrap_up` adds the steps that depend on which members succeed.

    Args:
        root: folder of the annotation files.
        data: the data set that `root` holds.
        limit: memes of every split; None means all.
        steps: by name, in the order in which one process does them.
    """

    study: Study
    root: Path
    out: Path
    data: Data
    limit: int | None = None
    steps: dict[str, Step] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Planner:
    """What planning looks at.

    Args:
        home: folder that the names of feature stores are below; differs from `root` after cleaning.
        extra: words for every training run.
        bundles: trained models by MEMBER/RUN, instead of training them.
        predict: `precision`, `batch_size` and `device` of predictions.
    """

    checksums: Checksums
    home: Path
    extra: tuple[str, ...] = ()
    bundles: Path | None = None
    predict: Mapping[str, Any] = field(default_factory=dict)


def plan(
    study: Study,
    *,
    root: Path,
    out: Path,
    limit: int | None,
    planner: Planner,
    data: Data | None = None,
) -> Graph:
    """All steps of all members.

    Args:
        data: what `root` holds; by default what its layout says.

    Raises:
        ConfigError: a split, a feature store or a bundle is missing.
    """
    graph = Graph(study=study, root=root, out=out, data=data or find_data(root), limit=limit)
    for family in study.families:
        if family.pretrain is not None and planner.bundles is None:
            _add_training(graph, planner, family.pretrain, "pretrain")
        start = graph.steps.get(f"{family.name}-pretrain/pretrain")
        for member in family.members:
            for view, splits in study.runs.items():
                if planner.bundles is None:
                    quirks = family.quirks.get(view, ()) if study.compat else ()
                    changed = replace(member, overrides=(*member.overrides, *quirks))
                    _add_training(graph, planner, changed, view, start=start)
                _add_predictions(graph, planner, member, view, splits)
    return graph


def wrap_up(graph: Graph, finished: Sequence[str]) -> Graph:
    """The graph with averages and ensemble of the members whose predictions are all finished.

    Args:
        finished: names of steps.
    """
    study, steps, done = graph.study, dict(graph.steps), set(finished)
    averages = []
    for family in study.families:
        groups = [[f"{member.name}/{view}/predict" for view in study.runs] for member in family.members]
        needs = tuple(name for group in groups if done.issuperset(group) for name in group)
        if needs:
            names = sorted({steps[name].lane for name in needs})
            settings: dict[str, Any] = {"members": names, "scores": family.scores, "compat": study.compat}
            step = _step(graph, f"{family.name}/average", "average", settings, needs=needs, known=steps)
            steps[step.name] = step
            averages.append(step.name)
    if averages:
        settings = {"method": study.method, "compat": study.compat, "dev": study.dev}
        step = _step(graph, "ensemble", "ensemble", settings, needs=tuple(averages), known=steps)
        steps[step.name] = step
    return replace(graph, steps=steps)


def _add_training(
    graph: Graph, planner: Planner, member: Member, view: str, *, start: Step | None = None
) -> None:
    store, more = (_store(graph, planner, name) for name in (member.features, member.more_features))
    words = [
        f"experiment={member.experiment}",
        f"root={graph.root}",
        f"seed={member.seed}",
        f"data.train.split={view}",
        f"data.validate.split={graph.study.dev}",
        *([] if store is None else [f"features={store}"]),
        *([] if more is None else [f"more_features={more}"]),
        *(
            []
            if graph.limit is None
            else [f"data.{one}.limit={graph.limit}" for one in ("train", "validate")]
        ),
        *member.overrides,
        *planner.extra,
    ]
    config = compose(words)
    inputs = {
        "train": _split(graph, planner, view),
        "validate": _split(graph, planner, graph.study.dev),
        "features": [None if path is None else FeatureStore(path).meta.checksum for path in (store, more)],
        "files": [_file(planner, config["vocabulary"], graph.root), *_weights(planner, config)],
    }
    content = {key: value for key, value in config.items() if key not in NO_PART}
    content["data"] = {key: value for key, value in config["data"].items() if key != "workers"}
    places = {str(store): "FEATURES", str(more): "MORE", str(graph.root): "ROOT"}
    kind: Literal["pretrain", "train"] = "pretrain" if view == "pretrain" else "train"
    name = f"{member.name}/{view}"
    needs = () if start is None else (start.name,)
    key = _key(graph.steps, kind, _without(content, places), inputs, needs)
    folder = graph.out / member.name / f"{view}-{key}"
    if start is not None:
        config["weights"] = {**config["weights"], "model": str(start.folder)}
    settings = {**config, "out": str(folder), "progress": False, "loggers": [], "name": name}
    graph.steps[name] = Step(
        name=name, kind=kind, lane=member.name, needs=needs, settings=settings, key=key, folder=folder
    )


def _add_predictions(
    graph: Graph, planner: Planner, member: Member, view: str, splits: Sequence[str]
) -> None:
    trained = graph.steps.get(f"{member.name}/{view}")
    bundle = trained.folder if trained is not None else _given_bundle(planner, member, view)
    store, more = (_store(graph, planner, name) for name in (member.features, member.more_features))
    inputs = {
        "splits": [_split(graph, planner, split) for split in splits],
        "features": [None if path is None else FeatureStore(path).meta.checksum for path in (store, more)],
        "bundle": None if trained is not None else planner.checksums(find_bundle(bundle)),
    }
    settings = {**planner.predict, "splits": list(splits), "limit": graph.limit}
    places = {"bundle": str(bundle), "features": _text(store), "more_features": _text(more)}
    name, needs = f"{member.name}/{view}/predict", () if trained is None else (trained.name,)
    device = {"device": None}  # the same numbers anywhere, up to rounding
    key = _key(graph.steps, "predict", {**settings, **device}, inputs, needs)
    graph.steps[name] = Step(
        name=name,
        kind="predict",
        lane=member.name,
        needs=needs,
        settings={**settings, **places, "root": str(graph.root)},
        key=key,
        folder=graph.out / member.name / f"predictions-{key}",
    )


def _step(
    graph: Graph,
    name: str,
    kind: Literal["average", "ensemble"],
    settings: Mapping[str, Any],
    *,
    needs: tuple[str, ...],
    known: Mapping[str, Step],
) -> Step:
    key = _key(known, kind, settings, {}, needs)
    folder = graph.out / f"{name.replace('/', '-')}-{key}"
    return Step(name=name, kind=kind, lane="", needs=needs, settings=settings, key=key, folder=folder)


def _key(known: Mapping[str, Step], kind: str, settings: Any, inputs: Any, needs: Sequence[str]) -> str:
    return digest([kind, settings, inputs, [known[name].key for name in needs]])[:12]


def _without(content: Any, places: Mapping[str, str]) -> Any:
    """The settings with the paths of inputs, whose content counts, replaced by words."""
    if isinstance(content, Mapping):
        return {key: _without(value, places) for key, value in content.items()}
    if isinstance(content, str):
        for place, word in places.items():
            content = content.replace(place, word) if place != "None" else content
    return content


def _store(graph: Graph, planner: Planner, name: str | None) -> Path | None:
    if name is None:
        return None
    path = planner.home / graph.study.features[name]
    if not path.is_dir():
        raise ConfigError(
            f"{path}: the study's features {name!r} are not there; make them with `diptych import`, or name "
            "another folder under `features` of a study that extends this one."
        )
    return path


def _split(graph: Graph, planner: Planner, split: str) -> str:
    paths = graph.data.find_files(graph.root, split)
    return " ".join(map(planner.checksums, paths))


def _file(planner: Planner, name: str, root: Path) -> str | None:
    path = root / "vocabulary.txt" if name == "auto" else Path(name)
    return planner.checksums(path) if path.is_file() else None


def _weights(planner: Planner, config: Mapping[str, Any]) -> list[str | None]:
    """Checksums of local files to start from; what is downloaded goes by its name."""
    given = [source for _, source in sorted(config["weights"].items()) if source]
    return [planner.checksums(Path(source)) if Path(source).exists() else source for source in given]


def _given_bundle(planner: Planner, member: Member, view: str) -> Path:
    assert planner.bundles is not None, "else it is trained"
    home = planner.bundles / member.name
    found = []
    for place in (home / view, *sorted(home.glob(f"{view}-*"))):
        try:
            found.append(find_bundle(place))
        except FormatError:
            continue
    if len(found) != 1:
        raise ConfigError(
            f"{home} holds {len(found)} bundles of the run {view!r}; expected one, as {home / view} or as a "
            "study leaves it. Leave the member out with members=..., or remove the others."
        )
    return found[0]


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)
