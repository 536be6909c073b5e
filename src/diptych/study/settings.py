"""What a study is: a YAML of families and members, read and checked.

    name: mine
    extends: vilio                # another study, whose keys this one changes
    runs: {train: [dev_seen], traindev: [test_seen, test_unseen]}   # trained on: predicts
    dev: dev_seen                 # the labeled split that the blend is fitted on
    features: {small: features/vgattr36}                            # stores, below the data set
    vocabularies: {uncased: vocabulary.txt}
    ensemble: {method: loop, compat: false}
    clean: {known: true}          # how missing views are made, see diptych.clean
    default: [U]                  # families, or members, that run unless others are asked for
    fast: [U50]                   # those of the fast preset
    overrides: []                 # of all members, as `diptych train` takes them
    families:
      U:
        experiment: vilio/U
        overrides: [optim.lr=1e-5]          # of every member of the family
        vocabulary: uncased
        scores: log_probability             # compat: what the original writes
        compat: {traindev: [data.train.twice=dev_seen]}     # compat: more overrides, by run
        pretrain: {experiment: pretrain/vilio_O, features: small, seed: 1, overrides: []}
        members:
          U50: {seed: 43, features: small, more_features: null, overrides: []}

`name`, `runs`, `dev`, `families` and below those `experiment` and `members` must be there.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, cast, get_args

import yaml

from diptych.errors import ConfigError, FormatError, nearest
from diptych.files import require_name

Fitted = Literal["simplex", "greedy", "loop"]
Scores = Literal["probability", "log_probability", "logit"]
TOP = {
    "name", "extends", "runs", "dev", "features", "vocabularies", "ensemble", "clean", "default", "fast",
    "families", "overrides",
}  # fmt: skip
FAMILY = {"experiment", "overrides", "vocabulary", "scores", "compat", "pretrain", "members"}
OWN = {"steps", "data", "lock", "README.md", "members.json"}  # in the folder of a study
MEMBER = {"seed", "features", "more_features", "overrides"}
PRETRAIN = {*MEMBER, "experiment"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One recipe with one seed on one set of features; trained once for each of the study's runs.

    Args:
        features: name of a store of the study, `more_features` of the one that is merged into it.
        overrides: in the words of `diptych train`.
    """

    name: str
    family: str
    experiment: str
    seed: int
    features: str | None
    more_features: str | None
    overrides: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """Members that are averaged, and the pre-training that they all start from, if there is one.

    Args:
        quirks: further overrides of a run, by its name, where the study keeps to the original's arithmetic.
    """

    name: str
    scores: Scores
    members: tuple[Member, ...]
    pretrain: Member | None
    quirks: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """Families, and what becomes of them.

    Args:
        runs: by the view that is trained on, the splits that are predicted then.
        default: names of families or members that are run unless others are asked for.
    """

    name: str
    runs: Mapping[str, tuple[str, ...]]
    dev: str
    features: Mapping[str, str]
    families: tuple[Family, ...]
    method: Fitted = "loop"
    compat: bool = False
    clean: Mapping[str, Any] | None = None
    default: tuple[str, ...] = ()
    fast: tuple[str, ...] = ()
    left_out: tuple[str, ...] = field(default=())

    @property
    def members(self) -> tuple[Member, ...]:
        return tuple(member for family in self.families for member in family.members)

    def select(self, names: Sequence[str] = (), *, seeds: int | None = None) -> "Study":
        """The study of some families or members only.

        Args:
            names: of families and members; none means the study's `default`.
            seeds: at most so many members of each family, the first ones.

        Raises:
            ConfigError: there is no such family or member.
        """
        known = [name for one in self.families for name in (one.name, *(m.name for m in one.members))]
        wanted = tuple(names) or self.default or tuple(known)
        if unknown := [name for name in wanted if name not in known]:
            raise ConfigError(
                f"study {self.name} has no member {unknown[0]!r}.{nearest(unknown[0], known)} "
                f"It has: {', '.join(known)}."
            )
        if seeds is not None and seeds < 1:
            raise ConfigError(f"seeds is {seeds}; expected at least 1 member of each family.")
        families = []
        for family in self.families:
            chosen = [m for m in family.members if family.name in wanted or m.name in wanted][:seeds]
            if chosen:
                families.append(replace(family, members=tuple(chosen)))
        kept = {member.name for family in families for member in family.members}
        left_out = tuple(member.name for member in self.members if member.name not in kept)
        return replace(self, families=tuple(families), left_out=left_out)


def read_study(name: str, find: Callable[[str], Path]) -> Study:
    """Read a study.

    Args:
        find: from the name of a study, or of the one that it extends, to its file.

    Raises:
        FormatError: not YAML.
        ConfigError: names the key that is missing, unknown or of the wrong kind.
    """
    path = find(name)
    tree = _tree(path, find)
    _require(tree, TOP, {"runs", "dev", "families"}, path)
    features = dict(tree.get("features") or {})
    vocabularies = dict(tree.get("vocabularies") or {})
    families = tuple(
        _family(key, node, vocabularies, tuple(tree.get("overrides") or ()), f"{path}: families.{key}")
        for key, node in tree["families"].items()
        if node is not None
    )
    names = [member.name for family in families for member in family.members]
    if twice := [one for one in names if names.count(one) > 1]:
        raise ConfigError(f"{path}: two members are called {twice[0]!r}; expected every name once.")
    runs = {view: tuple(splits) for view, splits in tree["runs"].items() if splits is not None}
    if tree["dev"] not in [split for splits in runs.values() for split in splits]:
        raise ConfigError(f"{path}: dev is {tree['dev']!r}, which no run predicts; expected one of {runs}.")
    for family in families:
        _require(family.quirks, set(runs), set(), f"{path}: families.{family.name}.compat")
    ensemble = dict(tree.get("ensemble") or {})
    _require(ensemble, {"method", "compat"}, set(), f"{path}: ensemble")
    if (method := ensemble.get("method", "loop")) not in get_args(Fitted):
        raise ConfigError(f"{path}: ensemble.method is {method!r}; expected one of {get_args(Fitted)}.")
    _require(tree.get("clean") or {}, {"known", "near"}, set(), f"{path}: clean")
    study = Study(
        name=tree.get("name") or path.stem,
        runs=runs,
        dev=tree["dev"],
        features=features,
        families=families,
        clean=tree.get("clean"),
        default=tuple(tree.get("default") or ()),
        fast=tuple(tree.get("fast") or ()),
        **ensemble,
    )
    _require_names(study, path)
    for member in (*study.members, *(one.pretrain for one in families if one.pretrain)):
        for store in (member.features, member.more_features):
            if store is not None and store not in features:
                raise ConfigError(
                    f"{path}: {member.name} reads the features {store!r}.{nearest(store, features)} "
                    f"The study knows: {', '.join(features)}."
                )
    return study


def _require_names(study: Study, path: Path) -> None:
    """What becomes names of files and folders in the study's folder must not lead out of it."""
    named = [(study.name, "name"), *((run, "a run") for run in study.runs)]
    named += [(split, f"a split of runs.{run}") for run, splits in study.runs.items() for split in splits]
    named += [(family.name, "a family") for family in study.families]
    named += [(member.name, "a member") for member in study.members]
    for name, what in named:
        if require_name(str(name), f"{path}: {what}") in OWN and what == "a member":
            raise ConfigError(f"{path}: {what} is called {name!r}, as the study's own files; choose another.")


def _tree(path: Path, find: Callable[[str], Path], seen: tuple[Path, ...] = ()) -> dict[str, Any]:
    """The keys of a study on top of those of the one it extends."""
    if path in seen:
        raise ConfigError(f"{path}: extends itself; expected another study.")
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise FormatError(f"{path}: not YAML ({' '.join(str(error).split())}).") from error
    if not isinstance(tree, dict):
        raise FormatError(f"{path}: holds {type(tree).__name__}; expected the keys of a study.")
    if (base := tree.get("extends")) is None:
        return tree
    return cast(dict[str, Any], _merged(_tree(find(base), find, (*seen, path)), tree))


def _merged(below: Any, above: Any) -> Any:
    if not isinstance(below, dict) or not isinstance(above, dict):
        return above
    return {**below, **{key: _merged(below.get(key), value) for key, value in above.items()}}


def _require(node: Any, known: set[str], needed: set[str], where: object) -> None:
    if not isinstance(node, Mapping):
        raise ConfigError(f"{where} is {node!r}; expected keys: {', '.join(sorted(known))}.")
    if unknown := sorted(map(str, node.keys() - known)):
        hint = nearest(unknown[0], known)
        raise ConfigError(f"{where}: unknown key {unknown[0]!r}.{hint} Expected: {', '.join(sorted(known))}.")
    if missing := sorted(needed - node.keys()):
        raise ConfigError(f"{where}: {missing[0]} is missing; see docs/howto/vilio.md for the form.")


def _family(
    name: str, node: Any, vocabularies: Mapping[str, str], everyone: Sequence[str], where: str
) -> Family:
    _require(node, FAMILY, {"experiment", "members"}, where)
    shared = [*(node.get("overrides") or ()), *everyone]
    if vocabulary := node.get("vocabulary"):
        if vocabulary not in vocabularies:
            raise ConfigError(
                f"{where}.vocabulary is {vocabulary!r}.{nearest(vocabulary, vocabularies)} "
                f"The study knows: {', '.join(vocabularies)}."
            )
        path = vocabularies[vocabulary]  # "auto", or a file below the data set
        shared.insert(0, f"vocabulary={path if path == 'auto' else f'${{root}}/{path}'}")
    if (scores := node.get("scores", "probability")) not in ("probability", "log_probability", "logit"):
        raise ConfigError(f"{where}.scores is {scores!r}; expected probability, log_probability or logit.")
    members = tuple(
        _member(key, name, one or {}, node["experiment"], shared, f"{where}.members.{key}")
        for key, one in node["members"].items()
    )
    first = node.get("pretrain")
    if first is not None:
        _require(first, PRETRAIN, {"experiment"}, f"{where}.pretrain")
        before = [word for word in shared if word.startswith("vocabulary=")]
        rest = {key: value for key, value in first.items() if key != "experiment"}
        first = _member(f"{name}-pretrain", name, rest, first["experiment"], before, f"{where}.pretrain")
    quirks = {run: tuple(words) for run, words in (node.get("compat") or {}).items()}
    return Family(name=name, scores=scores, members=members, pretrain=first, quirks=quirks)


def _member(name: str, family: str, node: Any, experiment: str, shared: Sequence[str], where: str) -> Member:
    _require(node, MEMBER, set(), where)
    return Member(
        name=str(name),
        family=family,
        experiment=experiment,
        seed=node.get("seed", 1),
        features=node.get("features"),
        more_features=node.get("more_features"),
        overrides=(*shared, *(node.get("overrides") or ())),
    )
