"""Reads pickles of plain values and NumPy arrays without running any code they name.

Every name that a pickle of arrays needs is given a stand-in of ours, which takes down type, shape and bytes;
NumPy's own unpickling, which trusts what it is told about types, is not used. Any other name is refused.
"""

import io
import pickle
from math import prod
from typing import IO, Any

import numpy as np
from numpy import ndarray

from diptych.errors import FormatError


class _Type:
    """Stands for `numpy.dtype`: plain numbers, or `O` for a box around other values."""

    __slots__ = ("value",)

    def __init__(self, name: str, *copy: object) -> None:
        if name[:1] not in "biufO" or not (name[1:].isdigit() or name in "bO"):
            raise FormatError(f"it holds an array of type {name!r}; expected numbers.")
        self.value = np.dtype(name)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if state[1] in ("<", ">"):
            self.value = self.value.newbyteorder(state[1])


class _Array:
    """Stands for `numpy.ndarray`, and for the function that makes an empty one to be filled.

    All stand-ins have `__setstate__`, without which a pickle could set their attributes.
    """

    __slots__ = ("value",)

    def __init__(self, *arguments: object) -> None:
        self.value: Any = None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, kind, fortran, data = state
        if kind.value.hasobject:
            if not isinstance(data, list) or len(data) != prod(shape):
                raise FormatError(f"an array of objects of shape {shape} does not list them.")
            self.value = data[0] if shape == () else data
        else:
            self.value = _numbers(data, kind, shape, fortran=fortran)


class _Buffer(_Array):
    """Stands for the function of pickle protocol 5 that makes an array of bytes."""

    __slots__ = ()

    def __init__(self, data: Any, kind: _Type, shape: tuple[int, ...], order: str) -> None:
        self.value = _numbers(bytes(data), kind, shape, fortran=order == "F")


class _Scalar(_Array):
    """Stands for the function that makes a NumPy scalar."""

    __slots__ = ()

    def __init__(self, kind: _Type, data: bytes | str) -> None:
        self.value = _numbers(data, kind, (), fortran=False).item()


class _Latin(_Array):
    """Stands for `codecs.encode` and `bytes`, by which old protocols write bytes and no bytes."""

    __slots__ = ()

    def __new__(cls, text: str = "", encoding: str = "") -> bytes:  # type: ignore[misc]
        return text.encode("latin1")


STAND_INS: dict[tuple[str, str], type] = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Type,
    ("_codecs", "encode"): _Latin,
    ("__builtin__", "bytes"): _Latin,
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _Array for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "scalar"): _Scalar for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _Buffer for core in ("core", "_core")},
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> type:
        try:
            return STAND_INS[module, name]
        except KeyError:
            raise FormatError(
                f"its pickle asks for {module}.{name}, which could run code; only numbers, texts, lists, "
                "dicts and NumPy arrays are read."
            ) from None


def read_pickle(data: bytes | memoryview | IO[bytes]) -> Any:
    """The value of a pickle: plain Python values, and arrays of numbers.

    Raises:
        FormatError: the pickle is damaged, or asks for anything else.
    """
    file = io.BytesIO(data) if isinstance(data, (bytes, memoryview)) else data
    try:
        return _plain(_Unpickler(file, encoding="latin1").load())
    except FormatError:
        raise
    except Exception as error:  # a damaged pickle may raise nearly anything
        raise FormatError(f"it is no whole pickle ({type(error).__name__}: {error}).") from error


def _numbers(data: Any, kind: _Type, shape: tuple[int, ...], *, fortran: bool) -> ndarray:
    raw = data.encode("latin1") if isinstance(data, str) else data
    if kind.value.hasobject or len(raw) != prod(shape) * kind.value.itemsize:
        raise FormatError(f"an array of shape {shape} does not have {len(raw)} bytes.")
    return np.frombuffer(raw, kind.value).reshape(shape, order="F" if fortran else "C")


def _plain(value: Any) -> Any:
    """Stand-ins replaced by what they stand for."""
    if isinstance(value, _Array):
        return _plain(value.value)
    if isinstance(value, dict):
        return {_plain(key): _plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(map(_plain, value))
    if isinstance(value, _Type):
        raise FormatError("it holds a type where a value is expected.")
    return value
