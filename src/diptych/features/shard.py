"""Reads and writes the Arrow files of a feature store: blocks of images that are read in place."""

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, fields
from hashlib import sha256
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
from numpy import ndarray

from diptych.errors import FormatError
from diptych.files import atomic_file
from diptych.types import FeatureMeta, Regions

FORMAT = "diptych features 1"
EXAMPLE = FeatureMeta(feature_dim=1)  # its values show the types of the fields


@dataclass(frozen=True, slots=True)
# Example: images with 2 and 3 regions have the offsets 0, 2, 5. The second one has the rows 2 to 4 of every
# array in `flat`, such as `features` of shape (5, 2048), which are views of the file.
class Block:
    """The images of one record batch: flat arrays over all their regions, and the offset of each image."""

    batch: pa.RecordBatch
    offsets: ndarray
    sizes: ndarray
    flat: dict[str, ndarray]

    @classmethod
    def of(cls, batch: pa.RecordBatch) -> "Block":
        regions = batch.column("regions")
        sizes = np.stack([numbers(batch.column(name)) for name in ("width", "height")], axis=1)
        flat = {field.name: _flat(regions.values.field(field.name)) for field in regions.values.type}
        return cls(batch, numbers(regions.offsets), sizes, flat)

    @property
    def keys(self) -> list[str]:
        return self.batch.column("key").to_pylist()  # type: ignore[no-any-return]

    @property
    def digests(self) -> list[bytes]:
        return self.batch.column("digest").to_pylist()  # type: ignore[no-any-return]

    def size(self, row: int) -> tuple[int, int]:
        width, height = self.sizes[row].tolist()
        return width, height

    def arrays(self, row: int) -> dict[str, ndarray]:
        rows = slice(self.offsets[row], self.offsets[row + 1])
        return {name: values[rows] for name, values in self.flat.items()}

    def regions(self, row: int) -> Regions:
        return Regions(size=self.size(row), **self.arrays(row))


def _flat(values: pa.Array) -> ndarray:
    """A column of numbers, or of rows of equal length, as an array that shares its memory."""
    if not pa.types.is_fixed_size_list(values.type):
        return numbers(values)
    width = values.type.list_size
    # `values.values` ignores the offset and length of a slice
    rows = numbers(values.values)[values.offset * width : (values.offset + len(values)) * width]
    return rows.reshape(len(values), width)


def numbers(column: pa.Array) -> ndarray:
    """A column of numbers as a read-only array that shares its memory.

    Arrow's own `to_numpy` imports pandas if that is installed, which takes 0.1 to 0.6 s and 40 MB.
    """
    kind = column.type
    if column.null_count or not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        raise ValueError(f"a column of {kind} has {column.null_count} gaps; expected numbers")
    # Arrow's own `to_pandas_dtype` fails in version 18 if pandas is not installed.
    letter = "f" if pa.types.is_floating(kind) else "i" if pa.types.is_signed_integer(kind) else "u"
    dtype = np.dtype(f"{letter}{kind.bit_width // 8}")
    if not len(column):
        return np.empty(0, dtype)
    # Buffer 0 holds the bitmap of nulls, buffer 1 the numbers; a slice of a column shares both.
    values = np.frombuffer(column.buffers()[1], dtype)
    return values[column.offset : column.offset + len(column)]


@dataclass(slots=True)
class Pending:
    """Images that are not written yet; together they become one record batch."""

    keys: list[str] = field(default_factory=list)
    sizes: list[tuple[int, int]] = field(default_factory=list)
    digests: list[bytes] = field(default_factory=list)
    arrays: list[dict[str, ndarray]] = field(default_factory=list)
    nbytes: int = 0

    def append(self, key: str, size: tuple[int, int], digest: bytes, arrays: dict[str, ndarray]) -> None:
        self.keys.append(key)
        self.sizes.append(size)
        self.digests.append(digest)
        self.arrays.append(arrays)
        self.nbytes += sum(value.nbytes for value in arrays.values())

    def record_batch(self, metadata: dict[str, str]) -> pa.RecordBatch:
        flat = {name: np.concatenate([arrays[name] for arrays in self.arrays]) for name in self.arrays[0]}
        regions = pa.StructArray.from_arrays([_column(value) for value in flat.values()], names=[*flat])
        # int32 is what Arrow lists have; BATCH_BYTES keeps batches far below 2**31 regions
        offsets = np.cumsum([0, *(len(arrays["boxes"]) for arrays in self.arrays)], dtype=np.int32)
        width, height = np.array(self.sizes, np.int32).T
        columns = {
            "key": pa.array(self.keys, pa.string()),
            "width": pa.array(width),
            "height": pa.array(height),
            "digest": pa.array(self.digests, pa.binary(32)),
            "regions": pa.ListArray.from_arrays(pa.array(offsets), regions),
        }
        return pa.record_batch(columns, metadata=metadata)


class ShardFile:
    """A shard that is being written; its file appears under its name when it is closed."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self.path = path
        self.batches = 0
        with ExitStack() as stack:
            self._file: IO[Any] = stack.enter_context(atomic_file(path))
            self._arrow = stack.enter_context(pa.ipc.new_file(self._file, schema))
            # Both stay open beyond this block; if the second one fails to open,
            # the first is closed and removed.
            self._stack = stack.pop_all()

    @property
    def nbytes(self) -> int:
        return self._file.tell()

    def write(self, batch: pa.RecordBatch) -> None:
        self._arrow.write_batch(batch)
        self.batches += 1

    def close(self) -> None:
        self._stack.close()

    def discard(self) -> None:
        # an error makes `atomic_file` remove its temporary file; on a full disk, Arrow fails once more
        with suppress(OSError, pa.ArrowException):
            self._stack.__exit__(InterruptedError, InterruptedError(), None)


def schema_metadata(meta: FeatureMeta, **values: Any) -> dict[str, str]:
    """Provenance as Arrow metadata, which maps text to text."""
    return {"diptych": json.dumps({"format": FORMAT, "meta": meta.as_dict(), **values})}


def read_metadata(schema: pa.Schema, path: Path) -> tuple[FeatureMeta, dict[str, Any]]:
    """Provenance and further values that `schema_metadata` wrote.

    Raises:
        FormatError: `path` is an Arrow file of another program, or of another version.
    """
    with damage_named(path):
        values = json.loads((schema.metadata or {}).get(b"diptych", b"{}"))
        if not isinstance(values, dict):
            raise ValueError("its description is no JSON object")
    if values.get("format") != FORMAT:
        raise FormatError(
            f"{path}: an Arrow file, but not part of a feature store: its format is "
            f"{values.get('format', 'unknown')!r}; expected {FORMAT!r}."
        )
    with damage_named(path):
        return _meta(values["meta"]), values


def _meta(values: dict[str, Any]) -> FeatureMeta:
    """Check types by hand, because importing pydantic takes longer than opening a store."""
    meta = FeatureMeta.from_dict(values)
    for item in fields(FeatureMeta):
        value, expected = getattr(meta, item.name), type(getattr(EXAMPLE, item.name))
        names = all(isinstance(name, str) for name in value) if isinstance(value, tuple) else True
        if type(value) is not expected or not names:
            raise ValueError(f"{item.name} of its description is {value!r:.80}")
    return meta


def read_shard(path: Path) -> tuple[pa.Schema, list[Block]]:
    """Schema and blocks of one shard, mapped into memory."""
    schema, batches = read_file(path)
    with damage_named(path):
        return schema, [Block.of(batch) for batch in batches]


def read_file(path: Path) -> tuple[pa.Schema, list[pa.RecordBatch]]:
    """Schema and record batches of an Arrow file, mapped into memory.

    Raises:
        FormatError: the file is cut off or damaged.
    """
    # The batches keep the mapping alive. Closing the file releases its descriptor; a process has few.
    with damage_named(path), pa.memory_map(os.fspath(path)) as file, pa.ipc.open_file(file) as reader:
        batches = [reader.get_batch(number) for number in range(reader.num_record_batches)]
        for batch in batches:
            batch.validate(full=True)  # reads offsets and keys, not features, so it is cheap
        return reader.schema, batches


@contextmanager
def damage_named(path: Path) -> Iterator[None]:
    """Turn all errors from a damaged file, or from columns of wrong names and types, into `FormatError`."""
    try:
        yield
    except (
        pa.ArrowException,
        OSError,
        AttributeError,
        LookupError,
        TypeError,
        ValueError,
        RecursionError,
        OverflowError,
        MemoryError,
    ) as error:
        reason = str(error).partition("\n")[0]  # Arrow appends notes on further lines
        raise FormatError(
            f"{path}: not a whole Arrow file ({reason}). Make the feature store again."
        ) from error


def image_digest(key: str, size: tuple[int, int], arrays: dict[str, ndarray]) -> bytes:
    """SHA-256 of key, size and stored arrays of one image."""
    # names, types and shapes too: equal bytes in another layout are other features
    shapes = [(name, value.dtype.str, value.shape) for name, value in arrays.items()]
    digest = sha256(json.dumps([key, size, shapes]).encode())
    for value in arrays.values():
        # The memory of the array itself; `tobytes` would copy megabytes per image.
        digest.update(value.data)
    return digest.digest()


def _column(values: ndarray) -> pa.Array:
    flat = pa.array(values.reshape(-1))
    return flat if values.ndim == 1 else pa.FixedSizeListArray.from_arrays(flat, values.shape[1])
