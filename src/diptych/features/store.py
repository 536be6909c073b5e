"""Region features on disk: Arrow IPC files, mapped into memory, one row per image.

    vgattr36/
    |-- index.arrow         one row per image in the order of writing: key, where its regions lie, how many
    |-- part-00000.arrow    the shards: key, width, height, digest, regions (a list of structs)
    `-- part-00001.arrow

The schema of the index carries provenance (`FeatureMeta`) and the size in bytes of every shard, so that a
store of which a part is missing or cut off does not open. Any Arrow reader can read the files.
"""

import json
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Int
from numpy import ndarray

from diptych.errors import FormatError, MissingFeatures
from diptych.types import OPTIONAL_REGION_FIELDS, FeatureMeta, Regions

INDEX = "index.arrow"
FORMAT = "diptych features 1"
FIELDS = ("boxes", "features", *OPTIONAL_REGION_FIELDS)


class FeatureStore:
    """Regions by image key, read from disk when asked for.

    A key that is not there as written also matches the stored id that is the same integer ("00625", "625"
    and 625 are one image), unless two stored ids are. Arrays are read-only views of the mapped files; nothing
    is copied. A store may be pickled and used after a fork: each process maps the files itself and all share
    the page cache.

    Raises:
        FormatError: `path` is no store, or one that is not whole.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.meta, self._shards, self._index = _open_index(self.path)
        self._blocks: dict[int, list[Block]] = {}

    def __reduce__(self) -> tuple[type["FeatureStore"], tuple[Path]]:
        return FeatureStore, (self.path.absolute(),)

    def __repr__(self) -> str:
        return f"FeatureStore({str(self.path)!r}, {len(self)} images, {self.meta.detector})"

    def __len__(self) -> int:
        return int(self._index.num_rows)

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __contains__(self, key: object) -> bool:
        return self._find(key) is not None

    def __getitem__(self, key: str | int) -> Regions:
        """The regions of one image.

        Raises:
            MissingFeatures: there is no such key.
        """
        row = self._row(key)
        blocks = self._shard(int(self._places["shard"][row]))
        return blocks[int(self._places["batch"][row])].regions(int(self._places["row"][row]))

    def keys(self) -> tuple[str, ...]:
        """All keys in the order of writing."""
        return tuple(self._rows)

    def count(self, key: str | int) -> int:
        """Number of regions of one image, without touching its features."""
        return int(self._places["count"][self._row(key)])

    def counts(self) -> Int[ndarray, " N"]:
        """Number of regions of every image, in the order of `keys`."""
        return self._places["count"]

    def verify(self) -> None:
        """Read everything and compare it with the checksums; takes as long as reading the files.

        Raises:
            FormatError: names the first image whose bytes have changed since they were written.
        """
        digests = []
        for number in range(len(self._shards)):
            for block in self._shard(number):
                for row, (key, stored) in enumerate(zip(block.keys, block.digests, strict=True)):
                    if image_digest(key, block.size(row), block.arrays(row)) != stored:
                        raise FormatError(
                            f"{self.path / self._shards[number]}: the regions of image {key!r} do not match "
                            "their checksum; the file was damaged after writing. Make the store again."
                        )
                    digests.append(stored)
        if store_checksum(digests) != self.meta.checksum:
            raise FormatError(f"{self.path}: the shards are not those the index was written for.")

    def _row(self, key: str | int) -> int:
        row = self._find(key)
        if row is None:
            raise MissingFeatures([str(key)], self.path)
        return row

    def _find(self, key: object) -> int | None:
        row = self._rows.get(str(key))
        if row is None and (number := integer(str(key))) is not None:
            return self._integers.get(number)
        return row

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {key: row for row, key in enumerate(self._index.column("key").to_pylist())}

    @cached_property
    def _integers(self) -> dict[str, int]:
        """Rows by integer id, without those that two keys share."""
        numbers = {key: number for key in self._rows if (number := integer(key)) is not None}
        shared = Counter(numbers.values())
        return {number: self._rows[key] for key, number in numbers.items() if shared[number] == 1}

    @cached_property
    def _places(self) -> dict[str, ndarray]:
        return {name: self._index.column(name).to_numpy() for name in ("shard", "batch", "row", "count")}

    def _shard(self, number: int) -> "list[Block]":
        if number not in self._blocks:
            self._blocks[number] = read_shard(self.path / self._shards[number])[1]
        return self._blocks[number]


@dataclass(frozen=True, slots=True)
class Block:
    """The images of one record batch: flat arrays over all their regions, and where each image begins."""

    batch: pa.RecordBatch
    offsets: ndarray
    sizes: ndarray
    flat: dict[str, ndarray]

    @classmethod
    def of(cls, batch: pa.RecordBatch) -> "Block":
        batch.validate()  # offsets within their arrays, else slices of a damaged file would come out short
        regions = batch.column("regions")
        sizes = np.stack([batch.column(name).to_numpy() for name in ("width", "height")], axis=1)
        flat = {field.name: _flat(regions.values.field(field.name)) for field in regions.values.type}
        return cls(batch, regions.offsets.to_numpy(), sizes, flat)

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
    """A column of numbers, or of equally long rows of numbers, as an array that shares its memory."""
    if not pa.types.is_fixed_size_list(values.type):
        return values.to_numpy()  # type: ignore[no-any-return]
    return values.values.to_numpy().reshape(len(values), values.type.list_size)  # type: ignore[no-any-return]


def integer(key: str) -> str | None:
    """An id of decimal digits without its leading zeros; None for any other."""
    return (key.lstrip("0") or "0") if key.isascii() and key.isdigit() else None


def image_digest(key: str, size: tuple[int, int], arrays: dict[str, ndarray]) -> bytes:
    """SHA-256 over key, size and stored arrays of one image."""
    shapes = [(name, value.dtype.str, value.shape) for name, value in arrays.items()]
    digest = sha256(json.dumps([key, size, shapes]).encode())
    for value in arrays.values():
        digest.update(value.data)
    return digest.digest()


def store_checksum(digests: list[bytes]) -> str:
    """What `FeatureMeta.checksum` holds: SHA-256 over the digests of the images in order."""
    return sha256(b"".join(digests)).hexdigest()


def schema_metadata(meta: FeatureMeta, **values: Any) -> dict[str, str]:
    """Provenance as Arrow keeps it: text by name."""
    return {"diptych": json.dumps({"format": FORMAT, "meta": meta.as_dict(), **values})}


def read_metadata(schema: pa.Schema, path: Path) -> tuple[FeatureMeta, dict[str, Any]]:
    """What `schema_metadata` wrote.

    Raises:
        FormatError: `path` is an Arrow file of somebody else, or of another version.
    """
    values = json.loads((schema.metadata or {}).get(b"diptych", b"{}"))
    if values.get("format") != FORMAT:
        raise FormatError(
            f"{path}: an Arrow file, but not one of a feature store: its format is "
            f"{values.get('format', 'unknown')!r}; expected {FORMAT!r}."
        )
    return FeatureMeta.from_dict(values["meta"]), values


def read_shard(path: Path) -> tuple[pa.Schema, list[Block]]:
    """The record batches of one shard, mapped."""
    schema, batches = _map(path)
    return schema, [Block.of(batch) for batch in batches]


def _map(path: Path) -> tuple[pa.Schema, list[pa.RecordBatch]]:
    try:
        # The batches keep the mapping alive; closing the file saves its descriptor.
        with pa.memory_map(os.fspath(path)) as file, pa.ipc.open_file(file) as reader:
            return reader.schema, [reader.get_batch(number) for number in range(reader.num_record_batches)]
    except (pa.ArrowInvalid, OSError) as error:
        raise FormatError(
            f"{path}: not a whole Arrow file ({str(error).splitlines()[0]}). Make the feature store again."
        ) from error


def _open_index(path: Path) -> tuple[FeatureMeta, list[str], pa.Table]:
    if not (path / INDEX).is_file():
        raise FormatError(f"{path} is not a feature store: {_why_not(path)}")
    schema, batches = _map(path / INDEX)
    meta, values = read_metadata(schema, path / INDEX)
    for name, expected in values["shards"].items():
        size = (path / name).stat().st_size if (path / name).is_file() else None
        if size != expected:
            got = "it is missing" if size is None else f"it has {size:,} bytes"
            raise FormatError(
                f"{path / name}: {got}; expected {expected:,} bytes. The feature store is not whole; "
                "copy or make it again."
            )
    return meta, list(values["shards"]), pa.Table.from_batches(batches, schema).combine_chunks()


def _why_not(path: Path) -> str:
    partial = partial_folder(path)
    if path.is_file():
        return "it is a file. Turn region features of other formats into a store with `diptych import`."
    if path.suffix == ".partial":
        return "its writing was not finished. Run the same command again with resume=true."
    if partial.is_dir():
        return f"its writing was not finished, see {partial}. Run the same command again with resume=true."
    if not path.is_dir():
        return "there is no such folder. Make one with `diptych import`."
    return f"{INDEX} is missing. Make the store again with `diptych import`."


def partial_folder(path: Path) -> Path:
    """Where a store lies while it is written."""
    return path.with_name(path.name + ".partial")
