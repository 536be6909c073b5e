"""What every benchmark answers for: its files, its splits, its labels, its official prediction file."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from diptych.datasets.examples import cached_examples
from diptych.datasets.placed import PlacedRows, store_key
from diptych.datasets.rows import Rows
from diptych.errors import ConfigError, FormatError, nearest
from diptych.predictions import Predictions
from diptych.types import Example, Progress


class DuplicateId(FormatError):
    """A record whose id an earlier one has."""


class Split(ABC):
    """One split of one benchmark. A subclass owns its official format completely, reading and writing.

    A subclass with settings of its own keeps them in `settings` before it calls this constructor; they tell
    cached tables apart and travel in bundles.

    Args:
        root: folder of the data set.
        split: one of `splits(root)`.
        limit: at most so many examples, the first ones.

    Raises:
        ConfigError: there is no such split.
        FormatError: names file and line of the first record that is wrong.
    """

    name: ClassVar[str]
    """What `--data` calls it: the name of its YAML file."""
    noun: ClassVar[str] = "example"
    """What one example is called in messages."""
    labels: tuple[str, ...] = ()
    """Names of the classes; empty where the data decide, or where targets are no classes."""
    positive: str | None = None
    """The class that binary measures look for."""
    suffix: ClassVar[str] = ".json"
    """Of the official prediction file."""
    measure: str = "accuracy"
    """The official measure, by its name in `diptych evaluate`."""
    overlaps: ClassVar[frozenset[frozenset[str]]] = frozenset()
    """Pairs of splits that share examples on purpose."""

    predicted: ClassVar[tuple[str, ...]] = ()
    """Splits that `diptych predict` takes by default; none means all but that of training."""
    views: ClassVar[tuple[str, ...]] = ()
    """Splits that `clean` makes."""

    stores: tuple[str, ...] = ()
    """Names of the feature stores that `place` tells apart."""

    settings: Mapping[str, Any] = {}
    answers: Path | None = None
    files: tuple[Path, ...]
    """What the examples were read from."""

    def __init__(self, root: Path | str, split: str, *, limit: int | None = None) -> None:
        if limit is not None and limit < 1:
            raise ConfigError(f"limit is {limit}; expected at least 1 {self.noun}.")
        self.root, self.split, self.limit = Path(root), split, limit
        if not self.root.is_dir():
            raise ConfigError(f"{self.root} is not a folder; expected the root of {self.name}.")
        given = () if self.answers is None else (self.answers,)
        self.files = (*self.find_files(self.root, split, **self.settings), *given)
        key = (type(self).__qualname__, split, dict(self.settings))
        self.table = cached_examples(self.read, sources=self.files, settings=key)
        if limit is not None:
            self.table = self.table.head(limit)

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, index: int) -> Example:
        return self._placed[index]

    def __iter__(self) -> Iterator[Example]:
        return iter(self._placed)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.root)!r}, {self.split!r})"

    @classmethod
    @abstractmethod
    def splits(cls, root: Path, **settings: Any) -> tuple[str, ...]:
        """Names of the splits that `root` holds, in the order training, development, test.

        Args:
            settings: those of an instance, for data sets that have some.
        """

    @classmethod
    def recognizes(cls, root: Path) -> bool:
        """Whether `root` looks like this data set, by the content of its files."""
        return bool(cls.splits(root))

    @classmethod
    def answers_file(cls, root: Path, split: str) -> Path | None:
        """Where withheld labels of a split lie beside it, for data sets whose constructor takes `answers`."""
        return None

    @classmethod
    @abstractmethod
    def find_files(cls, root: Path, split: str, **settings: Any) -> tuple[Path, ...]:
        """The files that decide what the examples of a split are.

        Raises:
            ConfigError: there is no such split.
        """

    @abstractmethod
    def read(self) -> Iterable[Example]:
        """The examples in the order of the file; large files may yield windows of `one_pair_batch` instead.

        Raises:
            FormatError: names file and line of a record that is wrong.
        """

    def image_path(self, key: str) -> Path:
        """Where the picture of an image key lies if its pair names no file, whether it exists or not."""
        return self.root / key

    def place(self, key: str) -> tuple[str | None, str]:
        """Where the regions of an image key lie: the name of a feature store of the run, and the key there.

        A data set whose pictures come from several collections overrides this, and names them in `stores`.
        None is the one store that a run has.
        """
        return None, key

    @property
    def _placed(self) -> Rows:
        return PlacedRows(self.table, self.place) if self.stores else self.table

    @abstractmethod
    def write(self, predictions: Predictions, path: Path) -> None:
        """Write the official prediction file, whole or not at all.

        Raises:
            FormatError: the ids are not those of the split, or an answer cannot be written.
        """

    @abstractmethod
    def read_predictions(self, path: Path) -> Predictions:
        """Read an official prediction file of this split.

        Raises:
            FormatError: names file and line of what is wrong.
        """

    @classmethod
    def fabricate(
        cls, folder: Path, *, size: int, seed: int, progress: Progress | None = None, **settings: Any
    ) -> dict[str, int]:
        """Write the official files of a miniature world into an empty folder; the same seed, the same bytes.

        Args:
            settings: those of an instance; they decide what the files look like.

        Returns:
            Number of examples of each split.

        Raises:
            ConfigError: this data set cannot be made, or the size is impossible.
        """
        raise ConfigError(f"{cls.name} cannot be fabricated.")

    @classmethod
    def clean(cls, root: Path, out: Path, **options: Any) -> Any:
        """Write `views`, splits that are better to train on, into a new folder.

        Raises:
            ConfigError: this data set has none.
        """
        raise ConfigError(
            f"{cls.name} has no views for training; `diptych clean` makes those of hateful_memes."
        )

    @classmethod
    def lint(
        cls, root: Path, split: str, **settings: Any
    ) -> tuple[Iterable[Example], tuple[FormatError, ...]]:
        """The examples of a split that can be read, and what is wrong with the others."""
        try:
            return cls(root, split, **settings), ()
        except FormatError as error:
            return (), (error,)

    def truth(self) -> dict[str, int | None]:
        """1 for examples of the `positive` class, 0 for others, None where the label is withheld.

        Raises:
            ConfigError: the data set looks for no class.
        """
        if self.positive is None:
            raise ConfigError(f"{self.name} looks for no single class; expected a data set of two classes.")
        return {
            example.id: None if example.target is None else int(example.target == self.positive)
            for example in self
        }

    @property
    def ids(self) -> tuple[str, ...]:
        return self.table.ids

    @property
    def rows(self) -> Rows | None:
        """The columns of the examples; None for a subclass that makes other examples of them."""
        own = (getattr(type(self), name) is getattr(Split, name) for name in ("__getitem__", "__len__"))
        return self._placed if all(own) else None

    @cached_property
    def images(self) -> Mapping[str, Path]:
        """Picture files by image key; looked up when asked for."""
        return _Pictures(self)

    @property
    def node(self) -> dict[str, Any]:
        """What opens any split of this data set again, by `diptych.datasets.open_split`."""
        kind = type(self)
        return {"_target_": f"{kind.__module__}.{kind.__qualname__}", **self.settings}


class _Pictures(Mapping[str, Path]):
    """Most runs on features never look at them, and paths of millions of pictures take time and memory."""

    def __init__(self, split: Split) -> None:
        self.split = split

    @cached_property
    def names(self) -> dict[str, tuple[str, str | None]]:
        files, place = self.split.table.image_files(), self.split.place
        return {store_key(place, key): (key, files.get(key)) for key in self.split.table.image_keys()}

    def __getitem__(self, key: str) -> Path:
        key, name = self.names[key]
        return self.split.image_path(key) if name is None else self.split.root / name

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)


def require_split(split: str, root: Path, found: Sequence[str]) -> None:
    """Refuse a split that a data set does not have.

    Raises:
        ConfigError: names those that it has.
    """
    if split not in found:
        raise ConfigError(f"{root} holds the splits {list(found)}, not {split!r}.{nearest(split, found)}")


def at_most(names: Sequence[str], count: int = 5) -> str:
    """The first few names for a message."""
    return f"{', '.join(names[:count])}{', ...' if len(names) > count else ''}"
