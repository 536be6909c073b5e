"""Data sets by name, and which one a folder holds. The names are those of the files in `conf/data`."""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from diptych.datasets.base import Split
from diptych.documents import read_yaml, shorten
from diptych.errors import ConfigError, DiptychError, FormatError, nearest
from diptych.files import atomic_folder, require_new
from diptych.types import Progress

HERE = "diptych.datasets."
KIND = "a world"


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """A data set that any split can be opened of.

    Args:
        node: `_target_`, a subclass of `Split`, and its settings.
        why: what decided that it is this one.
        train: and `validate`: names of the splits that a run takes by default.
    """

    node: Mapping[str, Any]
    why: str
    train: str = "train"
    validate: str = "dev"
    trust: Collection[str] = ()

    @property
    def kind(self) -> type[Split]:
        return split_class(self.node.get("_target_"), trust=self.trust)

    @property
    def settings(self) -> dict[str, Any]:
        return {key: value for key, value in self.node.items() if key != "_target_"}

    def splits(self, root: Path) -> tuple[str, ...]:
        with _wrong_settings(self.kind, self.settings):
            return self.kind.splits(root, **self.settings)

    def find_files(self, root: Path, split: str) -> tuple[Path, ...]:
        """The annotation files of a split, without reading them.

        Raises:
            ConfigError: there is no such split.
        """
        with _wrong_settings(self.kind, self.settings):
            return self.kind.find_files(root, split, **self.settings)

    def open(self, root: Path, split: str, **more: Any) -> Split:
        return open_split(self.node, root, split, trust=self.trust, **more)

    def open_labeled(self, root: Path, split: str, answers: Path | None = None) -> Split:
        """The split with its labels, withheld ones from `answers` or from where the data set keeps them."""
        beside = self.kind.answers_file(root, split)
        if answers is None and beside is not None and beside.exists():
            answers = beside
        return self.open(root, split, **({} if answers is None else {"answers": answers}))


def open_split(
    node: Mapping[str, Any], root: Path | str, split: str, *, trust: Collection[str] = (), **more: Any
) -> Split:
    """Open a split of the data set that a node describes, as bundles and prediction files hold it.

    Args:
        trust: further module prefixes whose subclasses of `Split` may be opened.
        more: arguments for this time, such as `limit` or `answers`.

    Raises:
        ConfigError: the node names no data set, or the split does not exist.
        FormatError: a file is damaged.
    """
    kind = split_class(node.get("_target_"), trust=trust)
    settings = {key: value for key, value in node.items() if key != "_target_"}
    with _wrong_settings(kind, settings):
        return kind(root, split, **settings, **more)


@contextmanager
def _wrong_settings(kind: type[Split], settings: Mapping[str, Any]) -> Iterator[None]:
    """Settings may come from a file of a stranger, with values of any type."""
    try:
        yield
    except DiptychError:
        raise
    except (TypeError, ValueError, AttributeError, KeyError) as error:
        raise ConfigError(f"{kind.name} cannot be opened with {shorten(dict(settings))}: {error}.") from error


def split_class(target: Any, *, trust: Collection[str] = ()) -> type[Split]:
    """The class that a node names: one of `diptych.datasets`, or of a trusted module.

    Raises:
        ConfigError: it is none.
    """
    found: Any = None
    if isinstance(target, str) and target.startswith((HERE, *(f"{prefix}." for prefix in trust))):
        try:
            found = resolve_name(target)
        except (ImportError, AttributeError, ValueError):
            found = None
    if not (isinstance(found, type) and issubclass(found, Split)):
        raise ConfigError(
            f"{shorten(target)} is no data set; expected a subclass of Split in diptych.datasets."
        )
    return found


@cache
def data_names() -> tuple[str, ...]:
    """Names of all data sets."""
    folder = files("diptych.conf") / "data"
    return tuple(sorted(Path(one.name).stem for one in folder.iterdir() if one.name.endswith(".yaml")))


def named_data(name: str) -> Data:
    """The data set of a name.

    Raises:
        ConfigError: there is none; lists all.
    """
    known = data_names()
    if name not in known:
        raise ConfigError(
            f"there is no data set {name!r}.{nearest(name, known)} There are: {', '.join(known)}."
        )
    tree = _merged(name)
    data = tree["data"]
    train = {
        key: _filled(value, data) for key, value in data["train"].items() if key not in ("root", "split")
    }
    return Data(
        node=train,
        why=f"--data {name}",
        train=data["train"]["split"],
        validate=data["validate"]["split"],
    )


def find_data(root: Path | None, *, name: str | None = None, node: Any = None, where: str = "") -> Data:
    """Which data set `root` holds: that of `name`, else of `node`, else the first that recognizes the folder.

    Args:
        node: what a bundle or a prediction file remembers.
        where: that bundle or file, for people.

    Raises:
        ConfigError: none fits.
    """
    if name is not None:
        named = named_data(name)
        if isinstance(node, Mapping) and name == "table" and split_class(node.get("_target_")) is named.kind:
            return Data(node=node, why=f"--data {name}, with the columns of {where}")
        return named
    if node is not None:
        if not isinstance(node, Mapping):
            raise FormatError(f"{where}: its data set is {shorten(node)}; expected a class and its settings.")
        return Data(node=node, why=where)
    if root is None:
        raise ConfigError("nothing tells the data set; say --data NAME.")
    if not root.is_dir():
        raise ConfigError(f"{root} is not a folder; expected the root of a data set.")
    for known in data_names():
        data = named_data(known)
        if data.kind.name == known and data.kind.recognizes(root):
            return Data(node=data.node, why=f"the layout of {root}", train=data.train, validate=data.validate)
    raise ConfigError(
        f"{root} has the layout of no data set. Say --data NAME, one of {', '.join(data_names())}."
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class WorldReport:
    """What was made: `splits` counts the examples of each split."""

    root: Path
    size: int
    seed: int
    splits: dict[str, int]


def fabricate(
    out: Path | str,
    data: str = "hateful_memes",
    *,
    size: int = 2000,
    seed: int = 0,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> WorldReport:
    """Make the official files of a data set from a miniature world, with pictures, regions and a vocabulary.

    Same seed, same bytes.

    Args:
        data: a name of `data_names`.
        size: number of memes; a multiple of four.
        overwrite: replace `out`, if it is such a folder.
        progress: called with the number of finished memes and `size`.

    Raises:
        ConfigError: the size is impossible, something else stands at `out`, or the data set has no miniature.
    """
    out, found = Path(out), named_data(data)
    require_new(out, overwrite=overwrite, kind=KIND)
    with atomic_folder(out, kind=KIND, overwrite=overwrite) as folder:
        splits = found.kind.fabricate(
            folder,
            size=size,
            seed=seed,
            progress=progress,
            names=(found.train, found.validate),
            **found.settings,
        )
    return WorldReport(root=out, size=size, seed=seed, splits=splits)


@cache
def _merged(name: str) -> dict[str, Any]:
    """The `data` of a configuration file and of the files of this group that it begins with."""
    with_path = Path(str(files("diptych.conf") / "data" / f"{name}.yaml"))
    tree: Any = read_yaml(with_path, dict[str, Any])
    merged: dict[str, Any] = {}
    for base in tree.get("defaults", ()):
        if isinstance(base, str) and base != "_self_":
            merged = _joined(merged, _merged(base))
    return _joined(merged, {"data": tree["data"]})


def _joined(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(one)
    for key, value in other.items():
        both = isinstance(value, Mapping) and isinstance(result.get(key), Mapping)
        result[key] = _joined(result[key], value) if both else value
    return result


def _filled(value: Any, data: Mapping[str, Any]) -> Any:
    """`${data.NAME}` stands for another key of the group."""
    if isinstance(value, str) and value.startswith("${data.") and value.endswith("}"):
        return data[value[7:-1]]
    return value
