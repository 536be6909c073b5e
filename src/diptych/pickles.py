"""Reads pickles without importing or calling anything that they name.

A pickle is a program for a small stack machine. This one keeps the machine and takes away its hands: names
become stand-ins of ours, which take down type, shape and bytes, or are refused. NumPy's and PyTorch's own
constructors are not used, since they trust what a pickle says about types. Work and memory are bounded by
the size of the file: lengths are compared with what is left before anything is allocated, and values that
refer to themselves or repeat each other without end are refused.
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

MAX_VALUES = 20_000_000  # with shared values counted as often as they occur
MAX_DEPTH = 100


class NumberType(Stateful):
    """Stands for `numpy.dtype`: plain numbers, or `O` for a box around other values."""

    __slots__ = ()

    def __init__(self, name: object) -> None:
        super().__init__()
        text = name.decode("latin1") if isinstance(name, bytes) else str(name)
        if text[:1] not in "biufO" or not (text[1:].isdigit() or text in "bO"):
            raise FormatError(f"it holds an array of type {shorten(text)}; expected numbers.")
        self.value = np.dtype(text)

    def build(self, machine: Unpickler, state: Any) -> Any:
        """Take the byte order of a state; one that describes fields or parts is none of plain numbers."""
        if any(state[2:5]):
            raise FormatError("it holds an array of records; expected numbers.")
        if state[1] in (">", b">"):
            self.value = self.value.newbyteorder(">")
        return self


class Array(Stateful):
    """Stands for a `numpy.ndarray` that a pickle makes empty and fills in the next step."""

    __slots__ = ()

    def build(self, machine: Unpickler, state: Any) -> Any:
        if self.full:
            raise FormatError("it fills an array twice.")
        self.value, self.full = _filled(machine, state), True
        return self.value

    def fetched(self) -> Any:
        if not self.full:
            raise FormatError("an array holds itself.")
        return self.value


def _number_type(machine: Unpickler, name: object, *copy: object) -> NumberType:
    return NumberType(name)


def _scalar(machine: Unpickler, kind: NumberType, data: bytes | str) -> Any:
    return _numbers(machine, data, kind, (), fortran=False).item()


def _buffer(machine: Unpickler, data: bytes, kind: NumberType, shape: tuple[int, ...], order: str) -> ndarray:
    return _numbers(machine, data, kind, shape, fortran=order == "F")


def _latin(machine: Unpickler, text: str = "", encoding: str = "latin1") -> bytes:
    """What `codecs.encode` and `bytes` make, by which old protocols write bytes and no bytes."""
    if encoding not in ("latin1", "latin-1"):
        raise FormatError(f"it asks for the codec {shorten(encoding)}; expected latin1.")
    machine.spend(len(text))
    return text.encode("latin1")


def _mapping(machine: Unpickler, items: Any = (), *more: object) -> dict[Any, Any]:
    """What dicts with an order, a default or a count begin as."""
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
    """The value of a pickle: plain Python values, and arrays of numbers.

    Raises:
        FormatError: the pickle is damaged, or asks for anything else.
    """
    machine = Unpickler(io.BytesIO(data) if isinstance(data, (bytes, memoryview)) else data, STAND_INS)

    def load() -> Any:
        value = machine.load()
        _require_plain(value, machine.shared, {})
        return value

    return guarded(load)


def _filled(machine: Unpickler, state: Any) -> Any:
    _, shape, kind, fortran, data = state
    if not isinstance(kind, NumberType):
        raise FormatError(f"an array has the type {shorten(kind)}.")
    if not kind.value.hasobject:
        return _numbers(machine, data, kind, shape, fortran=bool(fortran))
    if not isinstance(data, list) or len(data) != _count(shape):
        raise FormatError(f"an array of objects of shape {shorten(shape)} does not list them.")
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
    """How many values there are and how deep, so that nobody walks on forever.

    Values that are shared count each time, but are looked at once.
    """
    if isinstance(value, str):
        if not value.isascii():
            value.encode("utf-8")
        return 1, 0
    if value is None or isinstance(value, (bool, int, float, bytes, ndarray)):
        return 1, 0
    if not isinstance(value, (list, tuple, dict)) or isinstance(value, (Name, Foreign)):
        raise FormatError(f"it holds a {type(value).__name__} where a value is expected.")
    total, height = known.get(id(value), (1, 0))
    if total == 1:
        if depth < 1:
            raise FormatError(f"it is nested more than {MAX_DEPTH} deep, or holds itself.")
        for inner in (*value.keys(), *value.values()) if isinstance(value, dict) else value:
            if type(inner) in (bytes, int, float):  # long lists of numbers and ids
                total += 1
                continue
            count, below = _require_plain(inner, shared, known, depth - 1)
            total, height = total + count, max(height, below)
            if total > MAX_VALUES:
                raise FormatError("it repeats its values without end.")
        height += 1
        if id(value) in shared:
            known[id(value)] = total, height
    if height > depth:
        raise FormatError(f"it is nested more than {MAX_DEPTH} deep, or holds itself.")
    return total, height
