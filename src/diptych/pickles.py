"""Reads pickles of plain values and arrays without importing or calling anything that they name.

A pickle is a program for a stack machine. Here, names are replaced by our own stand-ins, which only record
type, shape and bytes, or they are rejected. NumPy's and PyTorch's own constructors are not used, because they
trust what a pickle says about types. Time and memory are bounded by the size of the file: lengths are
compared with the remaining bytes before memory is allocated, and values that contain themselves or repeat
each other without limit are rejected.
"""

import io
from math import prod
from typing import Any

import numpy as np
from numpy import ndarray

from diptych.documents import shorten
from diptych.errors import FormatError
from diptych.files import ByteStream
from diptych.pickle_machine import Foreign, Name, StandIn, Stateful, Unpickler, guarded, key_of

MAX_VALUES = 20_000_000  # number of values; shared values count each time they occur
MAX_DEPTH = 100  # nesting of values


class NumberType(Stateful):
    """Stand-in for `numpy.dtype`: a number type, or `O` for arrays of other values."""

    __slots__ = ()

    def __init__(self, name: object) -> None:
        super().__init__()
        text = name.decode("latin1") if isinstance(name, bytes) else str(name)
        if text[:1] not in "biufO" or not (text[1:].isdigit() or text in "bO"):
            raise FormatError(f"it has an array of type {shorten(text)}; expected numbers.")
        self.value = np.dtype(text)

    def build(self, machine: Unpickler, state: Any) -> Any:
        """Set the byte order from the state. States with fields or subarrays are rejected."""
        if any(state[2:5]):  # subarray, names and offsets of fields
            raise FormatError("it has an array of records; expected numbers.")
        if state[1] in (">", b">"):  # Python 2 wrote bytes
            self.value = self.value.newbyteorder(">")
        return self


class Array(Stateful):
    """Stand-in for a `numpy.ndarray`, which a pickle creates empty and fills in a later instruction."""

    __slots__ = ()

    def build(self, machine: Unpickler, state: Any) -> Any:
        if self.full:
            raise FormatError("it fills an array twice.")
        self.value, self.full = _filled(machine, state), True
        return self.value

    def fetched(self) -> Any:
        if not self.full:
            raise FormatError("an array contains itself.")
        return self.value


def _number_type(machine: Unpickler, name: object, *copy: object) -> NumberType:
    return NumberType(name)


def _scalar(machine: Unpickler, kind: NumberType, data: bytes | str) -> Any:
    return _numbers(machine, data, kind, (), fortran=False).item()


def _buffer(machine: Unpickler, data: bytes, kind: NumberType, shape: tuple[int, ...], order: str) -> ndarray:
    return _numbers(machine, data, kind, shape, fortran=order == "F")


def _latin(machine: Unpickler, text: str = "", encoding: str = "latin1") -> bytes:
    """Stand-in for `codecs.encode` and `bytes`, which old protocols use to write bytes and empty bytes."""
    if encoding not in ("latin1", "latin-1"):
        raise FormatError(f"it asks for the codec {shorten(encoding)}; expected latin1.")
    machine.spend(len(text))
    return text.encode("latin1")


def _mapping(machine: Unpickler, items: Any = (), *more: object) -> dict[Any, Any]:
    """Stand-in for OrderedDict, defaultdict and Counter."""
    pairs = list(items.items()) if isinstance(items, dict) else items if isinstance(items, list) else []
    machine.spend(len(pairs))
    return {key_of(machine, key): value for key, value in pairs}


STAND_INS: dict[tuple[str, str], StandIn] = {
    ("numpy", "ndarray"): lambda machine, *arguments: Array(),
    ("numpy", "dtype"): _number_type,
    ("_codecs", "encode"): _latin,
    ("__builtin__", "bytes"): _latin,
    ("builtins", "bytes"): _latin,
    **{("collections", name): _mapping for name in ("OrderedDict", "defaultdict", "Counter")},
    **{
        (f"numpy.{core}.multiarray", "_reconstruct"): lambda machine, *_: Array()
        for core in ("core", "_core")
    },
    **{(f"numpy.{core}.multiarray", "scalar"): _scalar for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _buffer for core in ("core", "_core")},
}


def read_pickle(data: bytes | memoryview | ByteStream) -> Any:
    """Read a pickle of plain Python values and arrays of numbers.

    Raises:
        FormatError: the pickle is damaged, or contains anything else.
    """
    machine = Unpickler(io.BytesIO(data) if isinstance(data, (bytes, memoryview)) else data, STAND_INS)

    def load() -> Any:
        value = machine.load()
        _require_plain(value, machine.shared, {})
        return value

    return guarded(load)


def _filled(machine: Unpickler, state: Any) -> Any:
    _, shape, kind, fortran, data = state  # the first is the version of this state
    if not isinstance(kind, NumberType):
        raise FormatError(f"an array has the type {shorten(kind)}.")
    if not kind.value.hasobject:
        return _numbers(machine, data, kind, shape, fortran=bool(fortran))
    if not isinstance(data, list) or len(data) != _count(shape):
        raise FormatError(f"an array of objects of shape {shorten(shape)} does not list them.")
    # Objects are listed in order, whatever the shape; callers read such arrays as lists.
    return data[0] if shape == () else data


def _numbers(machine: Unpickler, data: Any, kind: NumberType, shape: Any, *, fortran: bool) -> ndarray:
    raw = _latin(machine, data) if isinstance(data, str) else data
    if kind.value.hasobject or len(raw) != _count(shape) * kind.value.itemsize:
        raise FormatError(f"an array of shape {shorten(shape)} does not have {len(raw):,} bytes.")
    return np.frombuffer(raw, kind.value).reshape(shape, order="F" if fortran else "C")


def _count(shape: Any) -> int:
    if not isinstance(shape, tuple) or not all(type(side) is int and 0 <= side < 1 << 40 for side in shape):
        raise FormatError(f"an array has the shape {shorten(shape)}.")
    if len(shape) > 32:
        raise FormatError(f"an array has {len(shape)} dimensions.")
    return prod(shape)


def _require_plain(
    value: Any, shared: set[int], known: dict[int, tuple[int, int]], depth: int = MAX_DEPTH
) -> tuple[int, int]:
    """Check the types, number and depth of nested values, so that callers can walk through them safely.

    Args:
        shared: ids of values that occur more than once; they are visited once but counted each time.
        known: number and depth of the shared values visited so far.
        depth: nesting still allowed.

    Returns:
        Number and depth of the values.
    """
    if isinstance(value, str):
        if not value.isascii():
            value.encode("utf-8")  # fails for half a surrogate pair, which no file can hold
        return 1, 0
    if value is None or isinstance(value, (bool, int, float, bytes, ndarray)):
        return 1, 0
    if not isinstance(value, (list, tuple, dict)) or isinstance(value, (Name, Foreign)):
        raise FormatError(f"it has a {type(value).__name__} where a value is expected.")
    total, height = known.get(id(value), (1, 0))
    if total == 1:  # not visited yet, or empty
        if depth < 1:
            raise FormatError(f"it is nested more than {MAX_DEPTH} deep, or contains itself.")
        for inner in (*value.keys(), *value.values()) if isinstance(value, dict) else value:
            if type(inner) in (bytes, int, float):  # a fast path for long lists of numbers and ids
                total += 1
                continue
            count, below = _require_plain(inner, shared, known, depth - 1)
            total, height = total + count, max(height, below)
            if total > MAX_VALUES:
                raise FormatError("it repeats its values without limit.")
        height += 1
        if id(value) in shared:
            known[id(value)] = total, height
    # A shared value may occur deeper than where it was first visited.
    if height > depth:
        raise FormatError(f"it is nested more than {MAX_DEPTH} deep, or contains itself.")
    return total, height
