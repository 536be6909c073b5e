"""Files that are either whole or absent."""

import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from diptych.errors import ConfigError, FormatError


@contextmanager
def atomic_file(path: Path | str, mode: str = "wb", **kwargs: Any) -> Iterator[IO[Any]]:
    """Open a file that appears under its name only when the block ends well.

    It is written beside, fsynced and renamed; an error inside the block (a full disk, Ctrl-C) leaves whatever
    stood at `path` before, and no fragment. Further arguments go to `open`. Parent folders are made.

    Raises:
        ConfigError: `path` is a folder, or lies below a file.
    """
    path = Path(path)
    if path.is_dir():
        raise ConfigError(f"{path} is a folder; expected the name of a file.")
    make_parents(path)
    handle, beside = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    try:
        with open(handle, mode, **kwargs) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(beside, 0o666 & ~_umask())  # mkstemp makes private files; ours are ordinary ones
        os.replace(beside, path)
    except BaseException as error:
        Path(beside).unlink(missing_ok=True)
        _name(error, path)
        raise
    sync_folder(path.parent)


@contextmanager
def atomic_folder(path: Path | str, *, overwrite: bool = False) -> Iterator[Path]:
    """Yield a folder to fill; it appears as `path` only when the block ends well.

    Raises:
        ConfigError: `path` exists, is not empty and `overwrite` is off; or it lies below a file.
    """
    path = Path(path)
    require_new(path, overwrite=overwrite)
    make_parents(path)
    beside = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent))
    try:
        yield beside
        os.chmod(beside, 0o777 & ~_umask())
        for folder, _, names in os.walk(beside):
            for name in names:
                os.chmod(Path(folder) / name, 0o666 & ~_umask())  # some libraries write private files
                with open(Path(folder) / name, "rb") as file:
                    os.fsync(file.fileno())
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
        os.replace(beside, path)
    except BaseException as error:
        shutil.rmtree(beside, ignore_errors=True)
        _name(error, path)
        raise
    sync_folder(path.parent)


KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def require_file(path: Path | str, what: str = "a file") -> Path:
    """`path`, if it is a regular file (or a link to one). Opening a named pipe would wait forever.

    Args:
        what: named in the error message as what was expected.

    Raises:
        FormatError: nothing is there, or a folder, a named pipe, a socket or a device; or no name of a file.
    """
    try:
        mode = Path(path).stat().st_mode
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise FormatError(f"{path!s}: {reason}; expected {what}.") from error
    if stat.S_ISREG(mode):
        return Path(path)
    found = next((name for kind, name in KINDS if kind(mode)), "something else")
    raise FormatError(f"{path!s}: this is {found}; expected {what}.")


def require_new(path: Path | str, *, overwrite: bool = False) -> None:
    """Refuse to write over something that exists unless asked to.

    Raises:
        ConfigError: `path` exists (an empty folder does not count).
    """
    path = Path(path)
    empty_folder = path.is_dir() and not any(path.iterdir())
    if path.exists() and not empty_folder and not overwrite:
        raise ConfigError(f"{path} exists and is kept; choose another place or say overwrite=true.")


def make_parents(path: Path) -> None:
    """Make the folders above `path`.

    Raises:
        ConfigError: one of them is a file.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        blocking = next((parent for parent in path.parents if parent.is_file()), path.parent)
        raise ConfigError(
            f"{path} cannot be made: {blocking} is a file; expected a folder. Choose another place."
        ) from error


def sync_folder(folder: Path) -> None:
    """Make a rename inside `folder` survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _name(error: BaseException, path: Path) -> None:
    """Say where the disk was full; the system does not."""
    if isinstance(error, OSError) and error.errno and error.filename is None:
        error.filename = str(path)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
