"""Steps of a study as a graph, with keys that depend on content.

The key of a step is a hash of its resolved settings, of the checksums of its input files and of the keys of
the steps it needs. A step is done if there is a record with its key. A changed setting changes only the keys
of the steps that depend on it. Keys contain no paths, so a study's folder can be moved.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from diptych.bundle import find_bundle
from diptych.data.inputs import digest
from diptych.datasets import Data, find_data, split_class
from diptych.errors import ConfigError, FormatError
from diptych.features import FeatureStore
from diptych.recipe import compose
from diptych.recipe.vocabulary import given_vocabulary
from diptych.study.chain import Link
from diptych.study.progress import Checksums
from diptych.study.settings import Member, Study

NO_PART = ("out", "progress", "loggers", "overwrite")  # settings that do not change the result of a run


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One unit of work.

    Args:
        lane: name of the member, whose steps run in sequence in one process; empty for averages and blend.
        needs: names of the steps that must be done first.
        settings: configuration of a training run; for other kinds, arguments of the step.
        key: first 12 hexadecimal digits of the hash of everything that the result depends on.
        folder: folder that the step writes.
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
    """A planned study. `wrap_up` adds the averages and the blend once it is known which members succeeded.

    Args:
        root: folder of the annotation files.
        data: data set in `root`.
        limit: maximum number of memes per split; None means all.
        steps: steps by name, in the order of execution in a single process.
    """

    study: Study
    root: Path
    out: Path
    data: Data
    limit: int | None = None
    steps: dict[str, Step] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Planner:
    """Inputs of `plan` besides the study and its data.

    Args:
        home: folder of the data set, which contains the feature stores; `root` differs if views were cleaned.
        extra: overrides for every training run.
        bundles: folder of trained models as MEMBER/RUN, used instead of training.
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
    """Return the graph of all training and prediction steps.

    Args:
        data: data set in `root`; None detects it.

    Raises:
        ConfigError: a split, a feature store or a bundle is missing.
    """
    graph = Graph(study=study, root=root, out=out, data=data or find_data(root), limit=limit)
    for link in study.links:
        _add_link(graph, planner, link)
    for family in study.families:
        if family.pretrain is not None and planner.bundles is None:
            _add_training(graph, planner, family.pretrain, "pretrain")
        # None with given bundles, and for a family without pre-training.
        start = graph.steps.get(f"{family.name}-pretrain/pretrain")
        for member in family.members:
            for view, splits in study.runs.items():
                # order matters: a prediction looks up the training step of its run
                if planner.bundles is None:
                    quirks = family.quirks.get(view, ()) if study.compat else ()
                    changed = replace(member, overrides=(*member.overrides, *quirks))
                    _add_training(graph, planner, changed, view, start=start)
                # With given bundles too: these are trained already.
                _add_predictions(graph, planner, member, view, splits)
    return graph


def wrap_up(graph: Graph, finished: Sequence[str]) -> Graph:
    """Return the graph with the average and ensemble steps added.

    Args:
        finished: names of the finished steps; only members whose predictions are all among them take part.
    """
    study, steps, done = graph.study, dict(graph.steps), set(finished)
    averages = []
    for family in study.families:
        groups = [[f"{member.name}/{view}/predict" for view in study.runs] for member in family.members]
        # A member counts with all of its runs or not at all: dev and test must come from the same members.
        needs = tuple(name for group in groups if done.issuperset(group) for name in group)
        if needs:
            names = sorted({steps[name].lane for name in needs})  # a lane is a member's name
            settings: dict[str, Any] = {"members": names, "scores": family.scores, "compat": study.compat}
            step = _step(graph, f"{family.name}/average", "average", settings, needs=needs, known=steps)
            steps[step.name] = step
            averages.append(step.name)
    # Without a complete family there is nothing to blend.
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
        *_limits(graph),
        *member.overrides,
        *planner.extra,  # last, so that the user's overrides win
    ]
    config = compose(words)
    # content instead of paths: the same files elsewhere give the same key
    inputs = {
        "train": _split(graph, planner, view),
        "validate": _split(graph, planner, graph.study.dev),
        "features": [None if path is None else FeatureStore(path).meta.checksum for path in (store, more)],
        "files": [_vocabulary(planner, config), *_weights(planner, config)],
    }
    # stores before the root: a store below the root must become FEATURES, not ROOT/...
    places = {str(store): "FEATURES", str(more): "MORE", str(graph.root): "ROOT"}
    kind: Literal["pretrain", "train"] = "pretrain" if view == "pretrain" else "train"
    name, starts = f"{member.name}/{view}", () if start is None else (start,)
    _add_run(graph, config, inputs, places, name=name, kind=kind, lane=member.name, starts=starts)


def _add_link(graph: Graph, planner: Planner, link: Link) -> None:
    """Add one run of a chain, which trains on the splits of its own experiment."""
    store, root = _store(graph, planner, link.features), graph.root / link.root
    words = link.vocabulary if link.vocabulary in (None, "auto") else f"{planner.home / link.vocabulary}"
    config = compose(
        [
            f"experiment={link.experiment}",
            f"root={root}",
            f"seed={link.seed}",
            *([] if store is None else [f"features={store}"]),
            *([] if words is None else [f"vocabulary={words}"]),
            *_limits(graph),
            *link.overrides,
            *planner.extra,
        ]
    )
    stores = config["features"]
    inputs = {
        "data": [_annotations(planner, node) for node in _splits(config["data"])],
        "features": [
            FeatureStore(path).meta.checksum if path.is_dir() else None
            for path in map(Path, stores.values() if isinstance(stores, Mapping) else [stores or ""])
        ],
        "files": [_vocabulary(planner, config), *_weights(planner, config)],
    }
    places = {str(store): "FEATURES", str(graph.root): "ROOT"}
    starts = [graph.steps[name] for name in link.start]
    _add_run(graph, config, inputs, places, name=link.name, kind="train", lane=link.name, starts=starts)


def _limits(graph: Graph) -> list[str]:
    return [f"data.{part}.limit={graph.limit}" for part in ("train", "validate") if graph.limit is not None]


def _splits(data: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The nodes of all splits of a run, of the corpora beside the first one, too."""
    return [data["train"], data["validate"], *(data.get("beside") or {}).values()]


def _annotations(planner: Planner, node: Mapping[str, Any]) -> str:
    """Checksums of the files of a split, found without reading it."""
    given = {key: value for key, value in node.items() if key not in ("_target_", "root", "split", "limit")}
    kind = split_class(node.get("_target_"))
    return " ".join(map(planner.checksums, kind.find_files(Path(node["root"]), node["split"], **given)))


def _add_run(
    graph: Graph,
    config: Mapping[str, Any],
    inputs: Mapping[str, Any],
    places: Mapping[str, str],
    *,
    name: str,
    kind: Literal["pretrain", "train"],
    lane: str,
    starts: Sequence[Step],
) -> None:
    """Add a training run to the graph.

    Args:
        inputs: checksums of what it reads.
        places: words that replace paths in its settings.
        starts: steps whose weights it starts from, in the order of loading.
    """
    # What does not change weights stays out of the key, so that changing it repeats nothing.
    content = {key: value for key, value in config.items() if key not in NO_PART}
    content["data"] = {key: value for key, value in config["data"].items() if key != "workers"}
    needs = tuple(start.name for start in starts)
    key = _key(graph.steps, kind, _without(content, places), inputs, needs)
    folder = graph.out / f"{name}-{key}"  # of a member below its own folder, as MEMBER/RUN-KEY
    weights = config["weights"]
    # after the key, which must not contain a path; the keys of `starts` are in it by `needs`
    if starts:
        sources = [str(start.folder) for start in starts]
        weights = {**weights, "model": sources if len(sources) > 1 else sources[0]}
    # several steps may run at once: their progress bars would mix
    settings = {**config, "weights": weights, "out": str(folder), "progress": False, "loggers": []}
    graph.steps[name] = Step(
        name=name,
        kind=kind,
        lane=lane,
        needs=needs,
        settings={**settings, "name": name},
        key=key,
        folder=folder,
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
    device = {"device": None}  # not part of the key: results of devices differ by rounding only
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
    # 48 bits: short enough for folder names, and a study has too few steps for collisions
    return digest([kind, settings, inputs, [known[name].key for name in needs]])[:12]


def _without(content: Any, places: Mapping[str, str]) -> Any:
    """Replace the paths of inputs in the settings by fixed words; their content enters the key instead."""
    if isinstance(content, Mapping):
        return {key: _without(value, places) for key, value in content.items()}
    if isinstance(content, str):
        for place, word in places.items():  # in the order given: see `places` in _add_training()
            content = content.replace(place, word) if place != "None" else content  # no such store
    return content


def _store(graph: Graph, planner: Planner, name: str | None) -> Path | None:
    if name is None:
        return None
    path = planner.home / graph.study.features[name]
    if not path.is_dir():
        raise ConfigError(
            f"{path} does not exist; expected the study's features {name!r}. Make them with `diptych import`,"
            " or write a study that extends this one and set another folder under `features`."
        )
    return path


def _split(graph: Graph, planner: Planner, split: str) -> str:
    paths = graph.data.find_files(graph.root, split)
    return " ".join(map(planner.checksums, paths))


def _vocabulary(planner: Planner, config: Mapping[str, Any]) -> str | None:
    if (name := config["vocabulary"]) != "auto":
        path: Path | None = Path(name)
    else:
        path = given_vocabulary(config["processor"].get("text", {}), Path(config["root"]))
    return planner.checksums(path) if path is not None and path.is_file() else None


def _weights(planner: Planner, config: Mapping[str, Any]) -> list[str | None]:
    """Return checksums of local starting weights, and the names of those that are downloaded."""
    several = [
        source if isinstance(source, list) else [source] for _, source in sorted(config["weights"].items())
    ]
    given = [source for sources in several for source in sources if source]
    return [planner.checksums(Path(source)) if Path(source).exists() else source for source in given]


def _given_bundle(planner: Planner, member: Member, view: str) -> Path:
    assert planner.bundles is not None, "else it is trained"
    home = planner.bundles / member.name
    bundles = []
    for place in (home / view, *sorted(home.glob(f"{view}-*"))):  # as given by hand, or VIEW-KEY of a study
        try:
            bundles.append(find_bundle(place))
        except FormatError:  # a run that has no bundle yet
            continue
    if len(bundles) != 1:
        raise ConfigError(
            f"{home} holds {len(bundles)} bundles of the run {view!r}; expected one, in {home / view} or in "
            "a run folder of a study. Leave the member out with members=..., or remove the others."
        )
    return bundles[0]


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)
