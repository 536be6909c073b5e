"""Small vocabularies of SentencePiece in both of their published forms."""

import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np

TEXTS = [
    "a dog runs over the green grass with a red ball",
    "two dogs and a cat look at the running children in the grass",
    "what a day, said the woman; the man said nothing at all",
    "i love the way you smell today, it's great",
]
UNKNOWN, CONTROL = 2, 3


def number(value: int) -> bytes:
    """A whole number as protocol buffers write it."""
    parts = []
    while value > 127:
        parts.append(value & 127 | 128)
        value >>= 7
    return bytes([*parts, value])


def part(key: int, value: int | float | bytes) -> bytes:
    """A field of a message."""
    if isinstance(value, bytes):
        return number(key << 3 | 2) + number(len(value)) + value
    if isinstance(value, float):
        return number(key << 3 | 5) + struct.pack("<f", value)
    return number(key << 3) + number(value)


def model(
    pieces: Sequence[tuple[str, float]],
    *,
    characters: bytes = b"",
    kinds: dict[str, int] | None = None,
    trainer: bytes = b"",
    normalizer: bytes = b"",
) -> bytes:
    """The content of a spiece.model."""
    kinds = {"<pad>": CONTROL, "</s>": CONTROL, "<unk>": UNKNOWN} if kinds is None else kinds
    body = b"".join(
        part(1, part(1, name.encode()) + part(2, score) + (part(3, kinds[name]) if name in kinds else b""))
        for name, score in pieces
    )
    return body + part(2, part(3, 1) + trainer) + part(3, part(2, characters) + normalizer)


def characters(replaced: str, by: str) -> bytes:
    """A compiled table that replaces one ASCII character: a double array of darts-clone, and the texts."""
    units = np.zeros(512, "<u4")
    units[0] = 256 << 10  # the children of the root are in the second block
    place = 256 ^ ord(replaced)
    units[place] = ord(replaced) | 1 << 8 | 1 << 10  # has a leaf, one place beside it
    units[place ^ 1] = 1 << 31
    return struct.pack("<I", units.nbytes) + units.tobytes() + by.encode() + b"\0"


def write(folder: Path, name: str, content: bytes | str) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path
