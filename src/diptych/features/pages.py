"""Reads the pages of an LMDB file without LMDB's library.

The library maps the file and trusts every page number and length in it, so one damaged page ends the process
with SIGBUS or SIGSEGV. This module checks every number against the file; reading past its end is an error.
The layout is that of LMDB 0.9 on 64-bit little-endian machines, data format 1.
"""

import os
import struct
from pathlib import Path
from typing import NamedTuple

from diptych.errors import FormatError

MAGIC = 0xBEEFC0DE
META = struct.Struct("<16xIIQQIHHQQQQQIHHQQQQQQQ")  # a page header, then MDB_meta
NODE = struct.Struct("<HHHH")  # size (low, high), flags, length of the key
HEADER = 16  # bytes of a page header
BRANCH, LEAF, OVERFLOW = 1, 2, 4  # flags of a page
KIND = 0x6F  # mask without the flags that the library may leave on pages it has just written
BIG, NOT_PLAIN = 1, 6  # flags of a node: value on overflow pages; sub-database or several values per key
DEEPEST = 32  # levels of the tree; the limit of the library


class Place(NamedTuple):
    """Position of a value in the file; `owner` is its first overflow page, or None if it is inside a leaf."""

    start: int
    size: int
    owner: int | None = None


class Pages:
    """Keys and values of the main database of an LMDB file.

    Args:
        descriptor: file descriptor of the open file.

    Attributes:
        places: positions of the values by key, in the order of keys.
        damage: descriptions of damaged pages; their keys are not in `places`.

    Raises:
        FormatError: the file is not an LMDB of this layout, or cut off.
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
        self._last, self._seen = last, set[int]()  # a page that is reached twice means a circle
        if root != 2**64 - 1:  # the root of an empty database
            self._walk(root)

    def get(self, key: bytes) -> bytes | None:
        """The value of a key; None if the key does not exist.

        Raises:
            FormatError: the pages of the value are damaged.
        """
        place = self.places.get(key)
        if place is None:
            return None
        if place.owner is not None:
            head = self._read(place.owner * self._page, HEADER)
            number, flags = struct.unpack_from("<QxxH", head)
            pages = struct.unpack_from("<I", head, 12)[0]
            if number != place.owner or not flags & OVERFLOW or pages * self._page < HEADER + place.size:
                raise FormatError(
                    f"damaged LMDB: page {place.owner} is not the page that its position requires."
                )
        return self._read(place.start, place.size)

    def _newest(self) -> tuple[int, int, int]:
        """Page size, root and last page, from the newer of the two meta pages.

        LMDB writes them in turns. Both must be whole: if one is damaged, the other may be out of date.
        """
        metas, size = [], 0
        for place in (0, 1):
            head = os.pread(self.descriptor, META.size, place * size)
            values = META.unpack(head) if len(head) == META.size else (0, 0, 0, 0, 0)
            # `size` places the second page, so both must be read in this order.
            magic, version, size = values[0], values[1], values[4]
            if magic != MAGIC or version != 1 or size not in (1 << bits for bits in range(9, 17)):
                raise FormatError(f"{self.path}: not a whole LMDB (page {place} is no meta page).")
            metas.append((values[-1], size, values[19], values[-2]))  # the transaction number first
        _, size, root, last = max(metas)
        return size, root, last

    def _walk(self, root: int) -> None:
        # A stack of our own: recursion would let a file choose how deep Python goes.
        waiting = [(root, 1)]
        while waiting:
            number, depth = waiting.pop()
            try:
                below = self._nodes(number, depth)
            except (FormatError, struct.error) as error:
                self.damage.append(f"page {number}: {error}")
                continue
            waiting += [(child, depth + 1) for child in reversed(below)]  # a stack: the first key comes first

    def _nodes(self, number: int, depth: int) -> list[int]:
        """Record the keys of a leaf, or return the child pages of a branch."""
        if number > self._last or number in self._seen or depth > DEEPEST:
            raise FormatError("the tree leads in circles or out of the file")
        self._seen.add(number)
        page = self._read(number * self._page, self._page)
        own, flags, lower, upper = struct.unpack_from("<QxxHHH", page)
        leaf = flags & KIND == LEAF
        if own != number or flags & KIND not in (LEAF, BRANCH) or not HEADER <= lower <= upper <= self._page:
            raise FormatError("it is not the page that its position requires")
        places, below = {}, []  # recorded at the end: of a damaged page, no key counts
        for (offset,) in struct.iter_unpack("<H", page[HEADER : lower - lower % 2]):
            low, high, kind, length = NODE.unpack_from(page, offset)
            start = offset + NODE.size
            key = page[start : start + length]
            if not leaf:
                below.append(low | high << 16 | kind << 32)  # a 48-bit page number in place of size and flags
            elif len(key) < length or not key:
                raise FormatError("a key leaves its page")
            elif not kind & NOT_PLAIN:
                places[key] = self._value(
                    number, page, start + length, low | high << 16, big=bool(kind & BIG)
                )
        self.places |= places
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
            raise FormatError(f"damaged LMDB: {size:,} bytes at {start:,} lie beyond its end.")
        data = os.pread(self.descriptor, size, start)
        if len(data) < size:
            raise FormatError("damaged LMDB: it became shorter while it was read.")
        return data
