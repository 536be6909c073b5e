"""Writes files and folders atomically, and protects the user's own files from being replaced.

A result is written as `.NAME.part` and renamed when it is complete. An existing folder is first renamed to
`.NAME.replaced`; if the process is killed in between, the next run renames it back. Meanwhile `.NAME.lock`
keeps out other processes; the system releases the lock when the process ends.
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

from diptych.errors import OVERWRITE, ConfigError, FormatError, full_disk

MARK = ".diptych"  # file in folders that may be replaced: their kind, and the names of all their files
HEADS = {  # first bytes of files that may be replaced, by kind; PK begins a ZIP
    "a prediction file": rb'id,(proba|action,[pm])|PK\x03\x04.{26}header\.npy|\[\{"(answer|prediction)": ',
    "a PNG picture": rb"\x89PNG\r\n\x1a\n",
    "a page of diptych": rb'<!doctype html>\n<!-- diptych \w+ -->\n|\[\n \{\n  "format": ',  # or its JSON
    "a safetensors file": rb".{6}\0\0\{",  # length of the JSON, below 2 ** 48
    "a vocabulary": rb"\[PAD\]\r?\n",
    "a list of answers": rb'\[\n"',
    "a fastText model": rb"\xba\x16\x4f\x2f",
    "a TSV of features": rb"[^\t\r\n]*\t\d+\t\d+\t[^\t\r\n]*\t[^\t\r\n]*\t",
    "an HDF5 file": rb"\x89HDF\r\n\x1a\n",
    "a report of extraction": rb'\{\s*"plan":',
    "a run card": rb"# Study ",
    "a list of members": rb'\{\s*"study":',
    "a policy": rb"diptych_(policy|cascade): ",
}
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF)  # errors of file systems without locks
_claims: set[tuple[int, Path]] = set()  # locks of this process: POSIX locks only exclude other processes


@runtime_checkable
class ByteStream(Protocol):
    """A file opened for reading bytes, on disk or in memory."""

    def read(self, size: int = -1, /) -> bytes: ...

    def readline(self, size: int = -1, /) -> bytes: ...

    def seek(self, offset: int, whence: int = 0, /) -> int: ...

    def tell(self) -> int: ...


@contextmanager
def atomic_file(path: Path | str, mode: str = "wb", **kwargs: Any) -> Iterator[IO[Any]]:
    """Open a file that appears under its name only if the block succeeds.

    It is written under another name, fsynced and renamed. After an error in the block (a full disk, Ctrl-C),
    `path` is as before. Further arguments are passed to `open`. Parent folders are created.

    Raises:
        ConfigError: `path` is a folder or below a file, or another process is writing it.
    """
    path = Path(path)
    if path.is_dir():
        raise ConfigError(f"{path} is a folder; expected the name of a file.")
    make_parents(path)
    beside = _beside(path, "part")
    try:
        with open(_locked(beside, path), mode, **kwargs) as file:
            try:
                file.truncate(0)  # remove the fragment of a process that was killed
                yield file
                file.flush()
                os.fsync(file.fileno())
                os.replace(beside, path)  # rename first: closing the file releases the lock
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
    """Yield a folder to fill; it appears as `path` only if the block succeeds. A link is followed.

    Args:
        kind: kind of folder, such as `a bundle`. The folder gets a mark, so that a later call of this kind
            may replace it. A folder of kind None is never replaced.
        overwrite: replace a folder of this kind.
        inputs: files and folders that must not be replaced.

    Raises:
        ConfigError: as `require_new`; or `path` is below a file; or another process is writing it.
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
            ordinary = 0o666 & ~_umask()  # some libraries write files that only the owner may read
            for folder, _, names in os.walk(beside):
                for name in names:
                    os.chmod(Path(folder) / name, ordinary)
                    with open(Path(folder) / name, "rb") as file:
                        os.fsync(file.fileno())
            replace_folder(beside, path)
        except BaseException as error:
            shutil.rmtree(beside, ignore_errors=True)
            _name(error, given)
            if number := re.search(r"\(os error (\d+)\)", str(error)):  # safetensors raises no OSError
                raise OSError(int(number[1]), os.strerror(int(number[1])), str(given)) from error
            raise


@contextmanager
def reserved(
    path: Path | str, *, overwrite: bool = False, kind: str | None = None, inputs: Iterable[Path | str] = ()
) -> Iterator[None]:
    """Lock `path` while the block runs, after checking it with `require_new`, which has the same arguments.

    Raises:
        ConfigError: as `require_new`; or another process has the lock.
    """
    inputs = tuple(inputs)
    require_new(path, overwrite=overwrite, kind=kind, inputs=inputs)
    place = Path(os.path.realpath(path))
    with claimed(place):
        recover_folder(place)
        require_new(path, overwrite=overwrite, kind=kind, inputs=inputs)  # another process may have made it
        yield


@contextmanager
def claimed(path: Path, *, lock: Path | None = None) -> Iterator[None]:
    """Lock `path` while the block runs; the lock only excludes other users of this function.

    Args:
        lock: lock file, instead of the default beside `path`; removed at the end.

    Raises:
        ConfigError: another process, or other code of this process, has the lock; or `path` is below a file.
    """
    lock = lock or _beside(path, "lock")
    claim = (os.getpid(), lock)  # with the process: a fork inherits the set, but not the lock
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
        lock.unlink(missing_ok=True)  # while it is still locked: later it may be another owner's
        os.close(handle)
        with suppress(OSError):  # rmdir() fails if the folders are in use by now
            for folder in new:
                folder.rmdir()


def replace_folder(new: Path, path: Path) -> None:
    """Rename the folder `new` to `path`; an existing folder is renamed first and removed at the end."""
    aside = _beside(path, "replaced")
    _remove(aside)  # left by a process that was killed
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
    """Restore the folder that a killed process had renamed; the caller must have the lock."""
    aside = _beside(path, "replaced")
    if os.path.lexists(path):  # killed after the second rename: only the removal was missing
        _remove(aside)
    elif aside.is_dir():
        os.replace(aside, path)


KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (lambda mode: stat.S_ISCHR(mode) or stat.S_ISBLK(mode), "a device"),
)


def require_file(path: Path | str, what: str = "a file") -> Path:
    """Return `path` if it is a regular file or a link to one. Opening a named pipe would block forever.

    Args:
        what: expected content, for the error message.

    Raises:
        FormatError: `path` does not exist, is not a regular file, or is not a valid name.
    """
    try:
        mode = Path(path).stat().st_mode
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise FormatError(f"{path!s}: {reason}; expected {what}.") from error
    if stat.S_ISREG(mode):
        return Path(path)
    actual = next((name for kind, name in KINDS if kind(mode)), "not a regular file")
    raise FormatError(f"{path!s}: this is {actual}; expected {what}.")


def require_new(
    path: Path | str, *, overwrite: bool = False, kind: str | None = None, inputs: Iterable[Path | str] = ()
) -> None:
    """Check that `path` does not exist or may be replaced: with `overwrite`, and if it is of the same kind.

    Args:
        kind: kind of file or folder that may be replaced: a key of `HEADS`, or the kind in a folder's mark.
        inputs: files and folders that must not be replaced.

    Raises:
        ConfigError: `path` exists and must be kept (an empty folder may be replaced); or it is or contains an
            input or the working folder.
    """
    path = Path(path)
    require_apart(path, inputs)
    empty_folder = path.is_dir() and not any(path.iterdir())
    if not os.path.lexists(path) or empty_folder:
        return
    if not overwrite:
        raise ConfigError(f"{path} exists and is kept; choose another place or set {OVERWRITE}.")
    if reason := _other_file(path, kind) if kind in HEADS else _other_folder(path, kind):
        raise ConfigError(
            f"{path} {reason} and is kept even with {OVERWRITE}; choose another place, or remove it yourself."
        )


def require_apart(path: Path, inputs: Iterable[Path | str]) -> None:
    """Check that `path` neither is nor contains an input or the working folder.

    Raises:
        ConfigError: names both.
    """
    place, here = os.path.realpath(path), os.path.realpath(".")
    for kept in (here, *inputs):
        source = os.path.realpath(kept)
        if place in (source, *map(str, Path(source).parents)):
            how = "is" if place == source else "contains"
            why = "the working folder" if kept == here else f"{kept}, which is read"
            raise ConfigError(f"{path} {how} {why}, and is kept; choose another place.")


def _other_file(path: Path, kind: str) -> str | None:
    """Return why a file is not of this kind, or None if it is."""
    if not path.is_file():
        return f"is not {kind}"
    with path.open("rb") as file:
        head = file.read(1 << 16)
    return f"is not {kind}" if head and re.match(HEADS[kind], head, re.DOTALL) is None else None


def _other_folder(path: Path, kind: str | None) -> str | None:
    """Return why a folder is not of this kind or has other files, or None if it may be replaced."""
    try:
        mark = json.loads(require_file(path / MARK).read_text(encoding="utf-8"))
        ours = set(mark["files"]) if mark["kind"] == kind else None
    except (FormatError, OSError, ValueError, TypeError, KeyError, RecursionError):
        ours = None
    if ours is None:
        return f"is not {kind or 'a folder'} that diptych wrote (it has no such {MARK})"
    other = sorted(_names(path) - ours - {MARK})
    return f"has {other[0]}, which is not part of {kind}," if other else None


def _names(folder: Path) -> set[str]:
    """Relative paths of all files and links below a folder."""
    return {
        (Path(base) / name).relative_to(folder).as_posix()
        for base, folders, files in os.walk(folder)
        for name in (*files, *(link for link in folders if (Path(base) / link).is_symlink()))
    }


def require_name(name: object, what: str) -> str:
    """Return `name` if it is safe as the name of a file or folder.

    Args:
        what: the named thing, for the error message, such as `a member of the study`.

    Raises:
        ConfigError: no text, empty, too long, or with a dot at the start, a separator or a control character.
    """
    if isinstance(name, str) and re.fullmatch(r"[^./\\\0-\x1f\x7f][^/\\\0-\x1f\x7f]*", name):
        try:
            if len(name.encode()) <= 200:
                return name
        except UnicodeEncodeError:  # an unpaired surrogate
            pass
    shown = repr(name) if len(repr(name)) < 80 else f"{repr(name)[:77]}..."
    raise ConfigError(
        f"{what} has the name {shown}; expected a name that can be a file's: at most 200 bytes, no / or \\, "
        "no dot at the start."
    )


def make_parents(path: Path) -> None:
    """Create the folders above `path`.

    Raises:
        ConfigError: one of them is a file.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        blocking = next((parent for parent in path.parents if parent.is_file()), path.parent)
        raise ConfigError(
            f"{path} cannot be created: {blocking} is a file; expected a folder. Choose another place."
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
    """Open and lock a file; closing the handle releases the lock.

    POSIX locks are not inherited by forked data workers, which may outlive a killed parent by some seconds.

    Args:
        path: the file or folder that the lock protects, for the error message.
    """
    while True:
        handle = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        try:
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in NO_LOCKS:
                os.close(handle)
                raise _busy(path) from error
        try:  # the previous owner may have renamed or removed the file after we opened it
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
    """Put `path` into an OSError that has no file name, or that of a temporary file."""
    cause = error if isinstance(error, OSError) else full_disk(error)
    if cause is not None and cause.errno:
        name = "" if cause.filename is None else Path(os.fsdecode(cause.filename)).name
        if not name or name.startswith(f".{path.name}."):
            cause.filename = str(path)


def _umask() -> int:
    mask = os.umask(0)  # the mask can only be read by setting it
    os.umask(mask)
    return mask
