"""The pages of an LMDB file, read without LMDB's library.

The library maps the file and trusts every page number and length in it, so one damaged page ends the process
with SIGBUS or SIGSEGV. Here every number is checked against the file, and reading behind its end is an error.
The layout is that of LMDB 0.9 on 64-bit little-endian machines, data format 1.
"""

import os
import struct
from pathlib import Path
from typing import NamedTuple

from diptych.errors import FormatError

MAGIC = 0xBEEFC0DE
META = struct.Struct("<16xIIQQIHHQQQQQIHHQQQQQQQ")  # a page header, then MDB_meta
NODE = struct.Struct("<HHHH")
HEADER = 16
BRANCH, LEAF, OVERFLOW = 1, 2, 4  # flags of a page
KIND = 0x6F  # without those that the library leaves on pages it has just written
BIG, NOT_PLAIN = 1, 6  # flags of a node: value on pages of its own; databases within, several values per key
DEEPEST = 32  # levels of the tree, as in the library


class Place(NamedTuple):
    """Where a value lies; `owner` is the number of the page in front of it if it has pages of its own."""

    start: int
    size: int
    owner: int | None = None


class Pages:
    """Keys and values of the main database of an LMDB file.

    Args:
        descriptor: of the open file.

    Attributes:
        places: by key, in the order of keys.
        damage: what was wrong with pages whose keys are therefore not in `places`.

    Raises:
        FormatError: the file is no LMDB of this layout, or cut off.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path, self.descriptor = path, descriptor
        self.places: dict[bytes, Place] = {}
        self.damage: list[str] = []
        self._bytes = os.fstat(descriptor).st_size
        self._page, root, last = self._newest()
        if self._bytes < (last + 1) * self._page:
            raise FormatError(
                f"{path}: it has {self._bytes:,} bytes; expected at least {(last + 1) * self._page:,}. It is "
                "cut off; copy it again."
            )
        self._last, self._seen = last, set[int]()
        if root != 2**64 - 1:  # the root of an empty database
            self._walk(root)

    def get(self, key: bytes) -> bytes | None:
        """The value of a key; None if there is none.

        Raises:
            FormatError: its pages are damaged.
        """
        place = self.places.get(key)
        if place is None:
            return None
        if place.owner is not None:
            head = self._read(place.owner * self._page, HEADER)
            number, flags = struct.unpack_from("<QxxH", head)
            pages = struct.unpack_from("<I", head, 12)[0]
            if number != place.owner or not flags & OVERFLOW or pages * self._page < HEADER + place.size:
                raise FormatError(f"damaged LMDB: page {place.owner} is not what its place in the file says.")
        return self._read(place.start, place.size)

    def _newest(self) -> tuple[int, int, int]:
        """Page size, root and last page of the newer of the two descriptions at the start.

        Both are always there; if one is damaged, the other may be that of an older state.
        """
        found, size = [], 0
        for place in (0, 1):
            head = os.pread(self.descriptor, META.size, place * size)
            values = META.unpack(head) if len(head) == META.size else (0, 0, 0, 0, 0)
            magic, version, size = values[0], values[1], values[4]
            if magic != MAGIC or version != 1 or size not in (1 << bits for bits in range(9, 17)):
                raise FormatError(f"{self.path}: not a whole LMDB (page {place} does not describe it).")
            found.append((values[-1], size, values[19], values[-2]))
        _, size, root, last = max(found)
        return size, root, last

    def _walk(self, root: int) -> None:
        waiting = [(root, 1)]
        while waiting:
            number, depth = waiting.pop()
            try:
                below = self._nodes(number, depth)
            except (FormatError, struct.error) as error:
                self.damage.append(f"page {number}: {error}")
                continue
            waiting += [(one, depth + 1) for one in reversed(below)]

    def _nodes(self, number: int, depth: int) -> list[int]:
        """Take down what a leaf holds; of a branch, the pages below."""
        if number > self._last or number in self._seen or depth > DEEPEST:
            raise FormatError("the tree leads in circles or out of the file")
        self._seen.add(number)
        page = self._read(number * self._page, self._page)
        own, flags, lower, upper = struct.unpack_from("<QxxHHH", page)
        leaf = flags & KIND == LEAF
        if own != number or flags & KIND not in (LEAF, BRANCH) or not HEADER <= lower <= upper <= self._page:
            raise FormatError("it is not what its place in the file says")
        found, below = {}, []
        for (offset,) in struct.iter_unpack("<H", page[HEADER : lower - lower % 2]):
            low, high, kind, length = NODE.unpack_from(page, offset)
            start = offset + NODE.size
            key = page[start : start + length]
            if not leaf:
                below.append(low | high << 16 | kind << 32)
            elif len(key) < length or not key:
                raise FormatError("a key leaves its page")
            elif not kind & NOT_PLAIN:
                found[key] = self._value(number, page, start + length, low | high << 16, big=bool(kind & BIG))
        self.places |= found
        return below

    def _value(self, number: int, page: bytes, start: int, size: int, *, big: bool) -> Place:
        if not big:
            if start + size > self._page:
                raise FormatError("a value leaves its page")
            return Place(number * self._page + start, size)
        owner = struct.unpack_from("<Q", page, start)[0]
        if owner > self._last:
            raise FormatError("a value lies outside of the file")
        return Place(owner * self._page + HEADER, size, owner)

    def _read(self, start: int, size: int) -> bytes:
        if start + size > self._bytes:
            raise FormatError(f"damaged LMDB: {size:,} bytes at {start:,} lie behind its end.")
        data = os.pread(self.descriptor, size, start)
        if len(data) < size:
            raise FormatError("damaged LMDB: it became shorter while it was read.")
        return data
