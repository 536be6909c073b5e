"""Files of `torch.save`, read without `torch.load`: ZIP archives, the pickles before 1.6, the tars of 2017.

`torch.load(weights_only=True)` refuses files with a `Namespace` or an enum beside the weights. Here the
pickle only says where tensors lie. What else it holds becomes stand-ins; tensors are read when they have
been chosen, so that the moments of an optimizer cost nothing; shapes, strides and places are compared
with the bytes that are there.
"""

import os
import struct
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import torch
from numpy import ndarray
from torch import Tensor

from diptych.archives import open_archive
from diptych.documents import shorten
from diptych.errors import FormatError
from diptych.files import ByteStream
from diptych.pickle_machine import Foreign, Name, StandIn, Unpickler, guarded
from diptych.pickles import STAND_INS

MAGIC = 0x1950A86A20F9469CFC6C  # first value of a file before 1.6
MAX_PICKLE = 256 << 20  # bytes of the pickle in an archive; that of a model of 1,000 tensors has 100,000
REPEATED = 1 << 20  # numbers of a view that may show one several times
TYPES = {
    "Double": torch.float64,
    "Float": torch.float32,
    "Half": torch.float16,
    "BFloat16": torch.bfloat16,
    "Long": torch.int64,
    "Int": torch.int32,
    "Short": torch.int16,
    "Char": torch.int8,
    "Byte": torch.uint8,
    "Bool": torch.bool,
    "ComplexDouble": torch.complex128,
    "ComplexFloat": torch.complex64,
    "Untyped": torch.uint8,
}
Choose = Callable[[object], Mapping[str, Any]]
Bytes = Callable[["Storage"], Tensor]


class Storage(NamedTuple):
    """So many numbers in a row somewhere in the file, of which a view may show those from `start` on."""

    key: str
    dtype: torch.dtype
    numbers: int
    start: int = 0


class Lying(NamedTuple):
    """A tensor that has not been read yet."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class Unread(Foreign):
    """A tensor of a kind that weights do not have; `name` says which."""

    __slots__ = ()


def read_torch(path: Path, choose: Choose) -> dict[str, Tensor]:
    """The tensors that `choose` takes of what a file holds, in memory of their own.

    Args:
        choose: from dicts, lists, plain values, arrays, `Lying`, `Unread` and `Foreign` to `Lying` or arrays
            by name.

    Raises:
        FormatError: damaged; it asks for something that only an attack needs; or it lies about its tensors.
    """
    with open(path, "rb") as file:
        start = file.read(262)  # a tar has its mark at byte 257, not at the start
        if start[:4] == b"PK\x03\x04":
            return _read_archive(path, choose)
        file.seek(0)
        if start[257:] == b"ustar":
            return _read_tar(path, file, choose)
        return _read_pickles(path, file, choose)


def _read_archive(path: Path, choose: Choose) -> dict[str, Tensor]:
    with open_archive(path) as archive:
        names = [name for name in archive.namelist() if name.rpartition("/")[2] == "data.pkl"]
        if len(names) != 1:
            raise FormatError(
                f"{path}: a ZIP archive with {len(names)} files data.pkl; expected torch's, with one."
            )
        folder = names[0].removesuffix("data.pkl")
        # OpenAI's CLIP files are such programs. Their tensors lie inside of objects of classes that only the
        # program in the file defines.
        if f"{folder}constants.pkl" in archive.NameToInfo:
            raise FormatError(
                f"{path}: a TorchScript archive, which holds a program beside its weights. Programs are not "
                "run. Use the safetensors of these weights (Hugging Face, open_clip), or, if you trust "
                "the file, save torch.jit.load(FILE, map_location='cpu').state_dict() with torch.save."
            )
        if (size := archive.getinfo(names[0]).file_size) > MAX_PICKLE:
            raise FormatError(f"{path}: {names[0]} has {size:,} bytes; expected at most {MAX_PICKLE:,}.")
        order = f"{folder}byteorder"
        if order in archive.NameToInfo and archive.read(order).strip() != b"little":
            raise FormatError(f"{path}: its numbers are not little-endian. Save it on a usual machine.")

        def content(storage: Storage) -> Tensor:
            name = f"{folder}data/{storage.key}"
            if name not in archive.NameToInfo:
                raise FormatError(f"{path}: {shorten(name)} is missing. Download or copy it again.")
            return _bytes_of(path, archive, archive.getinfo(name), storage)

        with archive.open(names[0]) as file:
            value = _load(path, file, lambda saved: _storage(saved, {}))
        return _read_chosen(path, choose(value), content)


def _bytes_of(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo, storage: Storage) -> Tensor:
    expected = storage.numbers * storage.dtype.itemsize
    if member.file_size != expected:
        raise FormatError(
            f"{path}: {shorten(member.filename)} has {member.file_size:,} bytes; expected {expected:,}."
        )
    data = np.empty(expected, np.uint8)
    with archive.open(member) as file:
        if file.readinto(data.data) != expected:  # type: ignore[attr-defined]
            raise EOFError(f"{member.filename} ends too soon")
        file.read(1)  # compares the check sum
    return torch.from_numpy(data)


def _read_pickles(path: Path, file: IO[bytes], choose: Choose) -> dict[str, Tensor]:
    """A plain pickle, or torch's of before 1.6: magic number, version, machine, content, keys, numbers."""
    seen: dict[str, Storage] = {}

    def persistent(saved: Any) -> Any:
        return _storage(saved, seen)

    value = _load(path, file, persistent)
    if value != MAGIC or isinstance(value, Foreign):
        return _read_chosen(path, choose(value), _nothing(path))
    # The version of the protocol, which has always been 1001.
    _load(path, file, persistent)
    about = _load(path, file, persistent)
    if isinstance(about, dict) and about.get("little_endian") is False:
        raise FormatError(f"{path}: its numbers are not little-endian. Save it on a usual machine.")
    value, keys = _load(path, file, persistent), _load(path, file, persistent)
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise FormatError(f"{path}: not a whole torch file (no list of storages). Download or copy it again.")
    places = _places(path, file, [seen.get(key) for key in keys])
    return _read_chosen(
        path, choose(value), lambda storage: _part(path, file, places.get(storage.key), storage)
    )


def _places(path: Path, file: IO[bytes], storages: list[Storage | None]) -> dict[str, tuple[int, int]]:
    """Where the bytes of each storage begin, and how many there are; each has its length before it."""
    end, places = os.fstat(file.fileno()).st_size, {}
    for storage in storages:
        if storage is None:
            raise FormatError(f"{path}: it lists numbers that no tensor uses. Download or copy it again.")
        head = file.read(8)
        # The file counts values, not bytes.
        size = int.from_bytes(head, "little", signed=True) * storage.dtype.itemsize
        place = file.tell()
        if len(head) < 8 or not 0 <= size <= end - place:
            raise FormatError(
                f"{path}: not a whole torch file (numbers are missing). Download or copy it again."
            )
        places[storage.key] = place, size
        file.seek(size, os.SEEK_CUR)
    return places


def _read_tar(path: Path, file: IO[bytes], choose: Choose) -> dict[str, Tensor]:
    """The tars that torch wrote before 0.1.10: storages, views of them, tensors, content."""
    try:
        # "r:" takes no compression: a small file must not unpack to a large one.
        with tarfile.open(fileobj=file, mode="r:") as tar:
            parts = {one.name: tar.extractfile(one) for one in tar.getmembers() if one.isreg()}
            storages, tensors, content = (parts.get(name) for name in ("storages", "tensors", "pickle"))
            if storages is None or tensors is None or content is None:
                raise FormatError(
                    f"{path}: a tar of other files than torch's. Unpack it and give the file itself."
                )
            found, places = _tar_storages(path, storages)
            lying = _tar_tensors(path, tensors, found)

            def persistent(saved: Any) -> Any:
                return saved[0] if isinstance(saved, tuple) else lying[int(saved)]

            value = _load(path, content, persistent)
            return _read_chosen(
                path, choose(value), lambda storage: _part(path, storages, places.get(storage.key), storage)
            )
    except (tarfile.TarError, OSError, ValueError, TypeError, KeyError, struct.error, EOFError) as error:
        raise FormatError(
            f"{path}: not a whole tar of torch ({shorten(error)}). Download it again."
        ) from error


def _tar_storages(path: Path, file: ByteStream) -> tuple[dict[Any, Storage], dict[str, tuple[int, int]]]:
    found, places = {}, {}
    end = file.seek(0, os.SEEK_END)
    file.seek(0)
    for _ in range(_load(path, file)):
        key, _, kind = _load(path, file)
        dtype, count = _dtype(kind), int.from_bytes(file.read(8), "little", signed=True)
        size, place = count * dtype.itemsize, file.tell()
        if not 0 <= size <= end - place:
            raise EOFError("numbers are missing")
        found[key], places[str(key)] = Storage(str(key), dtype, count), (place, size)
        file.seek(size, os.SEEK_CUR)
    for key, root, start, count in _load(path, file):
        found[key] = _view(found[root], start, count)
    return found, places


def _tar_tensors(path: Path, file: ByteStream, storages: Mapping[Any, Storage]) -> dict[int, Lying]:
    found = {}
    for _ in range(_load(path, file)):
        key, storage, _ = _load(path, file)
        # Old files have eight bytes for the rank, of which torch itself ignores the last four.
        (rank,) = struct.unpack("<i4x", file.read(8))
        if not 0 <= rank <= 64:
            raise ValueError(f"a tensor of {rank} dimensions")
        numbers = struct.unpack(f"<{2 * rank + 1}q", file.read(8 * (2 * rank + 1)))  # sides, strides, offset
        found[int(key)] = Lying(storages[storage], numbers[-1], numbers[:rank], numbers[rank:-1])
    return found


def _load(path: Path, file: ByteStream, persistent: Callable[[Any], Any] | None = None) -> Any:
    machine = Unpickler(file, TORCH, foreign=True, persistent=persistent)
    try:
        return guarded(machine.load)
    except FormatError as error:
        raise FormatError(f"{path}: {error}") from error


def _part(path: Path, file: ByteStream, place: tuple[int, int] | None, storage: Storage) -> Tensor:
    if place is None or place[1] != storage.numbers * storage.dtype.itemsize:
        raise FormatError(
            f"{path}: the numbers {shorten(storage.key)} are missing. Download or copy it again."
        )
    # The size was compared with the file, so this allocates no more than the file has.
    data = np.empty(place[1], np.uint8)
    file.seek(place[0])
    if file.readinto(data.data) != place[1]:  # type: ignore[attr-defined]
        raise FormatError(f"{path}: it ends too soon. Download or copy it again.")
    return torch.from_numpy(data)


def _nothing(path: Path) -> Bytes:
    def missing(storage: Storage) -> Tensor:
        raise FormatError(f"{path}: it refers to numbers that it does not hold. Download or copy it again.")

    return missing


def _read_chosen(path: Path, chosen: Mapping[str, Any], content: Bytes) -> dict[str, Tensor]:
    storages: dict[str, Tensor] = {}
    result = {}
    for name, value in chosen.items():
        try:
            result[name] = (
                from_array(value) if isinstance(value, ndarray) else _tensor(value, content, storages)
            )
        except (ValueError, RuntimeError) as error:
            raise FormatError(f"{path}: {shorten(name)} {shorten(str(error), 200)[1:-1]}.") from error
    return result


def from_array(value: ndarray) -> Tensor:
    """A tensor with a copy of the numbers of an array, in this machine's order.

    Raises:
        ValueError: numbers of a type that torch does not have.
    """
    if value.dtype.itemsize > 16 or (value.dtype.kind == "f" and value.dtype.itemsize > 8):
        raise ValueError(f"holds numbers of type {value.dtype}")
    return torch.from_numpy(value.astype(value.dtype.newbyteorder("="), order="C"))  # a copy


def _tensor(lying: Lying, content: Bytes, storages: dict[str, Tensor]) -> Tensor:
    """A tensor as a view of its storage, which is read once.

    Raises:
        ValueError: it reaches beyond its storage, or shows so few numbers so often that they would fill the
            memory.
    """
    storage, offset, shape, strides = lying
    numbers = (storage.numbers, storage.start, offset, *shape, *strides)
    if len(shape) != len(strides) or len(shape) > 64 or any(not 0 <= one < 1 << 62 for one in numbers):
        raise ValueError(f"is a tensor of shape {shape} and strides {strides}")
    count, last = 1, offset
    for side, stride in zip(shape, strides, strict=True):
        count, last = count * side, last + (side - 1) * stride  # the last number that is shown
    if count and last >= storage.numbers - storage.start:
        raise ValueError(f"is a tensor of shape {shape} that reaches beyond its {storage.numbers:,} numbers")
    if count > max(storage.numbers, REPEATED):  # a stride of 0 shows one number any number of times
        raise ValueError(f"is a tensor of shape {shape} that repeats {storage.numbers:,} numbers")
    if not count:
        return torch.empty(shape, dtype=storage.dtype)
    if storage.key not in storages:
        storages[storage.key] = content(storage)
    raw = storages[storage.key]
    if storage.dtype == torch.bool:
        raw = raw != 0  # other bytes than 0 and 1 are no values of this type
    return raw.view(storage.dtype).as_strided(shape, strides, storage.start + offset)


def _storage(saved: Any, seen: dict[str, Storage]) -> Any:
    """What a persistent id stands for: numbers, or the class of a module beside its source."""
    if not isinstance(saved, tuple) or isinstance(saved, Name) or not saved:
        raise FormatError(f"it refers to {shorten(saved)}.")
    if saved[0] in ("module", b"module"):
        return saved[1]
    # "storage", class, key, device, number of values; before 1.6 also a view (key, start, number) or None.
    _, kind, key, _, count, *view = saved
    if isinstance(kind, Name) and kind.name.startswith("Q"):  # QInt8Storage and others
        return Unread("quantized tensor")
    key = key.decode("ascii") if isinstance(key, bytes) else key
    if not isinstance(key, str) or type(count) is not int:
        raise FormatError(f"it refers to {shorten(saved)}.")
    # Tied weights refer to one storage, which is read once.
    found = seen.setdefault(key, Storage(key, _dtype(kind), count))
    return _view(found, *view[0][1:]) if view and view[0] else found


def _view(root: Storage, start: Any, count: Any) -> Storage:
    if type(start) is not int or type(count) is not int or not 0 <= start <= start + count <= root.numbers:
        raise FormatError(f"it shows {shorten(count)} of {root.numbers:,} numbers from {shorten(start)} on.")
    return root._replace(start=root.start + start)


def _dtype(kind: Any) -> torch.dtype:
    """The number type of torch's class of storages, or of torch's name of it."""
    if isinstance(kind, Name):
        found = TYPES.get(kind.name.removesuffix("Storage"), getattr(torch, kind.name, None))
        if isinstance(found, torch.dtype) and kind.module.partition(".")[0] == "torch":
            return found
    raise FormatError(f"it holds numbers of type {shorten(kind)}.")


def _rebuild(machine: Unpickler, storage: Any, offset: Any, shape: Any, strides: Any, *more: Any) -> Any:
    if isinstance(storage, Unread):
        return storage
    numbers = (offset, *shape, *strides)
    if not isinstance(storage, Storage) or any(type(one) is not int for one in numbers):
        return Unread("tensor without numbers")
    dtypes = [
        one
        for one in more
        if isinstance(one, Name) and isinstance(getattr(torch, one.name, None), torch.dtype)
    ]
    if dtypes:  # newer number types have no class of storages; theirs counts bytes
        dtype = _dtype(dtypes[0])
        storage = Storage(storage.key, dtype, storage.numbers * storage.dtype.itemsize // dtype.itemsize)
    return Lying(storage, offset, tuple(shape), tuple(strides))


def _unread(kind: str) -> StandIn:
    return lambda machine, *_: Unread(kind)


TORCH: dict[tuple[str, str], StandIn] = {
    **STAND_INS,
    **{("torch._utils", f"_rebuild_tensor{version}"): _rebuild for version in ("", "_v2", "_v3")},
    **{
        ("torch._utils", f"_rebuild_parameter{state}"): lambda machine, data, *_: data
        for state in ("", "_with_state")
    },
    ("torch._tensor", "_rebuild_from_type_v2"): lambda machine, make, kind, inner, *_: machine._make(
        make, inner
    ),
    ("torch", "Size"): lambda machine, sides=(), *_: sides,
    ("torch._utils", "_rebuild_qtensor"): _unread("quantized tensor"),
    ("torch._utils", "_rebuild_sparse_tensor"): _unread("sparse tensor"),
    ("torch._utils", "_rebuild_sparse_csr_tensor"): _unread("sparse tensor"),
    ("torch._utils", "_rebuild_nested_tensor"): _unread("nested tensor"),
    ("torch._utils", "_rebuild_meta_tensor_no_storage"): _unread(
        "tensor of the device meta, which has no numbers"
    ),
    ("torch._utils", "_rebuild_wrapper_subclass"): _unread("tensor of a class of its own"),
    ("torch._utils", "_rebuild_device_tensor_from_numpy"): lambda machine, data, *_: data,
    ("torch._utils", "_rebuild_device_tensor_from_cpu_tensor"): lambda machine, data, *_: data,
}
