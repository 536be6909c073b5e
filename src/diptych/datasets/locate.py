"""Finds the file of a split in the trees in which a data set is published, and refuses paths out of them."""

from collections.abc import Callable, Iterator, Sequence
from os.path import normpath
from pathlib import Path


def locate(
    root: Path, names: Sequence[str], *, folders: Sequence[str], fits: Callable[[Path], bool]
) -> Path | None:
    """The first file with one of the names, in one of the folders, whose content fits.

    If the content of none fits, the first file that exists: it may be damaged, and reading it will say so.

    Args:
        names: names of the file, the preferred one first, with suffix.
        folders: folders below the root; `""` is the root itself.
        fits: tells by the first bytes whether a file belongs to the data set.
    """
    existing = [*_existing(root, names, folders)]
    return next((path for path in existing if fits(path)), existing[0] if existing else None)


def leaves_root(path: str) -> bool:
    """Whether a path is absolute or leaves its folder by `..`; links inside the folder are not resolved."""
    # `a/../../b` becomes `../b`.
    return f"{normpath(path)}/".startswith(("/", "../"))


def _existing(root: Path, names: Sequence[str], folders: Sequence[str]) -> Iterator[Path]:
    # Folders first: files of one release lie together, whichever of their names they have.
    for folder in folders:
        for name in names:
            if (path := root / folder / name).is_file():
                yield path
