"""Files of a folder with one file per image."""

from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath

from diptych.errors import FormatError
from diptych.files import atomic_folder
from diptych.types import Regions


def files_below(path: Path, suffix: str) -> list[Path]:
    """Files with that ending in the folder and the folders below it, sorted."""
    return sorted(file for file in path.rglob(f"*{suffix}") if file.is_file())


def write_files(
    path: Path,
    items: Iterable[tuple[str, Regions]],
    write: Callable[[Path, str, Regions], None],
    *,
    overwrite: bool,
) -> None:
    """A folder of which `write` makes the files of each image; all of it or nothing."""
    with atomic_folder(path, kind="a folder of features", overwrite=overwrite) as folder:
        for key, regions in items:
            write(folder, key, regions)


def file_for(folder: Path, key: str, suffix: str) -> Path:
    """Where an image is written; folders of the key are made.

    Raises:
        FormatError: the key cannot be the name of a file.
    """
    name = member_name(key) + suffix
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    return folder / name


def member_name(key: str) -> str:
    """The key, if it can stand for a file below a folder.

    Raises:
        FormatError: it cannot, or would lead out of the folder.
    """
    parts = PurePosixPath(key).parts
    if not parts or key != "/".join(parts) or ".." in parts or "\0" in key or "\\" in key:
        raise FormatError(f"image {key!r}: this id cannot be the name of a file; export to another format.")
    return key
