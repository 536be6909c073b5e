"""Which pictures there are to look at, in which order, and the boxes that somebody gives for them."""

from pathlib import Path
from typing import NamedTuple

from diptych.documents import shorten
from diptych.errors import ConfigError, FormatError
from diptych.files import require_file

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
    elif images.exists() and images.suffix == ".txt":
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


def _lines(path: Path) -> list[str]:
    try:
        lines = require_file(path, "one picture per line").read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise FormatError(f"{path}: not UTF-8 (byte {error.start}); expected one path per line.") from error
    if odd := next((line for line in lines if "\0" in line), None):
        raise FormatError(f"{path}: {shorten(odd)} is no path; expected one per line.")
    return lines
