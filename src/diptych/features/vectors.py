"""Stores of embeddings: one vector per item in the store of region features, and vectors that others made."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from jaxtyping import Float
from numpy import ndarray

from diptych.archives import guarded, read_array_head, read_numbers
from diptych.errors import FormatError
from diptych.features.writer import StoreWriter
from diptych.files import require_file
from diptych.types import FeatureMeta, Regions

SUFFIXES = (".npy", ".parquet")
LARGEST = 1 << 36  # bytes of all vectors of a file: four million of 4,096 numbers
BOX = np.array([[0, 0, 1, 1]], np.float32)  # of an item whose picture nobody looks up


def write_vectors(
    path: Path,
    items: Iterable[tuple[str, Float[ndarray, " D"]]],
    meta: FeatureMeta,
    *,
    overwrite: bool = False,
) -> int:
    """Write a store with one vector per item; returns the number of items.

    Args:
        meta: names the model as `detector`, and the `parts` of a vector.

    Raises:
        FormatError: two items have one key, or a vector has another width or is not finite.
    """
    with StoreWriter(path, meta, overwrite=overwrite) as writer:
        for key, vector in items:
            writer.add(key, Regions(features=vector[None], boxes=BOX, size=(1, 1)))
        return len(writer)


def read_vectors(path: Path, keys: Sequence[str] | None = None) -> tuple[list[str], Float[ndarray, "N D"]]:
    """Read the vectors of items, and their keys.

    Args:
        path: `.npy` with one row per item, in the order of `keys`; or `.parquet` with a column of keys
            (strings or whole numbers) and one of lists of numbers of equal length.

    Raises:
        FormatError: the file is damaged, too large, or has other columns; rows and keys differ in number.
    """
    require_file(path, f"vectors in {' or '.join(SUFFIXES)}")
    if path.suffix not in SUFFIXES:
        raise FormatError(f"{path}: expected a file that ends in {' or '.join(SUFFIXES)}.")
    if path.suffix == ".parquet":
        return _parquet(path)
    size = path.stat().st_size
    if size > LARGEST:
        raise FormatError(f"{path}: has {size:,} bytes; expected at most {LARGEST:,}.")
    with guarded(str(path), "a whole NumPy file", named=True), path.open("rb") as stream:
        shape, fortran, kind, head = read_array_head(stream, size)
        # Pickled objects are refused by their type: nothing of such a file is read.
        if len(shape) != 2 or kind.kind != "f":
            raise FormatError(f"holds {kind} of shape {shape}; expected fractions, one row per item.")
        vectors = np.asarray(read_numbers(stream, size - head, shape, fortran, kind), np.float32)
    if keys is None or len(keys) != len(vectors):
        known = "no keys" if keys is None else f"{len(keys)} items"
        raise FormatError(f"{path}: has {len(vectors)} rows for {known}; expected one row per item.")
    return list(keys), vectors


def _parquet(path: Path) -> tuple[list[str], Float[ndarray, "N D"]]:
    with guarded(str(path), "a whole Parquet file", named=True):
        file = pyarrow.parquet.ParquetFile(path)
        groups = range(file.metadata.num_row_groups)
        # The sizes that the file claims, before anything is decompressed.
        claimed = sum(file.metadata.row_group(number).total_byte_size for number in groups)
        if claimed > LARGEST:
            raise FormatError(f"claims {claimed:,} bytes; expected at most {LARGEST:,}.")
        table = file.read()
        lists = [name for name in table.column_names if _is_list(table.schema.field(name).type)]
        names = [name for name in table.column_names if name not in lists]
        if len(lists) != 1 or not names:
            raise FormatError(
                f"has the columns {', '.join(table.column_names)}; expected one of keys first, and one of "
                "lists of numbers."
            )
        column = table.column(lists[0]).combine_chunks()
        lengths = {*column.value_lengths().to_pylist()}
        if len(lengths) != 1 or None in lengths:
            raise FormatError(f"{lists[0]} has lists of {len(lengths)} lengths; expected one length.")
        numbers = column.flatten().to_numpy(zero_copy_only=False).astype(np.float32)
        return [str(key) for key in table.column(names[0]).to_pylist()], numbers.reshape(len(table), -1)


def _is_list(kind: pa.DataType) -> bool:
    lists = pa.types.is_list, pa.types.is_fixed_size_list, pa.types.is_large_list
    return any(is_one(kind) for is_one in lists)
