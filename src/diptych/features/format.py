"""What a format of region features is: how files of it are known, read and written.

A format is one file with a `FORMAT`, and a place in `diptych.features.formats.FORMATS`.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from diptych.features.fields import MEANING, Record
from diptych.types import Regions

LARGEST = 64 << 20  # bytes of all arrays of one image; as other numbers they may take eight times as much
SAMPLED = 8  # files that are looked at to tell what a folder holds
SCANNED = 32 << 20  # bytes of a file in which a word is looked for
ALONE = (b"\x93NUMPY", b"{")  # first bytes of files of one image
ARCHIVES = (b"ustar", b"BZh", b"\xfd7zXZ", b"Rar!", b"7z\xbc\xaf")
Items = Iterable[tuple[str, Regions]]  # images by their keys, to be written


def files_below(path: Path, suffix: str) -> list[Path]:
    """Files with that ending in the folder and the folders below it, sorted."""
    return sorted(file for file in path.rglob(f"*{suffix}") if file.is_file())


class Entry(NamedTuple):
    """One image of a source, not yet decoded.

    Args:
        key: None where only `load` can tell.
        load: reads key and record; valid until the next entry is asked for.
        done: how far the source is after it, of `total`; bytes of a text file, images of anything else.
        line: of a text file, counted from 1.
        file: its name, where there are several.
    """

    key: str | None
    load: Callable[[], tuple[str, Record]]
    done: int
    total: int
    line: int = 0
    file: str = ""


@dataclass(frozen=True, slots=True)
class Sample:
    """A source of unknown format, looked at as little as it takes to tell.

    Args:
        head: the first bytes of a file; None of a folder.
        members: names of what lies in a ZIP, in lower case.
    """

    path: Path
    head: bytes | None
    members: tuple[str, ...] = ()

    @property
    def alone(self) -> bool:
        """Whether it is the file of one image."""
        return self.head is not None and self.head.startswith(ALONE)

    @property
    def packed(self) -> bool:
        """Whether it is an archive of a kind that nothing here unpacks."""
        head = self.head or b""
        return head.startswith(ARCHIVES) or head[257:262] == b"ustar"

    def starts(self, head: bytes) -> bool:
        """Whether it is a file with these first bytes."""
        return self.head is not None and self.head.startswith(head)

    def holds(self, ending: str, head: bytes, word: bytes = b"") -> bool:
        """Whether it is a folder with a file of this ending, these first bytes, and this word inside."""
        files = islice(files_below(self.path, ending), SAMPLED) if self.head is None else ()
        for file in files:
            with file.open("rb") as stream:
                start = stream.read(SCANNED if word else len(head))
            if start.startswith(head) and word in start:
                return True
        return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """One way to keep the regions of many images.

    Args:
        recognizes: whether a source is of this format.
        entries: the images of a source, one by one.
        name: of the format in `diptych export`; empty where it is only read.
        write: writes such a source: a function of path, items, `FeatureMeta` and `overwrite`.
        fields: what names in its records mean, where `MEANING` lacks some.
    """

    recognizes: Callable[[Sample], bool]
    entries: Callable[[Path], Iterator[Entry]]
    name: str = ""
    write: Callable[..., None] | None = None
    fields: Mapping[str, str] = field(default_factory=lambda: MEANING)
