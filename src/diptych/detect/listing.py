"""Lists the images of an extraction, in a fixed order."""

from pathlib import Path
from typing import NamedTuple

from diptych.documents import shorten
from diptych.errors import ConfigError, FormatError
from diptych.files import require_file

SUFFIXES = {".bmp", ".gif", ".jfif", ".jpeg", ".jpg", ".jp2", ".png", ".ppm", ".tif", ".tiff", ".webp"}


class PictureFile(NamedTuple):
    """An image file and the key of its regions: the file name without its last suffix."""

    key: str
    path: Path


def list_pictures(images: Path | str) -> list[PictureFile]:
    """The images below a folder, or those that a text file lists, one per line; sorted by path.

    Other files of the folder, and files whose names start with a dot, are skipped. Paths in a text file are
    relative to that file.

    Raises:
        ConfigError: there is no image, or two have the same key.
        FormatError: the text file is not UTF-8.
    """
    images = Path(images).absolute()
    if images.is_dir():
        below = (file.relative_to(images) for file in images.rglob("*") if file.suffix.lower() in SUFFIXES)
        # sorted, because the order of a folder differs between file systems
        names = sorted(file.as_posix() for file in below if not file.name.startswith("."))
        folder = images
    elif images.exists() and images.suffix == ".txt":
        names = sorted(line for line in _lines(images) if line.strip())
        folder = images.parent
    else:
        raise ConfigError(f"{images} is neither a folder nor a .txt file with one image per line.")
    if not names:
        known = " ".join(sorted(SUFFIXES))
        raise ConfigError(f"{images} has no images; expected files that end in one of {known}.")
    pictures: dict[str, PictureFile] = {}
    for name in names:
        picture = PictureFile(Path(name).stem, folder / name)
        first = pictures.setdefault(picture.key, picture)
        if first is not picture:
            raise ConfigError(
                f"{first.path} and {picture.path} have the same key {picture.key!r}; expected every name "
                "(without suffix) once. Rename one, or extract their folders into two stores."
            )
    return [*pictures.values()]


def _lines(path: Path) -> list[str]:
    try:
        # utf-8-sig: editors on Windows put a byte order mark in front
        lines = require_file(path, "one image per line").read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise FormatError(f"{path}: not UTF-8 (byte {error.start}); expected one path per line.") from error
    if odd := next((line for line in lines if "\0" in line), None):
        raise FormatError(f"{path}: {shorten(odd)} is not a path; expected one per line.")
    return lines
