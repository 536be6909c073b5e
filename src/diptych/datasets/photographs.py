"""Photographs of Flickr and COCO: their names in lists of images, their keys, and the folders they lie in."""

import re
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path

from diptych.datasets.locate import leaves_root
from diptych.errors import ConfigError, FormatError, nearest
from diptych.images import picture_exists, unpacked

BASES = ("", "data", "multi30k", "multi30k/data", "data/multi30k", "dataset/data")
PICTURES = (
    "images",
    "flickr30k-images",
    "flickr30k_images",
    "flickr30k/images",
    "train2014",
    "val2014",
    "images/train2014",
    "images/val2014",
    "",
)
KEYS = ("stem", "number", "padded8", "padded12")


def image_name(line: str) -> str:
    """The picture's file name, without the folder or archive that MM-BERT's files write before it.

    A path out of the folder stays whole, so that `image_key` refuses it.
    """
    path = _path(line)
    return path if leaves_root(path) else path.rpartition("/")[2]


def image_key(name: str, kind: str, *, where: str) -> str:
    """Key of a picture in a feature store.

    Args:
        kind: `stem` is the file name without its ending. `number` is the number of the picture at Flickr or
            COCO, without leading zeros, hash or name of the split; `padded8` and `padded12` are the same in
            eight and twelve digits.

    Raises:
        FormatError: the line names no picture, or one without a number.
    """
    stem = Path(name).stem
    # A name is a file's, never a path: a list must not lead out of the folder of pictures.
    if not stem or "/" in name or "\\" in name or "\0" in name:
        raise FormatError(f"{where}: got {name!r}; expected the file name of a picture.")
    if kind == "stem":
        return stem
    # `COCO_val2014_000000000042`, `42` and `00042_0a1b2c` (with Flickr's hash) are all 42.
    number = re.fullmatch(r"(?:COCO_[a-z]+\d+_)?0*(\d+)(?:_\w+)?", stem, re.ASCII)
    if number is None:
        raise FormatError(f"{where}: {name!r} has no number; set data.image_key=stem.")
    return number[1].zfill({"padded8": 8, "padded12": 12}.get(kind, 0))


class Photographs:
    """Finds the pictures of a data set by key.

    Args:
        root: folder of the data set.
        lines: lines of a list of images.
        kind: kind of the keys; see `image_key`.
        where: name of the list, for messages.
        folder: folder of the archives and folders that the list names.

    Raises:
        FormatError: two pictures have the same key.
    """

    def __init__(
        self, root: Path, lines: Iterable[str], kind: str, *, where: str, folder: Path | None = None
    ) -> None:
        self.root, self.folder = root, folder or root
        self.lines: dict[str, str] = {}
        for line in lines:
            key = image_key(image_name(line), kind, where=where)
            # Folders make it easy: one of both pictures would be shown for the other.
            if _path(first := self.lines.setdefault(key, line)) != _path(line):
                raise FormatError(
                    f"{where}: {_path(first)!r} and {_path(line)!r} both have the key {key!r}; expected "
                    "different names. Rename one of the files."
                )

    @cached_property
    def folders(self) -> tuple[Path, ...]:
        every = (self.root / base / part for base in BASES for part in PICTURES)
        return tuple(folder for folder in every if folder.is_dir())

    def path(self, key: str) -> Path:
        """The picture of a key, or where it belongs."""
        # A key that no line has can only be that of a file name.
        line = self.lines.get(key, f"{key}.jpg")
        # A folder or an archive in the line is beside the list; the picture may have been moved since.
        if "/" in line and picture_exists(named := self.folder / _path(line)):
            return unpacked(named)
        name = image_name(line)
        places = (folder / name for folder in self.folders)
        return next((path for path in places if path.is_file()), self.root / "images" / name)


def _path(line: str) -> str:
    # The lists of COCO's pictures add `#` and the id of the caption.
    return line.partition("#")[0].strip()


def require_kind(kind: str) -> str:
    """Return the setting `image_key` if it is one of `KEYS`.

    Raises:
        ConfigError: it is something else.
    """
    if kind not in KEYS:
        raise ConfigError(f"data.image_key is {kind!r}; expected one of {KEYS}.{nearest(str(kind), KEYS)}")
    return kind
