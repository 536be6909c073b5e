"""Which pictures there are to look at, in which order, and the boxes that somebody gives for them."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32
from numpy import ndarray

from diptych.errors import ConfigError, FormatError
from diptych.features.store import integer
from diptych.types import Regions

SUFFIXES = {".bmp", ".gif", ".jfif", ".jpeg", ".jpg", ".jp2", ".png", ".ppm", ".tif", ".tiff", ".webp"}


class PictureFile(NamedTuple):
    """A picture by the key that its regions will have: the name of its file without the last ending."""

    key: str
    path: Path


def list_pictures(images: Path | str) -> list[PictureFile]:
    """The pictures below a folder, or those that a text file names line by line; sorted by path.

    Other files of the folder, and files whose names begin with a dot, are passed over. Paths in a text file
    are relative to it.

    Raises:
        ConfigError: there is no picture, or two have one key.
        FormatError: the text file is not UTF-8.
    """
    images = Path(images).absolute()
    if images.is_dir():
        below = (file.relative_to(images) for file in images.rglob("*") if file.suffix.lower() in SUFFIXES)
        names = sorted(file.as_posix() for file in below if not file.name.startswith("."))
        folder = images
    elif images.is_file() and images.suffix == ".txt":
        names = sorted(line for line in _lines(images) if line.strip())
        folder = images.parent
    else:
        raise ConfigError(f"{images} is neither a folder nor a .txt file with one picture per line.")
    if not names:
        known = " ".join(sorted(SUFFIXES))
        raise ConfigError(f"{images} names no picture; expected files that end in one of {known}.")
    pictures: dict[str, PictureFile] = {}
    for name in names:
        picture = PictureFile(Path(name).stem, folder / name)
        first = pictures.setdefault(picture.key, picture)
        if first is not picture:
            raise ConfigError(
                f"{first.path} and {picture.path} have the same key {picture.key!r}; expected every name "
                "(without its ending) once. Rename one, or extract their folders into two stores."
            )
    return [*pictures.values()]


@dataclass(frozen=True, slots=True)
class GivenBoxes:
    """Boxes by picture key, in pixels of the upright picture."""

    path: Path
    boxes: Mapping[str, Float32[ndarray, "_ 4"]]

    def of(self, key: str, size: tuple[int, int]) -> Float32[ndarray, "R 4"]:
        """The boxes of a picture of (width, height).

        Raises:
            FormatError: it has none, or one is inverted or outside.
        """
        boxes = self.boxes.get(key, self.boxes.get(integer(key) or key))
        if boxes is None:
            raise FormatError(f"{self.path} has no record with this id.")
        try:
            Regions(features=np.empty((len(boxes), 0), np.float32), boxes=boxes, size=size).verify()
        except FormatError as error:
            raise FormatError(f"{self.path}: {error}") from error
        return boxes


def read_boxes(path: Path | str) -> GivenBoxes:
    """JSON lines with `id` and `boxes`, each x1 y1 x2 y2; further fields are passed over.

    Raises:
        FormatError: names file and line.
    """
    path = Path(path)
    boxes: dict[str, ndarray] = {}
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                key, rows = _record(line)
            except (ValueError, TypeError, RecursionError) as error:
                raise FormatError(
                    f'{path}:{number}: {error}; expected {{"id": ..., "boxes": [[x1, y1, x2, y2], ...]}}.'
                ) from error
            if key in boxes:
                raise FormatError(f"{path}:{number}: id {key!r} occurs a second time; expected unique ids.")
            boxes[key] = rows
    return GivenBoxes(path, boxes)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise FormatError(f"{path}: not UTF-8 (byte {error.start}); expected one path per line.") from error


def _record(line: bytes) -> tuple[str, ndarray]:
    record: Any = json.loads(line)
    if not isinstance(record, dict) or not isinstance(record.get("id"), str | int):
        raise ValueError("the record has no `id`")
    rows = np.array(record.get("boxes"), np.float32)
    if rows.shape != (0,) and (rows.ndim != 2 or rows.shape[1] != 4):
        raise ValueError(f"`boxes` has the shape {rows.shape}")
    return str(record["id"]), rows.reshape(-1, 4)
