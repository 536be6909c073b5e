"""Windows of tables as whole columns: a hundredth of the time that cells one by one take.

A column is plain if all its cells are texts, or whole numbers, or truths. What is not plain, and whatever is
wrong with a window, is left to the reader that looks at every cell and names the row.
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Int
from numpy import ndarray

from diptych.datasets.examples import one_pair_batch

Columns = Mapping[str, pa.Array]
SUFFIX = re.compile(r"\.[^./]+$")


class NotPlain(Exception):
    """Cells have to be looked at one by one."""


def plain_window(
    batch: pa.RecordBatch,
    columns: Mapping[str, Any],
    *,
    chosen: Callable[[Any], bool],
    target: Callable[[Any, str], str | None],
    images: str,
    key: Callable[[int], str],
) -> pa.RecordBatch:
    """The examples of a window as `one_pair_batch` makes them.

    Args:
        columns: names of columns by role.
        chosen: whether a row with this cell in the split column belongs to the split.
        target: JSON of a label cell and the id of its row.
        images: where a picture lies, `{}` standing for the cell.
        key: the id of a row in a table without ids, by its number in the window.

    Raises:
        NotPlain: before anything is made.
    """
    found = {role: _column(batch, name, role) for role, name in columns.items()}
    if "split" in found:
        names, codes = _coded(found["split"])
        mask = pa.array(np.array([chosen(name) for name in names], bool)[codes])
        # First of all, so that rows of other splits cannot make this one fail.
        found = {role: column.filter(mask) for role, column in found.items()}
        count = int(pc.sum(mask).as_py() or 0)
    else:
        count = len(batch)
    ids = _texts(found["id"]) if "id" in found else pa.array([key(row) for row in range(count)], pa.string())
    if _any(pc.equal(ids, "")):
        raise NotPlain
    files = _files(_texts(found["image"]), images) if "image" in found else None
    return one_pair_batch(
        ids=ids,
        texts=_texts(found["text"]) if "text" in found else pa.array([""] * count, pa.string()),
        texts_b=_texts(found["text_b"]) if "text_b" in found else None,
        images=None if files is None else image_keys(files),
        files=files,
        targets=_targets(found["label"], ids, target) if "label" in found else None,
        weights=_weights(found["weight"]) if "weight" in found else None,
        groups=_texts(found["group"]) if "group" in found else None,
    )


def _column(batch: pa.RecordBatch, name: Any, role: str) -> pa.Array:
    if not isinstance(name, str):  # a label of several columns
        raise NotPlain
    column = batch.column(name)
    kind = column.type
    plain = pa.types.is_string(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind)
    if not (plain or pa.types.is_null(kind) or (role == "weight" and pa.types.is_floating(kind))):
        raise NotPlain
    return column


def _texts(column: pa.Array) -> pa.Array:
    """`cell_text` of every cell."""
    if pa.types.is_boolean(column.type):
        # Arrow would write "true"; `cell_text` makes "1" of it, as in columns of 0 and 1.
        column = column.cast(pa.int8())
    texts = column.cast(pa.string())
    return (
        pc.utf8_trim_whitespace(pc.fill_null(texts, ""))
        if pa.types.is_string(column.type)
        else (pc.fill_null(texts, ""))
    )


def _coded(column: pa.Array) -> tuple[list[Any], Int[ndarray, " N"]]:
    # Nulls get a code of their own; by default they would be missing in the dictionary.
    encoded = column.dictionary_encode(null_encoding="encode")
    codes: ndarray = encoded.indices.to_numpy(zero_copy_only=False)
    return encoded.dictionary.to_pylist(), codes


def _any(mask: pa.Array) -> bool:
    return bool(pc.any(mask).as_py())


def _files(names: pa.Array, images: str) -> pa.Array:
    """Where the pictures lie; none may lead out of the root, which is looked at closely elsewhere."""
    if _any(pc.equal(names, "")):
        raise NotPlain
    first, *rest = images.split("{}")
    parts = [pa.scalar(first)]
    for part in rest:
        parts += [names, pa.scalar(part)]
    files = pc.binary_join_element_wise(*parts, "") if rest and images != "{}" else names
    if not rest:
        files = pa.array([images] * len(names), pa.string())
    # Too strict, as `a..b` is harmless; the careful reader then decides.
    odd = [pc.match_substring(files, ".."), pc.match_substring(files, "\0"), pc.starts_with(files, "/")]
    if any(map(_any, odd)):
        raise NotPlain
    return files


def image_keys(files: pa.Array) -> pa.Array:
    """`image_key` of every file."""
    ending = SUFFIX.search(files[0].as_py()) if len(files) else None
    stems = files
    if ending is not None and bool(pc.all(pc.ends_with(files, ending[0])).as_py()):
        # All names end alike, which is usual: cutting them is a hundred times faster than `Path.stem`.
        stems = pc.utf8_slice_codeunits(files, 0, -len(ending[0]))
        if _any(pc.match_substring(stems, "/")):
            parts = pc.split_pattern(stems, "/", max_splits=1, reverse=True)
            # Index of the last part of each path. Offsets of a sliced array do not begin at 0.
            last = parts.offsets.to_numpy()[1:] - 1 - parts.offsets[0].as_py()
            stems = parts.flatten().take(pa.array(last))
        if not _any(pc.or_(pc.equal(stems, ""), pc.equal(stems, "."))):
            return stems
    # Mixed suffixes, or names that are nothing but a suffix: one by one.
    return pa.array([Path(file).stem for file in files.to_pylist()], pa.string())


def _targets(column: pa.Array, ids: pa.Array, target: Callable[[Any, str], str | None]) -> pa.Array:
    if not len(column):
        return pa.array([], pa.string())
    cells, codes = _coded(column)
    # Every different cell is converted once; an error names the first row that has it.
    first = np.unique(codes, return_index=True)[1]
    texts = [target(cell, ids[int(row)].as_py()) for cell, row in zip(cells, first, strict=True)]
    return pa.array(texts, pa.string()).take(pa.array(codes))


def _weights(column: pa.Array) -> pa.Array:
    if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)) or column.null_count:
        raise NotPlain
    weights = column.cast(pa.float64())
    if not bool(pc.all(pc.and_(pc.is_finite(weights), pc.greater_equal(weights, 0))).as_py()):
        raise NotPlain
    return weights.cast(pa.float32())
