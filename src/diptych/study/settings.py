"""What a study is: a YAML of families and members, read and checked.

    name: mine
    extends: vilio                # another study, whose keys this one changes
    runs: {train: [dev_seen], traindev: [test_seen, test_unseen]}   # trained on: predicts
    dev: dev_seen                 # the labeled split that the blend is fitted on
    features: {small: features/vgattr36}                            # stores, below the data set
    vocabularies: {uncased: vocabulary.txt}
    ensemble: {method: loop, compat: false}
    clean: {known: true}          # how missing views are made, see diptych clean
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

`name`, `runs`, `dev`, `families` and, in each family, `experiment` and `members` are required.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Required, cast

from typing_extensions import TypedDict

from diptych import conf
from diptych.documents import check_shape, read_yaml, shorten
from diptych.errors import ConfigError, FormatError, nearest
from diptych.files import require_name
from diptych.study.chain import Link, read_chain, with_starts

Fitted = Literal["simplex", "greedy", "loop"]
Scores = Literal["probability", "log_probability", "logit"]
OWN = {"steps", "data", "lock", "README.md", "members.json"}  # names that a study uses in its folder
Name = str | int  # YAML reads `50:` as a number


class MemberNode(TypedDict, total=False):
    """YAML of a member, below `families.NAME.members`."""

    seed: int
    features: str | None
    more_features: str | None
    overrides: list[str] | None


class PretrainNode(MemberNode, total=False):
    """YAML of the pre-training that all members of a family start from."""

    experiment: Required[str]


class FamilyNode(TypedDict, total=False):
    """YAML of a family, below `families`."""

    experiment: Required[str]
    overrides: list[str] | None
    vocabulary: str | None
    scores: Scores
    compat: dict[str, list[str] | None] | None
    pretrain: PretrainNode | None
    members: Required[dict[Name, MemberNode | None]]


class EnsembleNode(TypedDict, total=False):
    """YAML of the blend; see `diptych.ensemble.fit_blend`."""

    method: Fitted
    compat: bool


class CleanNode(TypedDict, total=False):
    """YAML of the cleaning; see `diptych.datasets.Split.clean`."""

    known: bool
    near: int


class StudyNode(TypedDict, total=False):
    """YAML of a study."""

    name: str | None
    extends: str | None
    runs: Required[dict[str, list[str] | None]]
    dev: Required[str]
    features: dict[str, str] | None
    vocabularies: dict[str, str] | None
    ensemble: EnsembleNode | None
    clean: CleanNode | None
    default: list[str] | None
    fast: list[str] | None
    families: Required[dict[Name, FamilyNode | None]]
    overrides: list[str] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One experiment with one seed and one feature store; trained once per run of the study.

    Args:
        features: name of a store in `Study.features`.
        more_features: name of a second store, which is merged into the first.
        overrides: overrides of `diptych train`.
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
    """Members that are averaged, and their common pre-training, if any.

    Args:
        scores: what the original writes to its files; used with `Study.compat` only.
        quirks: additional overrides by run, applied with `Study.compat` to reproduce the original.
    """

    name: str
    scores: Scores
    members: tuple[Member, ...]
    pretrain: Member | None
    quirks: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """Families of members, and how they are trained, predicted and blended.

    Args:
        runs: splits to predict, by the view that is trained on.
        dev: labeled split that the blend is fitted on.
        features: folders of feature stores, relative to the data set, by name.
        method: method of the blend; see `diptych.ensemble.fit_blend`.
        compat: reproduce the original's arithmetic and quirks.
        clean: arguments of `Split.clean`, for missing views; None makes no views.
        default: names of the families or members that run if none are named.
        fast: the same for the fast preset.
        left_out: names of the members that `select` left out.
        links: steps of a chain, which has no families.
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
    links: tuple[Link, ...] = ()

    @property
    def members(self) -> tuple[Member, ...]:
        """Members of all families."""
        return tuple(member for family in self.families for member in family.members)

    def select(self, names: Sequence[str] = (), *, seeds: int | None = None) -> "Study":
        """Return a study with some of the families and members.

        Args:
            names: names of families and members; empty means the study's `default`.
            seeds: maximum number of members per family; the first ones are kept.

        Raises:
            ConfigError: a family or member does not exist, or `seeds` is below 1.
        """
        known = [link.name for link in self.links]
        for family in self.families:
            known += [family.name, *(member.name for member in family.members)]
        # What the caller names, then the study's own choice, then everything.
        wanted = tuple(names) or self.default or tuple(known)
        if unknown := [name for name in wanted if name not in known]:
            raise ConfigError(
                f"study {self.name} has no member {unknown[0]!r}.{nearest(unknown[0], known)} "
                f"It has: {', '.join(known)}."
            )
        if seeds is not None and seeds < 1:
            raise ConfigError(f"seeds is {seeds}; expected at least 1 member of each family.")
        if self.links:
            if seeds is not None:
                raise ConfigError(f"study {self.name} is a chain, which has no members; leave seeds out.")
            return replace(self, links=with_starts(self.links, names))
        families = []
        for family in self.families:
            # [:None] keeps all
            chosen = [m for m in family.members if family.name in wanted or m.name in wanted][:seeds]
            if chosen:
                # A family without chosen members has no average and is left out.
                families.append(replace(family, members=tuple(chosen)))
        kept = {member.name for family in families for member in family.members}
        left_out = tuple(member.name for member in self.members if member.name not in kept)
        return replace(self, families=tuple(families), left_out=left_out)


def find_study(name: str) -> Path:
    """Return the file of a study: `name` itself if it is a path to YAML, else one that comes with diptych.

    Raises:
        ConfigError: the file does not exist.
    """
    path = conf.CONF / "study" / f"{name}.yaml"
    if name.endswith((".yaml", ".yml")):
        path = Path(name)
        if not path.is_file():
            raise ConfigError(f"{path} does not exist; expected the YAML file of a study.")
    elif not path.is_file():
        known = conf.names("study")
        raise ConfigError(f"there is no study {name!r}.{nearest(name, known)} There are: {', '.join(known)}.")
    return path


def read_study(name: str, find: Callable[[str], Path] = find_study) -> Study:
    """Read a study.

    Args:
        find: returns the file of a study by name; also called for the study that `extends` names.

    Raises:
        FormatError: not YAML, or a value of the wrong type (names the key).
        ConfigError: a key is missing, unknown or invalid (names the key).
    """
    path = find(name)
    keys = _tree(path, find)
    if "steps" in keys:
        return Study(**read_chain(keys, path), runs={}, dev="", families=())
    tree = _typed(keys, path)
    features, vocabularies = tree.get("features") or {}, tree.get("vocabularies") or {}
    everyone = tree.get("overrides") or []
    families = tuple(
        _family(str(key), node, vocabularies, everyone, f"{path}: families.{key}")
        for key, node in tree["families"].items()
        if node is not None  # null removes a family of the extended study
    )
    study = Study(
        name=tree.get("name") or path.stem,
        # Null removes a run, too.
        runs={view: tuple(splits) for view, splits in tree["runs"].items() if splits is not None},
        dev=tree["dev"],
        features=features,
        families=families,
        clean=cast(Mapping[str, Any] | None, tree.get("clean")),
        default=tuple(tree.get("default") or ()),
        fast=tuple(tree.get("fast") or ()),
        **(tree.get("ensemble") or {}),
    )
    _require_names(study, path)
    _require_consistent(study, path)
    return study


def _typed(tree: Any, path: Path) -> StudyNode:
    """Check the keys of a study, then the types of their values."""
    # level by level first, because the message for an unknown key can then name the nearest known one
    _require(tree, StudyNode, path)
    for key, shape in (("ensemble", EnsembleNode), ("clean", CleanNode)):
        _require(tree.get(key) or {}, shape, f"{path}: {key}")
    for name, family in _items(tree["families"], f"{path}: families"):
        where = f"{path}: families.{name}"
        _require(family, FamilyNode, where)
        if family.get("pretrain") is not None:
            _require(family["pretrain"], PretrainNode, f"{where}.pretrain")
        for member, node in _items(family["members"], f"{where}.members"):
            _require(node, MemberNode, f"{where}.members.{member}")
    return check_shape(tree, StudyNode, where=path)


def _items(node: Any, where: str) -> list[tuple[Any, Any]]:
    """Return the names and nodes below a key; a null node has nothing to check."""
    if not isinstance(node, Mapping):
        raise ConfigError(f"{where} is {shorten(node)}; expected a mapping with names as keys.")
    return [(name, value) for name, value in node.items() if value is not None]


def _require_consistent(study: Study, path: Path) -> None:
    names = [member.name for member in study.members]  # names of folders, so unique over all families
    if twice := [name for name in names if names.count(name) > 1]:
        raise ConfigError(f"{path}: two members are called {twice[0]!r}; expected every name once.")
    if study.dev not in [split for splits in study.runs.values() for split in splits]:
        raise ConfigError(
            f"{path}: dev is {study.dev!r}, which no run predicts; expected one of {shorten(study.runs)}."
        )
    for family in study.families:
        if unknown := [run for run in family.quirks if run not in study.runs]:
            raise ConfigError(
                f"{path}: families.{family.name}.compat: unknown key {unknown[0]!r}."
                f"{nearest(unknown[0], study.runs)} Expected: {', '.join(study.runs)}."
            )
    for member in (*study.members, *(family.pretrain for family in study.families if family.pretrain)):
        for store in (member.features, member.more_features):
            if store is not None and store not in study.features:
                raise ConfigError(
                    f"{path}: {member.name}: unknown features {store!r}.{nearest(store, study.features)} "
                    f"Expected: {', '.join(study.features)}."
                )


def _require_names(study: Study, path: Path) -> None:
    """Check the names that become files and folders: none may lead out of the study's folder."""
    named = [(study.name, "name"), *((run, "a run") for run in study.runs)]
    named += [(split, f"a split of runs.{run}") for run, splits in study.runs.items() for split in splits]
    named += [(family.name, "a family") for family in study.families]
    named += [(member.name, "a member") for member in study.members]
    for name, what in named:
        if require_name(str(name), f"{path}: {what}") in OWN and what == "a member":
            raise ConfigError(f"{path}: {what} is called {name!r}, a file of every study; rename the member.")


def _tree(path: Path, find: Callable[[str], Path], seen: tuple[Path, ...] = ()) -> dict[str, Any]:
    """Return the keys of a study, merged over those of the study it extends."""
    # Two studies may extend each other.
    if path in seen:
        raise ConfigError(f"{path}: extends itself; expected another study.")
    tree: Any = read_yaml(path, object)
    if not isinstance(tree, dict):
        raise FormatError(f"{path}: contains {type(tree).__name__}; expected the keys of a study.")
    if (base := tree.get("extends")) is None:
        return tree
    if not isinstance(base, str):
        raise FormatError(f"{path}: extends is {shorten(base)}; expected the name of a study.")
    return cast(dict[str, Any], _merged(_tree(find(base), find, (*seen, path)), tree))


def _merged(below: Any, above: Any) -> Any:
    """Merge mappings key by key, recursively; any other value of `above` replaces that of `below`."""
    if not isinstance(below, dict) or not isinstance(above, dict):
        return above
    # keys keep the order of `below`, and so do the members of an extended study
    return {**below, **{key: _merged(below.get(key), value) for key, value in above.items()}}


def _require(node: Any, shape: Any, where: object) -> None:
    """Check that `node` is a mapping with all required keys of `shape` and no unknown ones."""
    known: list[str] = sorted(shape.__required_keys__ | shape.__optional_keys__)
    if not isinstance(node, Mapping):
        raise ConfigError(f"{where} is {shorten(node)}; expected keys: {', '.join(known)}.")
    if unknown := sorted(map(str, node.keys() - known)):
        hint = nearest(unknown[0], known)
        raise ConfigError(f"{where}: unknown key {shorten(unknown[0])}.{hint} Expected: {', '.join(known)}.")
    if missing := sorted(shape.__required_keys__ - node.keys()):
        raise ConfigError(f"{where}: {missing[0]} is missing; see docs/howto/vilio.md for an example.")


def _family(
    name: str, node: FamilyNode, vocabularies: Mapping[str, str], everyone: Sequence[str], where: str
) -> Family:
    shared = [*(node.get("overrides") or ()), *everyone]
    if vocabulary := node.get("vocabulary"):
        if vocabulary not in vocabularies:
            raise ConfigError(
                f"{where}.vocabulary is {vocabulary!r}.{nearest(vocabulary, vocabularies)} "
                f"Expected: {', '.join(vocabularies)}."
            )
        path = vocabularies[vocabulary]  # "auto", or a file below the data set
        # first, so that overrides of a family or member win; Hydra fills in `${root}`
        shared.insert(0, f"vocabulary={path if path == 'auto' else f'${{root}}/{path}'}")
    first, pretrain = node.get("pretrain"), None
    if first is not None:
        # the members start from its weights, so both need the same vocabulary; other overrides may not fit
        before = [word for word in shared if word.startswith("vocabulary=")]
        pretrain = _member(f"{name}-pretrain", name, first, first["experiment"], before)
    return Family(
        name=name,
        scores=node.get("scores", "probability"),
        members=tuple(
            _member(str(key), name, value or {}, node["experiment"], shared)
            for key, value in node["members"].items()
        ),
        pretrain=pretrain,
        quirks={run: tuple(words or ()) for run, words in (node.get("compat") or {}).items()},
    )


def _member(name: str, family: str, node: MemberNode, experiment: str, shared: Sequence[str]) -> Member:
    return Member(
        name=name,
        family=family,
        experiment=experiment,
        seed=node.get("seed", 1),
        features=node.get("features"),
        more_features=node.get("more_features"),
        overrides=(*shared, *(node.get("overrides") or ())),
    )
