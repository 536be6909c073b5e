"""Files and folders that are either whole or absent, and nothing of the user's replaced.

What a command writes appears under its name in one step. Until then it lies beside, as `.NAME.part`; a
folder that is replaced is renamed to `.NAME.replaced` first, and back by the next run if a kill came in
between. Meanwhile `.NAME.lock` keeps other processes away; the system frees it when the process ends.
"""

import errno
import fcntl
import json
import os
import re
import shutil
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Protocol, runtime_checkable

from diptych.errors import ConfigError, FormatError, full_disk

MARK = ".diptych"  # in a folder that may be replaced later: its kind, and the names of all that belongs to it
HEADS = {  # how the files begin that may be replaced
    "a prediction file": rb"id,proba|PK\x03\x04.{26}header\.npy",
    "a PNG picture": rb"\x89PNG\r\n\x1a\n",
    "a safetensors file": rb".{6}\0\0\{",
    "a vocabulary": rb"\[PAD\]\r?\n",
    "a fastText model": rb"\xba\x16\x4f\x2f",
    "a TSV of features": rb"[^\t\r\n]*\t\d+\t\d+\t[^\t\r\n]*\t[^\t\r\n]*\t",
    "an HDF5 file": rb"\x89HDF\r\n\x1a\n",
    "a ZIP of JSON": rb"PK\x03\x04.{26}[^\0]{1,1000}?\.json",
    "a report of extraction": rb'\{\s*"plan":',
    "a run card": rb"# Study ",
    "a list of members": rb'\{\s*"study":',
}
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF)  # file systems without locks
_claims: set[tuple[int, Path]] = set()  # of this process: the system's locks are for others only


@runtime_checkable
class ByteStream(Protocol):
    """A file that is open for reading bytes, on disk or in memory."""

    def read(self, size: int = -1, /) -> bytes: ...

    def readline(self, size: int = -1, /) -> bytes: ...

    def seek(self, offset: int, whence: int = 0, /) -> int: ...

    def tell(self) -> int: ...


@contextmanager
def atomic_file(path: Path | str, mode: str = "wb", **kwargs: Any) -> Iterator[IO[Any]]:
    """Open a file that appears under its name only when the block ends well.

    It is written beside, fsynced and renamed; an error inside the block (a full disk, Ctrl-C) leaves whatever
    stood at `path` before, and no fragment. Further arguments go to `open`. Parent folders are made.

    Raises:
        ConfigError: `path` is a folder, or lies below a file; or another process writes it at this moment.
    """
    path = Path(path)
    if path.is_dir():
        raise ConfigError(f"{path} is a folder; expected the name of a file.")
    make_parents(path)
    beside = _beside(path, "part")
    try:
        with open(_locked(beside, path), mode, **kwargs) as file:
            try:
                file.truncate(0)  # a fragment of a process that was killed
                yield file
                file.flush()
                os.fsync(file.fileno())
                os.replace(beside, path)  # before the lock goes with the handle
            except BaseException:
                beside.unlink(missing_ok=True)
                raise
    except BaseException as error:
        _name(error, path)
        raise
    sync_folder(path.parent)


@contextmanager
def atomic_folder(
    path: Path | str, *, kind: str | None = None, overwrite: bool = False, inputs: Iterable[Path | str] = ()
) -> Iterator[Path]:
    """Yield a folder to fill; it appears as `path` only when the block ends well. A link is followed.

    Args:
        kind: what it will be, such as `a bundle`: the folder gets a mark, by which a later call of this kind
            may replace it. None makes a folder that nobody replaces.
        overwrite: replace a folder of this kind.
        inputs: what the folder is made of.

    Raises:
        ConfigError: as `require_new`; or `path` lies below a file; or another process writes it.
    """
    given, path = Path(path), Path(os.path.realpath(path))
    with reserved(given, overwrite=overwrite, kind=kind, inputs=inputs):
        beside = _beside(path, "part")
        try:
            _remove(beside)
            beside.mkdir()
            yield beside
            if kind is not None:
                mark = {"kind": kind, "files": sorted(_names(beside))}
                (beside / MARK).write_text(json.dumps(mark, indent=0) + "\n", encoding="utf-8")
            ordinary = 0o666 & ~_umask()  # some libraries write private files
            for folder, _, names in os.walk(beside):
                for name in names:
                    os.chmod(Path(folder) / name, ordinary)
                    with open(Path(folder) / name, "rb") as file:
                        os.fsync(file.fileno())
            replace_folder(beside, path)
        except BaseException as error:
            shutil.rmtree(beside, ignore_errors=True)
            _name(error, given)
            if number := re.search(r"\(os error (\d+)\)", str(error)):  # of safetensors, which is no OSError
                raise OSError(int(number[1]), os.strerror(int(number[1])), str(given)) from error
            raise


@contextmanager
def reserved(
    path: Path | str, *, overwrite: bool = False, kind: str | None = None, inputs: Iterable[Path | str] = ()
) -> Iterator[None]:
    """Keep other processes from `path` while the block runs; arguments as `require_new`, asked first.

    Raises:
        ConfigError: as `require_new`; or another process holds it.
    """
    inputs = tuple(inputs)
    require_new(path, overwrite=overwrite, kind=kind, inputs=inputs)
    place = Path(os.path.realpath(path))
    with claimed(place):
        recover_folder(place)
        require_new(path, overwrite=overwrite, kind=kind, inputs=inputs)  # by now, someone may have made it
        yield


@contextmanager
def claimed(path: Path, *, lock: Path | None = None) -> Iterator[None]:
    """Keep other processes from `path` while the block runs, if they ask by this function too.

    Args:
        lock: a file to lock instead of the one beside `path`; removed at the end.

    Raises:
        ConfigError: another process, or another part of this one, holds it; or `path` lies below a file.
    """
    lock = lock or _beside(path, "lock")
    claim = (os.getpid(), lock)
    if claim in _claims:
        raise _busy(path)
    new = [folder for folder in lock.parents if not folder.exists()]
    make_parents(lock)
    try:
        handle = _locked(lock, path)
    except OSError as error:
        _name(error, path)
        raise
    _claims.add(claim)
    try:
        yield
    finally:
        _claims.discard(claim)
        lock.unlink(missing_ok=True)
        os.close(handle)
        with suppress(OSError):  # something was written
            for folder in new:
                folder.rmdir()


def replace_folder(new: Path, path: Path) -> None:
    """Give the folder `new` the name `path`; what stands there is renamed aside, then removed."""
    aside = _beside(path, "replaced")
    _remove(aside)
    if path.is_dir():
        os.replace(path, aside)
    try:
        os.replace(new, path)
    except BaseException:
        recover_folder(path)
        raise
    sync_folder(path.parent)
    _remove(aside)


def recover_folder(path: Path) -> None:
    """Take back what a process that was killed had renamed aside; the caller keeps other processes away."""
    aside = _beside(path, "replaced")
    if os.path.lexists(path):
        _remove(aside)
    elif aside.is_dir():
        os.replace(aside, path)


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


def require_new(
    path: Path | str, *, overwrite: bool = False, kind: str | None = None, inputs: Iterable[Path | str] = ()
) -> None:
    """Refuse to write over something that exists, unless asked to and it is what the same command wrote.

    Args:
        kind: what may be replaced: a name in `HEADS`, or that of the mark in a folder. None replaces nothing.
        inputs: what the result is made of; never replaced.

    Raises:
        ConfigError: `path` exists (an empty folder does not count) and is kept; or it is an input, the
            working folder or a folder around one.
    """
    path = Path(path)
    require_apart(path, inputs)
    empty_folder = path.is_dir() and not any(path.iterdir())
    if not os.path.lexists(path) or empty_folder:
        return
    if not overwrite:
        raise ConfigError(f"{path} exists and is kept; choose another place or say overwrite=true.")
    reason = _other_file(path, kind) if kind in HEADS else _other_folder(path, kind)
    if reason:
        raise ConfigError(
            f"{path} {reason} and is kept even with overwrite=true; "
            "choose another place, or remove it yourself."
        )


def require_apart(path: Path, inputs: Iterable[Path | str]) -> None:
    """Refuse a result that would be an input or the working folder, or a folder around one.

    Raises:
        ConfigError: names both.
    """
    place, here = os.path.realpath(path), os.path.realpath(".")
    for one in (here, *inputs):
        source = os.path.realpath(one)
        if place in (source, *map(str, Path(source).parents)):
            how = "is" if place == source else "is a folder around"
            why = "the working folder" if one == here else f"{one}, which is read"
            raise ConfigError(f"{path} {how} {why}, and is kept; choose another place.")


def _other_file(path: Path, kind: str) -> str | None:
    """Why the file is not of this kind."""
    if not path.is_file():
        return f"is not {kind}"
    with path.open("rb") as file:
        head = file.read(1 << 16)
    return f"is not {kind}" if head and re.match(HEADS[kind], head, re.DOTALL) is None else None


def _other_folder(path: Path, kind: str | None) -> str | None:
    """Why the folder is not one of this kind, with nothing else in it."""
    try:
        mark = json.loads(require_file(path / MARK).read_text(encoding="utf-8"))
        ours = set(mark["files"]) if mark["kind"] == kind else None
    except (FormatError, OSError, ValueError, TypeError, KeyError, RecursionError):
        ours = None
    if ours is None:
        return f"is not {kind or 'a folder'} that diptych wrote (it has no such {MARK})"
    other = sorted(_names(path) - ours - {MARK})
    return f"holds {other[0]}, which is not of {kind}," if other else None


def _names(folder: Path) -> set[str]:
    """Everything below a folder that is no folder, by its path from there."""
    return {
        (Path(base) / name).relative_to(folder).as_posix()
        for base, folders, files in os.walk(folder)
        for name in (*files, *(one for one in folders if (Path(base) / one).is_symlink()))
    }


def require_name(name: object, what: str) -> str:
    """`name`, if it can be the name of a file or folder and leads nowhere else.

    Args:
        what: named in the error message, such as `a member of the study`.

    Raises:
        ConfigError: no text, empty, too long, with a dot in front, a separator or a control character.
    """
    if isinstance(name, str) and re.fullmatch(r"[^./\\\0-\x1f\x7f][^/\\\0-\x1f\x7f]*", name):
        try:
            if len(name.encode()) <= 200:
                return name
        except UnicodeEncodeError:  # half a surrogate pair
            pass
    shown = repr(name) if len(repr(name)) < 80 else f"{repr(name)[:77]}..."
    raise ConfigError(
        f"{what} is called {shown}; expected a plain name that can be a file's: at most 200 bytes, "
        "no / or \\, no dot in front."
    )


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


def _beside(path: Path, ending: str) -> Path:
    return path.with_name(f".{path.name}.{ending}")


def _locked(lock: Path, path: Path) -> int:
    """Open a file for writing that no other process has locked; the system frees it with the handle.

    These locks are not passed on to forked loader processes, which outlive a killed parent for some seconds.

    Args:
        path: what it stands for, for the error message.
    """
    while True:
        handle = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        try:
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in NO_LOCKS:
                os.close(handle)
                raise _busy(path) from error
        try:  # whoever held it before may have renamed or removed it since we opened it
            if os.path.samestat(os.fstat(handle), lock.stat()):
                return handle
        except FileNotFoundError:
            pass
        os.close(handle)


def _busy(path: Path) -> ConfigError:
    return ConfigError(f"{path} is being written by another process; wait for it or stop it.")


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _name(error: BaseException, path: Path) -> None:
    """Say where the disk was full; the system does not, or names a file that the user never sees."""
    found = error if isinstance(error, OSError) else full_disk(error)
    if found is not None and found.errno:
        name = "" if found.filename is None else Path(os.fsdecode(found.filename)).name
        if not name or name.startswith(f".{path.name}."):
            found.filename = str(path)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
