"""Base class of all data sets: files, splits, labels and the official prediction file of a benchmark."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, NoReturn

from jaxtyping import Float, Int
from numpy import ndarray

from diptych.datasets.chosen import ChosenRows
from diptych.datasets.examples import cached_examples
from diptych.datasets.placed import PlacedRows, store_key
from diptych.datasets.rows import Rows
from diptych.errors import ConfigError, FormatError, nearest
from diptych.images import unpacked
from diptych.predictions import Predictions
from diptych.types import Example, Progress, RegionSource


class DuplicateId(FormatError):
    """A record has the same id as an earlier one."""


class Split(ABC):
    """One split of a benchmark. Only the subclass reads and writes the official format.

    A subclass with settings of its own assigns them to `settings` before it calls this constructor. They are
    part of the key of cached tables, and are stored in bundles.

    Args:
        root: folder of the data set.
        split: one of `splits(root)`.
        limit: read only this number of examples, from the beginning. None reads all.

    Raises:
        ConfigError: the split does not exist, or `limit` is below 1.
        FormatError: a record is invalid; the message names file and line.
    """

    name: ClassVar[str]
    """Name of the data set in `--data`, and of its YAML file."""
    noun: ClassVar[str] = "example"
    """Word for one example in messages."""
    labels: tuple[str, ...] = ()
    """Names of the classes; empty if the data define them, or if targets are not classes."""
    positive: str | None = None
    """Positive class of binary metrics; None if there is none."""
    suffix: str = ".json"
    """Suffix of the official prediction file."""
    measure: str = "accuracy"
    """Official metric, by its name in `diptych evaluate`."""
    overlaps: ClassVar[frozenset[frozenset[str]]] = frozenset()
    """Pairs of splits that share examples by design."""
    labeled: ClassVar[bool] = True
    """Whether a training split has targets; text for pre-training has none."""
    partial: ClassVar[bool] = False
    """Whether examples without a target are normal in a labeled split."""

    predicted: ClassVar[tuple[str, ...]] = ()
    """Splits that `diptych predict` predicts by default; empty means all except the training split."""
    views: ClassVar[tuple[str, ...]] = ()
    """Splits that `clean` writes."""

    written: ClassVar[Mapping[str, Any]] = {}
    """Settings under which the official prediction file is a text file with one sentence per line."""

    sources: ClassVar[tuple[str, ...]] = ()
    """Names of the files that `fabricate` takes, of data sets that are made of real ones."""

    stores: tuple[str, ...] = ()
    """Names of the feature stores that `place` returns."""

    settings: Mapping[str, Any] = {}
    """Arguments of the subclass's constructor that decide what the examples are."""
    answers: Path | None = None
    """File with labels that the official files withhold."""
    files: tuple[Path, ...]
    """Files from which the examples were read."""

    def __init__(self, root: Path | str, split: str, *, limit: int | None = None) -> None:
        # A limit of 0 would make an empty split, which looks like a damaged file further down.
        if limit is not None and limit < 1:
            raise ConfigError(f"limit is {limit}; expected at least 1 {self.noun}.")
        self.root, self.split, self.limit = Path(root), split, limit
        if not self.root.is_dir():
            raise ConfigError(f"{self.root} is not a folder; expected the root of {self.name}.")
        # Withheld labels change the examples, so their file belongs to the key of the cache, too.
        given = () if self.answers is None else (self.answers,)
        self.files = (*self.find_files(self.root, split, **self.settings), *given)
        # Different data sets may read the same files, so the class belongs to the key of the cache.
        key = (type(self).__qualname__, split, dict(self.settings))
        table = cached_examples(self.read, sources=self.files, settings=key)
        # The cache holds all examples, so runs with different limits share it.
        self.table: Rows = table if limit is None else table.head(limit)

    def keep(self, chosen: Int[ndarray, " N"]) -> None:
        """Drop all examples but these rows, in ascending order; official files then hold these alone."""
        self.table = ChosenRows(self.table, chosen)
        # The cached property would still list the pictures of dropped examples.
        self.__dict__.pop("images", None)

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
        """Return the names of the splits in `root`, in the order training, development, test.

        Args:
            settings: settings of the data set, as in its constructor.
        """

    @classmethod
    def recognizes(cls, root: Path) -> bool:
        """Whether `root` holds this data set, by the content of its files."""
        return bool(cls.splits(root))

    @classmethod
    def answers_file(cls, root: Path, split: str) -> Path | None:
        """Return the file of withheld labels that belongs to a split, if the constructor takes `answers`."""
        return None

    @classmethod
    @abstractmethod
    def find_files(cls, root: Path, split: str, **settings: Any) -> tuple[Path, ...]:
        """Return the files that define the examples of a split.

        Raises:
            ConfigError: the split does not exist.
        """

    @abstractmethod
    def read(self) -> Iterable[Example]:
        """Yield the examples in the order of the file; for large files, windows of `one_pair_batch` instead.

        Raises:
            FormatError: a record is invalid; the message names file and line.
        """

    def image_path(self, key: str) -> Path:
        """Return the path of a picture whose pair names no file. The file need not exist."""
        return self.root / key

    def place(self, key: str) -> tuple[str | None, str]:
        """Return the feature store of an image and its key there.

        Data sets whose pictures come from several collections override this and list the names in `stores`.
        The name None means the only store of a run.
        """
        return None, key

    @property
    def regions(self) -> RegionSource | None:
        """Boxes and silhouettes that the files give for the pictures, for end-to-end models; None if none."""
        return None

    @property
    def _placed(self) -> Rows:
        return PlacedRows(self.table, self.place) if self.stores else self.table

    @abstractmethod
    def write(self, predictions: Predictions, path: Path) -> None:
        """Write the official prediction file atomically.

        Raises:
            FormatError: the ids are not those of the split, or the format cannot express an answer.
        """

    @abstractmethod
    def read_predictions(self, path: Path) -> Predictions:
        """Read an official prediction file of this split.

        Raises:
            FormatError: the file is invalid; the message names file and line.
        """

    @property
    def answer_table(self) -> Path | None:
        """File of all answers that a model can give, for data sets whose targets are answers."""
        return None

    def as_compared(self, predictions: Predictions) -> tuple[str, ...]:
        """The answers in the spelling in which the official evaluation compares them with targets."""
        return predictions.answers or ()

    def breakdown(self, predictions: Predictions) -> Mapping[str, Mapping[str, Float[ndarray, " U"]]]:
        """Further official measures, by title of a table and name.

        A measure is given as the values of its units, such as groups of examples, whose mean it is. Those
        under the title `""` join the table of the main measures.

        Args:
            predictions: of some or all examples of the split; every one has a target.
        """
        return {}

    @classmethod
    def join(cls, settings: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Settings under which the predictions of several runs are one official file.

        Args:
            settings: those of the data set of each run.

        Raises:
            ConfigError: the official file of the data set is that of one run.
        """
        raise ConfigError(
            f"an official file of {cls.name} holds the predictions of one run; predict with each run alone."
        )

    @classmethod
    def fabricate(
        cls, folder: Path, *, size: int, seed: int, progress: Progress | None = None, **settings: Any
    ) -> dict[str, int]:
        """Write a small synthetic version of the data set into an empty folder; equal seeds give equal bytes.

        Args:
            folder: gets the official files, with pictures and texts of the miniature world.
            size: number of examples of the training split.
            settings: settings of the data set, as in its constructor, on which the files depend; and paths
                by the names of `sources`.

        Returns:
            Number of examples of each split.

        Raises:
            ConfigError: the data set cannot be fabricated, or the size is impossible.
        """
        raise ConfigError(f"there is no synthetic version of {cls.name}; expected another data set.")

    @classmethod
    def clean(cls, root: Path, out: Path, **options: Any) -> Any:
        """Write the splits `views`, cleaned versions of the training data, into a new folder.

        Raises:
            ConfigError: the data set has no views.
        """
        raise ConfigError(
            f"{cls.name} has no cleaned views for training; `diptych clean` supports hateful_memes."
        )

    @classmethod
    def lint(
        cls, root: Path, split: str, **settings: Any
    ) -> tuple["Split | Sequence[Example]", tuple[FormatError, ...]]:
        """Return the valid examples of a split, and the errors of the invalid ones."""
        # One error ends this; data sets that can go on after a bad record override it.
        try:
            return cls(root, split, **settings), ()
        except FormatError as error:
            return (), (error,)

    def truth(self) -> dict[str, int | None]:
        """Map each id to 1 for the `positive` class, 0 for other classes, None if the label is withheld.

        Raises:
            ConfigError: the data set has no positive class.
        """
        if self.positive is None:
            raise ConfigError(f"{self.name} has no positive class; expected a data set of two classes.")
        return {
            example.id: None if example.target is None else int(example.target == self.positive)
            for example in self
        }

    @property
    def ids(self) -> tuple[str, ...]:
        """Ids of all examples, in order."""
        return self.table.ids

    @property
    def rows(self) -> Rows | None:
        """The columns of the examples; None for a subclass that changes the examples it returns."""
        # Columns would then disagree with the examples, so readers go through the examples one by one.
        own = (getattr(type(self), name) is getattr(Split, name) for name in ("__getitem__", "__len__"))
        return self._placed if all(own) else None

    @cached_property
    def images(self) -> Mapping[str, Path]:
        """Picture files by image key, collected on first access."""
        return _Pictures(self)

    @property
    def node(self) -> dict[str, Any]:
        """Config of this data set, from which `diptych.datasets.open_split` opens any split."""
        kind = type(self)
        # As in a configuration: a bundle records it, and `diptych predict` opens the same data with it.
        return {"_target_": f"{kind.__module__}.{kind.__qualname__}", **self.settings}


class PretrainingSplit(Split):
    """A data set for pre-training alone: it has no official prediction file."""

    def write(self, predictions: Predictions, path: Path) -> NoReturn:
        """Refuse to write.

        Raises:
            ConfigError: always.
        """
        raise ConfigError(f"{path}: {self.name} has no official prediction file; predict a task's data set.")

    def read_predictions(self, path: Path) -> NoReturn:
        """As `write`.

        Raises:
            ConfigError: always.
        """
        raise ConfigError(f"{path}: {self.name} has no official prediction file.")


class _Pictures(Mapping[str, Path]):
    """Picture files by image key, collected on first access.

    Paths of millions of pictures take time and memory, and most runs on features never use them.
    """

    def __init__(self, split: Split) -> None:
        self.split = split

    @cached_property
    def names(self) -> dict[str, tuple[str, str | None]]:
        # Under the keys of the stores, which examples have; paths follow from the data set's own keys.
        files, place = self.split.table.image_files(), self.split.place
        return {store_key(place, key): (key, files.get(key)) for key in self.split.table.image_keys()}

    def __getitem__(self, key: str) -> Path:
        # From the store's key to the data set's own, from which the path follows.
        key, name = self.names[key]
        return self.split.image_path(key) if name is None else unpacked(self.split.root / name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)


def require_split(split: str, root: Path, found: Sequence[str]) -> None:
    """Refuse a split that a data set does not have.

    Args:
        found: splits that the data set has.

    Raises:
        ConfigError: the split is not among them; the message lists them.
    """
    if split not in found:
        raise ConfigError(
            f"{root} has no split {split!r}; expected one of {list(found)}.{nearest(split, found)}"
        )


def at_most(names: Sequence[str], count: int = 5) -> str:
    """Join the first few names for a message; `...` stands for the others."""
    return f"{', '.join(names[:count])}{', ...' if len(names) > count else ''}"


def require_size(
    size: int, seed: int, *, smallest: int, largest: int, noun: str = "examples", each: int = 1
) -> None:
    """Refuse a synthetic data set that cannot be made.

    Args:
        noun: what `size` counts.
        each: number of them that are made together, such as all questions about a picture.

    Raises:
        ConfigError: the size is outside of its range or no multiple of `each`, or the seed is negative.
    """
    if size % each or not smallest <= size <= largest or seed < 0:
        multiple = f", a multiple of {each} because {each} belong together" if each > 1 else ""
        raise ConfigError(
            f"size is {size} and seed is {seed}; expected {smallest} to {largest} {noun}{multiple}, and a "
            "seed from 0."
        )
