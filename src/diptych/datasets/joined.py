"""Splits that can be joined: `A+B` is the split A followed by the split B."""

from abc import abstractmethod
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from diptych.datasets.base import DuplicateId, Split
from diptych.errors import ConfigError, first_five, nearest
from diptych.types import Example


class JoinedSplit(Split):
    """Base of data sets with one or several files per split, some of which are used together."""

    names: ClassVar[tuple[str, ...]]
    """All splits, in the order training, development, test."""
    folders: ClassVar[tuple[str, ...]]
    """Where annotations and answer tables may lie below the root."""
    picture_folders: ClassVar[tuple[str, ...]]

    @classmethod
    def canonical(cls, split: str) -> str:
        """The name in `names` of a split that has several names."""
        return split

    @classmethod
    @abstractmethod
    def files_of(cls, root: Path, split: str) -> tuple[Path, ...]:
        """The annotation files of one split; none if the root lacks it."""

    @abstractmethod
    def read_split(self, split: str) -> Iterator[Example]:
        """The examples of one split."""

    @classmethod
    def splits(cls, root: Path, **settings: Any) -> tuple[str, ...]:
        return tuple(name for name in cls.names if cls.files_of(root, name))

    @classmethod
    def find_files(cls, root: Path, split: str, **settings: Any) -> tuple[Path, ...]:
        files: list[Path] = []
        for name in split.split("+"):
            part = cls.canonical(name)
            if not (parts := cls.files_of(root, part) if part in cls.names else ()):
                known = cls.splits(root)
                raise ConfigError(
                    f"{root} has no {cls.name} split {name!r}; it has {', '.join(known) or 'none'}."
                    f"{nearest(name, known)} Name one with data.train.split=NAME or data.validate.split=NAME."
                )
            files += parts
        # Two parts may lie in the same file; a file counts once for the cache.
        return tuple(dict.fromkeys(files))

    def read(self) -> Iterator[Example]:
        seen: set[str] = set()
        # One part after the other, so that ids and rows have the order in which the parts are named.
        for name in self.split.split("+"):
            for example in self.read_split(self.canonical(name)):
                # Joined splits may overlap (val and minival of VQA), and servers refuse an id twice.
                if example.id in seen:
                    raise DuplicateId(
                        f"{first_five(self.files)}: {self.noun} {example.id} occurs a second time in "
                        f"{self.split}; expected unique ids."
                    )
                seen.add(example.id)
                yield example

    @cached_property
    def _picture_folders(self) -> tuple[Path, ...]:
        return tuple(path for folder in self.picture_folders if (path := self.root / folder).is_dir())
