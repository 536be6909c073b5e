"""Reads folders of Paddle parameters, one file per variable, without Paddle.

Layout of a file, little endian: uint32 version; uint64 number of levels; for each level a uint64 length and
that many bytes; uint32 version; int32 length of a description; the description (protobuf: field 1 is the
type, field 2 the dimensions); the numbers, row by row. Versions are 0. Levels group the rows of sequences and
have no meaning in a parameter.
"""

import math
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from diptych.errors import FormatError
from diptych.files import require_file

TYPES = {  # `VarType` of Paddle's framework.proto
    0: torch.bool,
    1: torch.int16,
    2: torch.int32,
    3: torch.int64,
    4: torch.float16,
    5: torch.float32,
    6: torch.float64,
    20: torch.uint8,
    21: torch.int8,
    22: torch.bfloat16,
    23: torch.complex64,
    24: torch.complex128,
}
MAX_HEAD = 1 << 20  # bytes before the numbers; parameters need fewer than 100
MAX_RANK = 32
# Tags of the description: field number * 8 + wire type. A list of numbers may be packed into bytes.
TYPE, DIMENSION, PACKED_DIMENSIONS = 0x08, 0x10, 0x12


def read_paddle(folder: Path | str) -> dict[str, Tensor]:
    """Read all variables of a folder by their file names. Hidden files are skipped.

    Raises:
        FormatError: the folder does not exist or is empty, or a file is not a complete variable.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FormatError(f"{folder}: no such folder of Paddle parameters.")
    paths = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    if not paths:
        raise FormatError(f"{folder}: has no files; expected one file per Paddle variable.")
    return {path.name: read_variable(path) for path in paths}


def read_variable(path: Path) -> Tensor:
    """Read one variable.

    Raises:
        FormatError: the file is not a complete variable.
    """
    with open(require_file(path, "a Paddle variable"), "rb") as file:
        head = file.read(MAX_HEAD)
        try:
            dtype, shape, start = _head(head)
        except (struct.error, IndexError, KeyError, ValueError, OverflowError) as error:
            raise FormatError(
                f"{path}: not a Paddle variable ({error!r}). Copy or unpack it again."
            ) from error
        # Compare with the size of the file before memory is allocated: the shape comes from a stranger.
        size, rest = math.prod(shape) * dtype.itemsize, path.stat().st_size - start
        if rest != size:
            raise FormatError(
                f"{path}: {rest} bytes of numbers; expected {size} for {dtype} of shape {tuple(shape)}. "
                "Copy or unpack it again."
            )
        if not size:
            return torch.empty(shape, dtype=dtype)
        file.seek(start)
        raw = torch.from_numpy(np.fromfile(file, np.uint8, size))
    if dtype == torch.bool:
        raw = raw != 0  # torch has undefined behavior for a bool of another byte than 0 and 1
    return raw.view(dtype).reshape(shape)


def _head(content: bytes) -> tuple[torch.dtype, list[int], int]:
    """Read the head of a file; returns type, shape, and the position of the first number."""
    version, levels = struct.unpack_from("<IQ", content, 0)
    at = 12
    for _ in range(levels):
        # Huge numbers of levels or lengths end in `struct.error`, at the end of `content`.
        at += 8 + struct.unpack_from("<Q", content, at)[0]
    inner_version, length = struct.unpack_from("<Ii", content, at)
    if version or inner_version:
        raise ValueError(f"versions {version} and {inner_version}, expected 0")
    start = at + 8 + length
    # The length is signed: a negative one would move the start backwards.
    if not 0 < length <= len(content) - at - 8:
        raise ValueError(f"a description of {length} bytes")
    code, shape = None, []
    for tag, value in _fields(content[at + 8 : start]):
        if tag == TYPE:
            code = value
        else:
            shape.append(value)
    if code is None:
        raise ValueError("no type")
    # Python multiplies without limit, so absurd sides are refused before their product is formed. Varints
    # have no sign here: -1, Paddle's unknown dimension, arrives as 2^64 - 1.
    if len(shape) > MAX_RANK or any(side >= 1 << 40 for side in shape):
        raise ValueError(f"a shape of {len(shape)} dimensions, up to {max(shape)}")
    return TYPES[code], shape, start


def _fields(description: bytes) -> Iterator[tuple[int, int]]:
    """Tags and values of a protobuf message that has only numbers."""
    at = 0
    while at < len(description):
        tag, at = description[at], at + 1
        value, at = _varint(description, at)
        if tag == PACKED_DIMENSIONS:
            end = at + value
            while at < end:
                value, at = _varint(description, at)
                yield DIMENSION, value
        elif tag in (TYPE, DIMENSION):
            yield tag, value
        else:
            raise ValueError(f"unknown tag {tag} in the description")


def _varint(content: bytes, at: int) -> tuple[int, int]:
    """A protobuf number and the position after it. Each byte has seven bits; the eighth bit: more follow."""
    value = shift = 0
    while True:
        byte = content[at]
        value, shift, at = value | (byte & 0x7F) << shift, shift + 7, at + 1
        if not byte & 0x80:
            return value, at
        if shift > 63:
            raise ValueError("a number of more than 64 bits")
