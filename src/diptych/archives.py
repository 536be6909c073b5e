"""Reads ZIP archives and NumPy arrays of strangers, with checks before anything is unpacked or allocated."""

import io
import os
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy import ndarray

from diptych.documents import shorten
from diptych.errors import NO_SPACE, FormatError
from diptych.files import ByteStream

ROOM = 64 << 20  # bytes that any archive may unpack to, whatever its size
MAX_RATIO = 20  # limit of unpacked to stored bytes, beyond ROOM. Weights shrink only by a tenth.
MAX_MEMBERS = 1_000_000
ENCRYPTED = 1  # bit in the flags of a member
METHODS = (
    zipfile.ZIP_STORED,
    zipfile.ZIP_DEFLATED,
)  # for other methods, the file itself says how much memory
MAX_HEAD = 1 << 16  # bytes of the head of an NPY file


@contextmanager
def open_archive(path: Path) -> Iterator[zipfile.ZipFile]:
    """Open a ZIP archive after checking that it is safe to read. Every error inside the block names the file.

    Raises:
        FormatError: the archive is incomplete, encrypted, compressed by an unusual method, has two members of
            the same name, or unpacks to far more bytes than it has.
    """
    with guarded(path, "a whole ZIP archive"), zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        # Two readers could take different members of one name, so that a check and its use disagree.
        if len(archive.NameToInfo) < len(members):
            raise FormatError(
                f"{path}: {len(members) - len(archive.NameToInfo)} member(s) of the archive have the same "
                "name as another one; expected unique names."
            )
        if len(members) > MAX_MEMBERS:
            raise FormatError(f"{path}: {len(members):,} members; expected at most {MAX_MEMBERS:,}.")
        with guarded(path, "a whole ZIP archive", named=True):
            for member in members:
                require_plain(member)
        require_room(path, sum(member.file_size for member in members))
        yield archive


def read_member(path: Path, name: str, *, largest: int) -> bytes:
    """Read one member of an archive. The archive stays open, because a list of a million names takes seconds.

    Args:
        largest: largest unpacked size in bytes.

    Raises:
        FormatError: the archive is damaged, it has no such member, or `require_plain` refuses the member.
    """
    with guarded(path, "a whole ZIP archive", named=True):
        archive = _opened(path)
        member = archive.NameToInfo.get(name)
        if member is None:
            raise FormatError(
                f"{path}: has no member {shorten(name)} among {len(archive.NameToInfo):,}; expected the "
                "archive of the pictures that the annotations name. Is it another part of it?"
            )
        require_plain(member, largest)
        return archive.read(member)


def member_size(path: Path, name: str) -> int | None:
    """Unpacked size in bytes that an archive states for a member; None if it has no such member.

    Raises:
        FormatError: the archive is damaged.
    """
    with guarded(path, "a whole ZIP archive", named=True):
        member = _opened(path).NameToInfo.get(name)
        return None if member is None else member.file_size


def _opened(path: Path) -> zipfile.ZipFile:
    stamp = path.stat()
    # A forked process must not share the position in the file; a replaced file is opened again.
    return _kept_open(path, os.getpid(), (stamp.st_size, stamp.st_mtime_ns))


@lru_cache(maxsize=8)
def _kept_open(path: Path, process: int, stamp: tuple[int, int]) -> zipfile.ZipFile:
    return zipfile.ZipFile(path)


def require_plain(member: zipfile.ZipInfo, largest: int | None = None) -> None:
    """Refuse a member of an archive that cannot be unpacked in bounded memory.

    Args:
        largest: largest unpacked size in bytes. None leaves the limit to `require_room`.

    Raises:
        FormatError: the member is encrypted, too large, or compressed by another method than deflate. (LZMA
            and BZIP2 can unpack a few bytes to gigabytes at once.)
    """
    name = shorten(member.filename)
    if member.flag_bits & ENCRYPTED:
        raise FormatError(f"{name} is encrypted; expected a plain member. Unpack it and use its content.")
    if member.compress_type not in METHODS:
        raise FormatError(
            f"{name} is compressed by method {member.compress_type}; expected 0 (stored) or 8 (deflated). "
            "Unpack the archive and pack it again."
        )
    if largest is not None and member.file_size > largest:
        raise FormatError(f"{name} unpacks to {member.file_size:,} bytes; expected at most {largest:,}.")


def require_room(path: Path, total: int) -> None:
    """Refuse an archive that unpacks to far more bytes than it has.

    Args:
        total: unpacked size in bytes.

    Raises:
        FormatError: `total` is larger than `ROOM` plus `MAX_RATIO` times the size of the file.
    """
    size = path.stat().st_size
    if total > ROOM + MAX_RATIO * size:
        raise FormatError(
            f"{path}: {size:,} bytes unpack to {total:,}, more than {MAX_RATIO} times as many. If you trust "
            "the archive, unpack it yourself."
        )


@contextmanager
def guarded(path: object, what: str, *, named: bool = False) -> Iterator[None]:
    """Turn every error inside the block into a `FormatError` about this file.

    Damaged files make readers fail with all kinds of errors, so this does not list them.

    Args:
        path: the file, or a part of it, for error messages.
        what: what was expected, such as `a whole ZIP archive`.
        named: also put the path before messages of a `FormatError` that do not begin with it.
    """
    try:
        yield
    except FormatError as error:
        if not named or str(error).startswith(str(path)):
            raise
        raise FormatError(f"{path}: {error}") from error
    except Exception as error:
        if isinstance(error, OSError) and error.errno in NO_SPACE:
            raise  # writing inside the block has filled the disk; the file that is read is fine
        # The text of a system error contains the path a second time.
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        # shorten() gives a repr; the slice below takes off its quotes.
        text = shorten(next(iter(str(reason).splitlines()), "") or type(error).__name__, 200)
        raise FormatError(f"{path}: not {what} ({text[1:-1]}). Download or copy it again.") from error


def read_npz(path: Path) -> dict[str, ndarray]:
    """Read the arrays of an NPZ file by name.

    Raises:
        FormatError: the file is not a complete archive of arrays of numbers; see `open_archive` and
            `read_array`.
    """
    with open_archive(path) as archive:
        arrays = {}
        for member in archive.infolist():
            where = f"{path}: {shorten(member.filename)}"
            with guarded(where, "a whole array", named=True), archive.open(member) as file:
                arrays[member.filename.removesuffix(".npy")] = read_array(file, member.file_size)
        return arrays


def read_array(file: ByteStream, size: int | None = None) -> ndarray:
    """Read an array of numbers from an NPY file.

    Args:
        size: bytes from the current position to the end. None finds out by seeking.

    Raises:
        FormatError: the array does not have plain numbers, or not as many as its shape says.
    """
    if size is None:
        start = file.tell()
        size = file.seek(0, os.SEEK_END) - start
        file.seek(start)
    shape, fortran, kind, head = read_array_head(file, size)
    return read_numbers(file, size - head, shape, fortran, kind)


def read_numbers(
    file: ByteStream, size: int, shape: tuple[int, ...], fortran: bool, kind: np.dtype[Any]
) -> ndarray:
    """Read the numbers after the head of an NPY file.

    Args:
        size: bytes from the current position to the end.
        fortran: whether columns are stored one after the other.
        kind: type of the numbers.

    Raises:
        FormatError: the type is not one of plain numbers, or there are not as many as the shape says.
    """
    # NumPy would unpickle objects, which can run code.
    if kind.hasobject or kind.kind not in "biufc":
        raise FormatError(f"the array has the type {shorten(str(kind))}; expected numbers.")
    expected = prod(shape) * kind.itemsize  # Python's integers do not overflow, NumPy's would
    if size != expected:
        raise FormatError(f"{size:,} bytes of numbers; expected {expected:,} for {kind} of {shape}.")
    data = bytearray(expected)  # frombuffer() of bytes would be read-only
    if file.readinto(memoryview(data)) != expected:  # type: ignore[attr-defined]
        raise EOFError("the array is truncated")
    return np.frombuffer(data, kind).reshape(shape, order="F" if fortran else "C")


def read_array_head(file: ByteStream, size: int) -> tuple[tuple[int, ...], bool, np.dtype[Any], int]:
    """Read the head of an NPY file.

    Returns:
        The shape, whether the order is Fortran's, the type, and the number of bytes of the head.

    Raises:
        FormatError: the head is not NumPy's.
    """
    start = file.read(12)  # magic, version and length; in version 1 also the first two bytes of the text
    version, wide = start[6:8], start[6:7] > b"\x01"
    if start[:6] != b"\x93NUMPY" or version not in (b"\x01\x00", b"\x02\x00", b"\x03\x00"):
        raise FormatError(f"the content begins with {start[:8]!r}; expected a NumPy array.")
    length = int.from_bytes(
        start[8 : 12 if wide else 10], "little"
    )  # version 1 has two bytes, later ones four
    head = length + (12 if wide else 10)
    if head > min(size, MAX_HEAD):
        raise FormatError(f"its head has {length:,} bytes; expected at most {min(size, MAX_HEAD):,}.")
    with guarded("its head", "one of NumPy"):
        text = io.BytesIO(start + file.read(head - 12))
        # Moves to where NumPy's function expects to begin.
        np.lib.format.read_magic(text)
        read = np.lib.format.read_array_header_2_0 if wide else np.lib.format.read_array_header_1_0
        shape, fortran, kind = read(text, max_header_size=MAX_HEAD)
    # 32 is NumPy's own limit before 2.0. type() and not isinstance(), because True is an int.
    if len(shape) > 32 or not all(type(side) is int and 0 <= side < 1 << 40 for side in shape):
        raise FormatError(
            f"the array has the shape {shorten(shape)}; expected at most 32 sides below 2 to the power of 40."
        )
    return shape, bool(fortran), kind, head
