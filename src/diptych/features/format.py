"""Defines a format of region features: how its files are recognized, read and written.

To add a format, write a module with a `FORMAT` and add that to `diptych.features.formats.FORMATS`.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from diptych.features.fields import MEANING, Record
from diptych.types import Regions

LARGEST = (
    64 << 20
)  # bytes of all arrays of one image in a file; in memory, as wider types, up to 8 times that
SAMPLED = 8  # files of a folder that are read to recognize its format
SCANNED = 32 << 20  # bytes of a file that are searched for a word
ALONE = (b"\x93NUMPY", b"{")  # first bytes of files that hold one image: NumPy, JSON
ARCHIVES = (b"ustar", b"BZh", b"\xfd7zXZ", b"Rar!", b"7z\xbc\xaf")  # first bytes: tar, bzip2, xz, RAR, 7-Zip
Items = Iterable[tuple[str, Regions]]  # keys and regions to write


def files_below(path: Path, suffix: str) -> list[Path]:
    """Files with this suffix anywhere below the folder, sorted."""
    return sorted(file for file in path.rglob(f"*{suffix}") if file.is_file())


class Entry(NamedTuple):
    """One image of a source, not yet decoded.

    Args:
        key: None if only `load` can determine it.
        load: reads key and record. Call it before the iterator advances: the file may be closed after that.
        done: progress after this image, out of `total`: bytes for text files, images for everything else.
        line: line number in a text file, from 1; 0 elsewhere.
        file: name of the file, if the source has several.
    """

    key: str | None
    load: Callable[[], tuple[str, Record]]
    done: int
    total: int
    line: int = 0
    file: str = ""


@dataclass(frozen=True, slots=True)
class Sample:
    """A source of unknown format, with what is needed to recognize it.

    Args:
        head: the first bytes of a file; None for a folder.
        members: names of the files in a ZIP, in lower case.
    """

    path: Path
    head: bytes | None
    members: tuple[str, ...] = ()

    @property
    def alone(self) -> bool:
        """Whether it is a file that holds a single image."""
        return self.head is not None and self.head.startswith(ALONE)

    @property
    def packed(self) -> bool:
        """Whether it is an archive of a kind that diptych does not unpack."""
        head = self.head or b""
        return head.startswith(ARCHIVES) or head[257:262] == b"ustar"  # tar has its magic number there

    def starts(self, head: bytes) -> bool:
        """Whether it is a file that starts with these bytes."""
        return self.head is not None and self.head.startswith(head)

    def holds(self, ending: str, head: bytes, word: bytes = b"") -> bool:
        """Whether it is a folder with a file of this suffix that starts with `head` and contains `word`."""
        files = islice(files_below(self.path, ending), SAMPLED) if self.head is None else ()
        for file in files:
            with file.open("rb") as stream:
                start = stream.read(SCANNED if word else len(head))
            # The first bytes alone do not tell a folder of features from any other folder of JSON files.
            if start.startswith(head) and word in start:
                return True
        return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """A file format for the regions of many images.

    Args:
        recognizes: whether a source is of this format.
        entries: iterates over the images of a source.
        name: name of the format in `diptych export`; empty if it can only be read.
        write: writes a file of this format; takes path, items, `FeatureMeta` and `overwrite`.
        fields: meaning of the names in its records; the default is `MEANING`.
    """

    recognizes: Callable[[Sample], bool]
    entries: Callable[[Path], Iterator[Entry]]
    name: str = ""
    write: Callable[..., None] | None = None
    fields: Mapping[str, str] = field(default_factory=lambda: MEANING)
