"""Finds data sets by name or by the layout of a folder. Names are those of the files in `conf/data`."""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, reduce
from importlib.resources import files
from operator import getitem
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
    """A data set, of which splits can be opened.

    Args:
        node: `_target_` (a subclass of `Split`) and its settings.
        why: how the data set was determined, for messages.
        train: name of the default training split; `validate` is the default validation split.
        trust: further module prefixes whose subclasses of `Split` may be opened.
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
        """Return the annotation files of a split without reading them.

        Raises:
            ConfigError: there is no such split.
        """
        with _wrong_settings(self.kind, self.settings):
            return self.kind.find_files(root, split, **self.settings)

    def open(self, root: Path | str, split: str, **more: Any) -> Split:
        return open_split(self.node, root, split, trust=self.trust, **more)

    def open_labeled(self, root: Path | str, split: str, answers: Path | None = None) -> Split:
        """Open a split with labels; withheld labels come from `answers` or the data set's answers file."""
        # The user's file comes first; the one beside the split is what `fabricate` writes.
        beside = self.kind.answers_file(Path(root), split)
        if answers is None and beside is not None and beside.exists():
            answers = beside
        return self.open(root, split, **({} if answers is None else {"answers": answers}))


def open_split(
    node: Mapping[str, Any], root: Path | str, split: str, *, trust: Collection[str] = (), **more: Any
) -> Split:
    """Open a split of the data set that a node describes. Bundles and prediction files store such nodes.

    Args:
        trust: further module prefixes whose subclasses of `Split` may be opened.
        more: additional arguments, such as `limit` or `answers`.

    Raises:
        ConfigError: the node does not name a data set, or the split does not exist.
        FormatError: a file is damaged.
    """
    kind = split_class(node.get("_target_"), trust=trust)
    settings = {key: value for key, value in node.items() if key != "_target_"}
    with _wrong_settings(kind, settings):
        return kind(root, split, **settings, **more)


@contextmanager
def _wrong_settings(kind: type[Split], settings: Mapping[str, Any]) -> Iterator[None]:
    """Turn errors of invalid settings into ConfigError; untrusted files may have values of any type."""
    try:
        yield
    # Already says what is wrong and where.
    except DiptychError:
        raise
    except (TypeError, ValueError, AttributeError, KeyError) as error:
        raise ConfigError(f"{kind.name} cannot be opened with {shorten(dict(settings))}: {error}.") from error


def split_class(target: Any, *, trust: Collection[str] = ()) -> type[Split]:
    """Import the class that a node names, from `diptych.datasets` or a trusted module.

    Raises:
        ConfigError: there is no such class.
    """
    kind: Any = None
    # The prefix is checked before the import, which runs code.
    if isinstance(target, str) and target.startswith((HERE, *(f"{prefix}." for prefix in trust))):
        try:
            kind = resolve_name(target)
        except (ImportError, AttributeError, ValueError):
            kind = None
    if not (isinstance(kind, type) and issubclass(kind, Split)):
        raise ConfigError(
            f"{shorten(target)} is not a data set; expected a subclass of Split in diptych.datasets."
        )
    return kind


@cache
def data_names() -> tuple[str, ...]:
    """Names of all data sets."""
    folder = files("diptych.conf") / "data"
    return tuple(sorted(Path(file.name).stem for file in folder.iterdir() if file.name.endswith(".yaml")))


def named_data(name: str) -> Data:
    """Return the data set with a name.

    Raises:
        ConfigError: there is no such data set; lists all.
    """
    known = data_names()
    if name not in known:
        raise ConfigError(
            f"there is no data set {name!r}.{nearest(name, known)} Data sets are: {', '.join(known)}."
        )
    tree = _merged(name)
    data = tree["data"]
    train = {
        # Where the data lie and which part is meant is not a setting of the data set:
        # any split may be opened.
        key: _filled(value, tree)
        for key, value in data["train"].items()
        if key not in ("root", "split")
    }
    return Data(
        node=train,
        why=f"--data {name}",
        train=data["train"]["split"],
        validate=data["validate"]["split"],
    )


def find_data(root: Path | str | None, *, name: str | None = None, node: Any = None, where: str = "") -> Data:
    """Find the data set of `root`: by `name`, else by `node`, else the first that recognizes the folder.

    Args:
        node: node stored in a bundle or a prediction file.
        where: name of that bundle or file, for messages.

    Raises:
        ConfigError: no data set fits.
    """
    if name is not None:
        named = named_data(name)
        # The name `table` alone does not tell the columns, nor `multi30k` the languages; bundles do.
        general = name == "table" or bool(named.kind.written)
        if isinstance(node, Mapping) and general and split_class(node.get("_target_")) is named.kind:
            return Data(node=node, why=f"--data {name}, with the settings of {where}")
        return named
    if node is not None:
        if not isinstance(node, Mapping):
            raise FormatError(f"{where}: its data set is {shorten(node)}; expected a class and its settings.")
        return Data(node=node, why=where)
    if root is None:
        raise ConfigError("the data set is unknown; set --data NAME.")
    root = Path(root)
    if not root.is_dir():
        raise ConfigError(f"{root} is not a folder; expected the root of a data set.")
    # In alphabetical order, so that a folder that two data sets recognize always opens as the same one.
    for known in data_names():
        data = named_data(known)
        # Several configurations share a class; only that with its name may recognize a folder.
        if data.kind.name == known and data.kind.recognizes(root):
            return Data(node=data.node, why=f"the layout of {root}", train=data.train, validate=data.validate)
    raise ConfigError(
        f"{root} does not have the layout of a data set. Set --data to one of {', '.join(data_names())}."
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class WorldReport:
    """Result of `fabricate`; `splits` has the number of examples of each split."""

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
    sources: Mapping[str, Path] | None = None,
    progress: Progress | None = None,
) -> WorldReport:
    """Write a miniature world in the official format of a data set, with pictures, regions and a vocabulary.

    Same seed, same bytes.

    Args:
        out: folder to create.
        data: name of a data set, see `data_names`.
        size: number of memes; a multiple of four.
        overwrite: replace `out` if it is a miniature world.
        sources: files of which the world is made, by the names of `Split.sources`; only for `emoji`.
        progress: called with the number of finished memes and `size`.

    Raises:
        ConfigError: the size is invalid, `out` exists, or the data set has no miniature world or other
            sources.
    """
    out, named, sources = Path(out), named_data(data), sources or {}
    if strange := [name for name in sources if name not in named.kind.sources]:
        raise ConfigError(f"a world of {data} is not made of the file {strange[0]!r}; leave it out.")
    require_new(out, overwrite=overwrite, kind=KIND)
    # An interrupted world leaves nothing behind that looks complete.
    with atomic_folder(out, kind=KIND, overwrite=overwrite) as folder:
        splits = named.kind.fabricate(
            folder,
            size=size,
            seed=seed,
            progress=progress,
            names=(named.train, named.validate),
            **named.settings,
            **sources,
        )
    return WorldReport(root=out, size=size, seed=seed, splits=splits)


@cache
def _merged(name: str) -> dict[str, Any]:
    """Read the node `data` of a configuration file, merged with the files in its defaults list."""
    path = Path(str(files("diptych.conf") / "data" / f"{name}.yaml"))
    # Not by Hydra, which `diptych ls` does not import.
    tree: Any = read_yaml(path, dict[str, Any])
    merged: dict[str, Any] = {}
    for base in tree.get("defaults", ()):
        if isinstance(base, str) and base != "_self_":
            # Files earlier in the list are overridden by later ones, and all by the file itself, as in Hydra.
            merged = _joined(merged, _merged(base))
    return _joined(merged, {key: value for key, value in tree.items() if key != "defaults"})


def _joined(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(one)
    for key, value in other.items():
        both = isinstance(value, Mapping) and isinstance(result.get(key), Mapping)
        result[key] = _joined(result[key], value) if both else value
    return result


def _filled(value: Any, tree: Mapping[str, Any]) -> Any:
    """Resolve interpolations such as `${data.NAME}`, which stand for other keys of the file."""
    while isinstance(value, str) and value.startswith("${") and value.endswith("}"):
        value = reduce(getitem, value[2:-1].split("."), tree)
    return value
