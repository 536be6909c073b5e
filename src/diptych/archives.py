"""ZIP archives and NumPy arrays of strangers: checked before anything is unpacked or allocated."""

import errno
import io
import os
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy import ndarray

from diptych.documents import shorten
from diptych.errors import FormatError
from diptych.files import ByteStream

ROOM = 64 << 20  # bytes that any archive may unpack to
MAX_RATIO = 20  # of what is unpacked to what is stored, beyond that room; weights shrink by a tenth
MAX_MEMBERS = 1_000_000
ENCRYPTED = 1  # flag of a member
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # the others take memory as the file says
MAX_HEAD = 1 << 16


@contextmanager
def open_archive(path: Path) -> Iterator[zipfile.ZipFile]:
    """A ZIP archive whose members can be read; every error of reading it names the file.

    Raises:
        FormatError: not a whole archive, encrypted, packed by an unusual method, with two members of one
            name, or one that unpacks to far more than it stores.
    """
    with guarded(path, "a whole ZIP archive"), zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        # Readers disagree on which of two members of one name counts, so a check could see other content than
        # a reader.
        if len(archive.NameToInfo) < len(members):
            raise FormatError(f"{path}: two members of the archive have the same name.")
        if len(members) > MAX_MEMBERS:
            raise FormatError(f"{path}: {len(members):,} members; expected at most {MAX_MEMBERS:,}.")
        with guarded(path, "a whole ZIP archive", named=True):
            for member in members:
                require_plain(member)
        require_room(path, sum(member.file_size for member in members))
        yield archive


def require_plain(member: zipfile.ZipInfo, largest: int | None = None) -> None:
    """Refuse a member that cannot be unpacked in bounded memory.

    Args:
        largest: bytes that it may unpack to; None leaves that to `require_room`.

    Raises:
        FormatError: it is encrypted, packed by another method than deflate (LZMA and BZIP2 unpack a few bytes
            into gigabytes at once), or too large.
    """
    name = shorten(member.filename)
    if member.flag_bits & ENCRYPTED:
        raise FormatError(f"{name} is encrypted. Unpack it and give what is in it.")
    if member.compress_type not in METHODS:
        raise FormatError(
            f"{name} is packed by method {member.compress_type}; expected stored or deflated. Unpack the "
            "archive and pack it again."
        )
    if largest is not None and member.file_size > largest:
        raise FormatError(f"{name} unpacks to {member.file_size:,} bytes; expected at most {largest:,}.")


def require_room(path: Path, total: int) -> None:
    """Refuse an archive that unpacks to far more than it stores.

    Raises:
        FormatError: `total` bytes are more than `MAX_RATIO` times those of the file, and more than `ROOM`.
    """
    size = path.stat().st_size
    if total > ROOM + MAX_RATIO * size:
        raise FormatError(
            f"{path}: {size:,} bytes that unpack to {total:,}, more than {MAX_RATIO} times as many. If you "
            "trust it, unpack it yourself."
        )


@contextmanager
def guarded(path: object, what: str, *, named: bool = False) -> Iterator[None]:
    """Whatever goes wrong inside is a `FormatError` about this file: damage breaks readers in many ways.

    Args:
        named: put the path before errors that do not begin with it, too.
    """
    try:
        yield
    except FormatError as error:
        if not named or str(error).startswith(str(path)):
            raise
        raise FormatError(f"{path}: {error}") from error
    except Exception as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise  # of what is written meanwhile
        # a system error has the path in its text, too
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        # shorten() gives a repr; the slice below takes off its quotes.
        text = shorten(next(iter(str(reason).splitlines()), "") or type(error).__name__, 200)
        raise FormatError(f"{path}: not {what} ({text[1:-1]}). Download or copy it again.") from error


def read_npz(path: Path) -> dict[str, ndarray]:
    """The arrays of an NPZ file by name.

    Raises:
        FormatError: not a whole archive of arrays of numbers, see `open_archive`, `read_array`.
    """
    with open_archive(path) as archive:
        arrays = {}
        for member in archive.infolist():
            where = f"{path}: {shorten(member.filename)}"
            with guarded(where, "a whole array", named=True), archive.open(member) as file:
                arrays[member.filename.removesuffix(".npy")] = read_array(file, member.file_size)
        return arrays


def read_array(file: ByteStream, size: int | None = None) -> ndarray:
    """The array of numbers in an NPY file.

    Args:
        size: in bytes, of the file from where it stands; None asks a file that can be sought in.

    Raises:
        FormatError: it holds no plain numbers, or another number of them than its shape says.
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
    """What stands behind the head of an NPY file.

    Raises:
        FormatError: no plain numbers, or another number of them than the shape says.
    """
    # An array of objects is a pickle inside, and unpickling runs code.
    if kind.hasobject or kind.kind not in "biufc":
        raise FormatError(f"it holds {shorten(str(kind))}; expected numbers.")
    expected = prod(shape) * kind.itemsize
    if size != expected:
        raise FormatError(f"{size:,} bytes of numbers; expected {expected:,} for {kind} of {shape}.")
    data = bytearray(expected)  # frombuffer() of bytes would be read-only
    if file.readinto(memoryview(data)) != expected:  # type: ignore[attr-defined]
        raise EOFError("it ends too soon")
    return np.frombuffer(data, kind).reshape(shape, order="F" if fortran else "C")


def read_array_head(file: ByteStream, size: int) -> tuple[tuple[int, ...], bool, np.dtype[Any], int]:
    """Shape, order, type and the bytes that the head of an NPY file takes.

    Raises:
        FormatError: the head is none of NumPy's.
    """
    start = file.read(12)
    version, wide = start[6:8], start[6:7] > b"\x01"
    if start[:6] != b"\x93NUMPY" or version not in (b"\x01\x00", b"\x02\x00", b"\x03\x00"):
        raise FormatError(f"it begins with {start[:8]!r}; expected an array of NumPy.")
    # Version 1 has a length of two bytes, the later ones of four.
    length = int.from_bytes(start[8 : 12 if wide else 10], "little")
    head = length + (12 if wide else 10)
    if head > min(size, MAX_HEAD):
        raise FormatError(f"its head has {length:,} bytes; expected at most {min(size, MAX_HEAD):,}.")
    with guarded("its head", "one of NumPy"):
        text = io.BytesIO(start + file.read(head - 12))
        np.lib.format.read_magic(text)
        read = np.lib.format.read_array_header_2_0 if wide else np.lib.format.read_array_header_1_0
        shape, fortran, kind = read(text, max_header_size=MAX_HEAD)
    # 32 is NumPy's own limit before 2.0. type() and not isinstance(), because True is an int.
    if len(shape) > 32 or not all(type(side) is int and 0 <= side < 1 << 40 for side in shape):
        raise FormatError(f"its shape is {shorten(shape)}.")
    return shape, bool(fortran), kind, head
