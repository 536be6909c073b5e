"""What every benchmark answers for: its files, its splits, its labels, its official prediction file."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

from diptych.datasets.examples import cached_examples
from diptych.errors import ConfigError, FormatError, nearest
from diptych.predictions import Predictions
from diptych.types import Example

Progress = Callable[[int, int], None]
Severity = Literal["error", "warning", "note"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Remark:
    """Something that `diptych check` should say about a data set.

    Args:
        where: the records that it is about, for people.
        advice: what to do.
    """

    severity: Severity
    what: str
    where: tuple[str, ...]
    advice: str


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
    measure: ClassVar[str] = "accuracy"
    """The official measure, by its name in `diptych evaluate`."""

    settings: Mapping[str, Any] = {}

    def __init__(self, root: Path | str, split: str, *, limit: int | None = None) -> None:
        if limit is not None and limit < 1:
            raise ConfigError(f"limit is {limit}; expected at least 1 {self.noun}.")
        self.root, self.split, self.limit = Path(root), split, limit
        self._require_split()
        self.table = cached_examples(
            self.read, sources=self.sources, settings=(type(self).__qualname__, split, dict(self.settings))
        )
        if limit is not None:
            self.table = self.table.head(limit)

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, index: int) -> Example:
        return self.table[index]

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

    @property
    @abstractmethod
    def sources(self) -> tuple[Path, ...]:
        """The files that decide what the examples are."""

    @abstractmethod
    def read(self) -> Iterable[Example]:
        """The examples in the order of the file; large files may yield windows of `one_pair_batch` instead.

        Raises:
            FormatError: names file and line of a record that is wrong.
        """

    def image_path(self, key: str) -> Path:
        """Where the picture of an image key lies if its pair names no file, whether it exists or not."""
        return self.root / key

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
        cls, folder: Path, *, size: int, seed: int, progress: Progress | None = None
    ) -> dict[str, int]:
        """Write the official files of a miniature world into an empty folder; the same seed, the same bytes.

        Returns:
            Number of examples of each split.

        Raises:
            ConfigError: this data set cannot be made, or the size is impossible.
        """
        raise ConfigError(f"{cls.name} cannot be fabricated.")

    @classmethod
    def lint(cls, splits: Mapping[str, "Split"]) -> Iterable[Remark]:
        """What only this data set knows to be wrong."""
        return ()

    @property
    def ids(self) -> tuple[str, ...]:
        return self.table.ids

    @cached_property
    def images(self) -> Mapping[str, Path]:
        """Picture files by image key."""
        named = self.table.image_files()
        return {
            key: self.root / named[key] if key in named else self.image_path(key)
            for key in self.table.image_keys()
        }

    @property
    def node(self) -> dict[str, Any]:
        """What opens any split of this data set again, by `diptych.datasets.open_split`."""
        kind = type(self)
        return {"_target_": f"{kind.__module__}.{kind.__qualname__}", **self.settings}

    def _require_split(self) -> None:
        if not self.root.is_dir():
            raise ConfigError(f"{self.root} is not a folder; expected the root of {self.name}.")
        found = self.splits(self.root, **self.settings)
        if self.split not in found:
            raise ConfigError(
                f"{self.root} has no split {self.split!r} of {self.name}; it has {list(found)}."
                f"{nearest(self.split, found)}"
            )


def require_unique(examples: Iterable[Example], path: Path) -> Iterator[Example]:
    """`examples`, unless one has the id of an earlier one.

    Raises:
        FormatError: names the id.
    """
    seen: set[str] = set()
    for example in examples:
        if example.id in seen:
            raise FormatError(f"{path}: the id {example.id!r} occurs a second time; expected unique ids.")
        seen.add(example.id)
        yield example


def at_most(names: Sequence[str], count: int = 5) -> str:
    """The first few names for a message."""
    return f"{', '.join(names[:count])}{', ...' if len(names) > count else ''}"
