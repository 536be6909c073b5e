"""ZIP archives of strangers: what is packed inside is looked at before it is unpacked."""

import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from diptych.errors import FormatError

ENCRYPTED = 1  # flag of a member
LARGEST = 64 << 20  # bytes of all arrays of one image; as other numbers they may take eight times as much
PACKED = 200  # times that a text of features shrinks at most; base64 of numbers shrinks by less than 2


@contextmanager
def guarded(name: object, what: str) -> Iterator[None]:
    """Turn all that a damaged archive or array raises into one error, `NAME is not a whole WHAT`."""
    try:
        yield
    except FormatError as error:
        raise error if str(error).startswith(str(name)) else FormatError(f"{name}: {error}") from error
    except (
        zipfile.BadZipFile,
        zlib.error,
        OSError,
        EOFError,
        ValueError,  # also text that is not UTF-8
        TypeError,
        KeyError,
        RuntimeError,  # also methods and versions that are not implemented
        OverflowError,
        MemoryError,
    ) as error:
        reason = str(error) or type(error).__name__
        raise FormatError(f"{name} is not a whole {what} ({reason:.300}).") from error


def open_zip(file: Any) -> zipfile.ZipFile:
    """An archive, if its list of members is readable."""
    try:
        return zipfile.ZipFile(file)
    except (NotImplementedError, UnicodeDecodeError, OverflowError) as error:
        raise zipfile.BadZipFile(f"its list of files cannot be read: {error}") from error


def require_plain(member: zipfile.ZipInfo, largest: int) -> None:
    """Refuse what cannot be unpacked in bounded memory.

    Raises:
        FormatError: the member is encrypted, packed with another method than deflate (LZMA and BZIP2 unpack a
            few bytes into gigabytes at once), or larger than `largest` bytes.
    """
    if member.flag_bits & ENCRYPTED:
        raise FormatError(f"{member.filename!r:.200} is encrypted; unpack it with its password.")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise FormatError(
            f"{member.filename!r:.200} is packed with method {member.compress_type}; expected stored or "
            "deflated. Unpack the archive and pack it again."
        )
    if member.file_size > largest:
        raise FormatError(
            f"{member.filename!r:.200} unpacks to {member.file_size:,} bytes; expected at most {largest:,}."
        )
