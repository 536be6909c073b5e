"""Rows with changed names: ids with a prefix, and image keys with the name of a feature store."""

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Int
from numpy import ndarray

from diptych.datasets.counting import Count
from diptych.datasets.rows import PAIR, SCHEMA, STRINGS, Rows
from diptych.types import Example

Store = str | Callable[[str], tuple[str | None, str]] | None


class PlacedRows(Rows):
    """Rows whose ids get a prefix, and whose image keys get the name of a feature store.

    Args:
        store: name of the store, or a function of an image key that returns the name and the key there. None
            does not change the keys.
        prefix: prefix of the ids.
    """

    def __init__(self, rows: Rows, store: Store, prefix: str = "") -> None:
        self.rows, self.store, self.prefix = rows, store, prefix
        self._keys: pa.Array | None = None

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_keys": None}  # loader processes make no use of it

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Example:
        return placed(self.rows[index], self.store, self.prefix)

    def windows(self) -> Iterator[pa.RecordBatch]:
        for batch in self.rows.windows():
            columns = {name: batch.column(name) for name in SCHEMA.names}
            if self.prefix:
                # The last argument is the separator.
                columns["id"] = pc.binary_join_element_wise(self.prefix, columns["id"], "")
            if self.store is not None:
                columns["pairs"] = self._pairs_placed(columns["pairs"])
            yield pa.record_batch([columns[name] for name in SCHEMA.names], schema=SCHEMA)

    def _pairs_placed(self, lists: pa.ListArray) -> pa.ListArray:
        # Arrow arrays cannot be changed, so the structure is built again around the new keys.
        pairs = lists.flatten()
        images = pairs.field("images")
        keys = images.flatten().dictionary_encode()  # `store_key` runs once per different key
        named = pa.array([store_key(self.store, key) for key in keys.dictionary.to_pylist()], pa.string())
        counts = pc.list_value_length(images)
        ends = np.cumsum(np.concatenate([[0], counts.fill_null(0).to_numpy()]), dtype=np.int32)
        # A null among the offsets makes the list of that row null again: a pair without image.
        offsets = pa.array(ends, mask=np.append(images.is_null().to_numpy(zero_copy_only=False), False))
        fields = [pairs.field(field.name) for field in PAIR]
        fields[2] = pa.ListArray.from_arrays(offsets, named.take(keys.indices), type=STRINGS)
        struct = pa.StructArray.from_arrays(fields, fields=list(PAIR))
        # `flatten` leaves out what lies before a slice, so its offsets begin at 0 again.
        starts = lists.offsets.to_numpy() - lists.offsets[0].as_py()
        return pa.ListArray.from_arrays(pa.array(starts, pa.int32()), struct)

    @property
    def one_each(self) -> bool:
        return self.rows.one_each

    @property
    def pair_count(self) -> int:
        return self.rows.pair_count

    def longest(self, costs: Int[ndarray, " P"]) -> Int[ndarray, " N"]:
        return self.rows.longest(costs)

    def text_counts(self, count: Count, *, key: str, trim: str = "") -> Int[ndarray, "K P"]:
        return self.rows.text_counts(count, key=key, trim=trim)

    def different_rows(self) -> Iterator[int]:
        return self.rows.different_rows()

    def coded_images(self) -> tuple[pa.Array, Int[ndarray, " I"]]:
        keys, codes = self.rows.coded_images()
        if self._keys is None:  # once, because several checks before a run ask for it
            self._keys = pa.array([store_key(self.store, key) for key in keys.to_pylist()], pa.string())
        return self._keys, codes


def store_key(store: Store, key: str) -> str:
    """Return `STORE:KEY`, the form that `diptych.features.NamedStores` reads, or the key alone."""
    name, inner = store(key) if callable(store) else (store, key)
    return inner if name is None else f"{name}:{inner}"


def placed(example: Example, store: Store, prefix: str = "") -> Example:
    """Change the names of one example in the same way as `PlacedRows`."""
    pairs = tuple(
        replace(pair, image=store_key(store, pair.image))
        if isinstance(pair.image, str)
        else replace(
            pair, image=None if pair.image is None else tuple(store_key(store, key) for key in pair.image)
        )
        for pair in example.pairs
    )
    return replace(example, id=f"{prefix}{example.id}", pairs=pairs)
