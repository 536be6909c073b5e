"""Reads feature stores: folders of memory-mapped Arrow IPC files with one row per image.

    vgattr36/
    |-- index.arrow         one row per image in the order of writing: key, position and number of regions
    |-- part-00000.arrow    the shards: key, width, height, digest, regions (a list of structs)
    `-- part-00001.arrow

The metadata of the index holds provenance (`FeatureMeta`) and the size in bytes of every shard, so that a
store with a missing or truncated shard does not open. Any Arrow reader can read the files.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cached_property
from hashlib import sha256
from pathlib import Path

import numpy as np
import pyarrow as pa
from jaxtyping import Int
from numpy import ndarray

from diptych.errors import RESUME, FormatError, MissingFeatures
from diptych.features.shard import (
    Block,
    damage_named,
    image_digest,
    numbers,
    read_file,
    read_metadata,
    read_shard,
)
from diptych.types import FeatureMeta, Regions

INDEX = "index.arrow"
PICTURE = re.compile(r"(?<=.)\.(png|jpe?g|gif|bmp|webp|tiff?)$", re.IGNORECASE)  # not the whole name


class FeatureStore:
    """Regions by image key, read from disk on access.

    A key that is not stored exactly as given also matches a stored key of the same image: the same integer
    ("00625", "625" and 625), or the path of the image file ("img/00625.png"). If two stored keys would fit,
    it matches none. Arrays are read-only views of the mapped files; nothing is copied. A store can be pickled
    and used after a fork: each process maps the files itself, and all share the page cache.

    Raises:
        FormatError: `path` is not a store, or not a complete one.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.meta, self._shards, self._index = _open_index(self.path)
        # Shards are mapped on first use: a worker that reads a part of the images opens a part of the files.
        self._blocks: dict[int, list[Block]] = {}

    def __reduce__(self) -> tuple[type["FeatureStore"], tuple[Path]]:
        # by path: mappings cannot be pickled, and the other process may have another working folder
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
            MissingFeatures: the key does not exist.
        """
        row = self._row(key)
        shard, batch, place = (int(self._places[name][row]) for name in ("shard", "batch", "row"))
        with damage_named(self.path / INDEX):
            return self._shard(shard)[batch].regions(place)

    def keys(self) -> tuple[str, ...]:
        """All keys in the order of writing."""
        return tuple(self._rows)

    def count(self, key: str | int) -> int:
        """Number of regions of one image; does not read its features."""
        return int(self._places["count"][self._row(key)])

    def counts_of(self, keys: Sequence[str]) -> Int[ndarray, " N"]:
        """Number of regions of each image; -1 if it is not in the store."""
        rows = self.rows_of(keys)
        if not len(self):  # an empty column cannot be indexed, not even by rows that are thrown away
            return rows
        return np.where(rows < 0, -1, self._places["count"][rows])

    def rows_of(self, keys: Sequence[str]) -> Int[ndarray, " N"]:
        """Number of each image in the order of writing; -1 of one that is not there."""
        rows = np.array([self._rows.get(key, -1) for key in keys], np.int64)
        for place in np.flatnonzero(rows < 0).tolist():
            rows[place] = -1 if (found := self._find(keys[place])) is None else found
        return rows

    def counts(self) -> Int[ndarray, " N"]:
        """Number of regions of every image, in the order of `keys`."""
        return self._places["count"]

    def verify(self) -> None:
        """Read everything and compare it with the checksums; takes as long as reading all files.

        Raises:
            FormatError: the data of an image, or the order of images, has changed since it was written.
        """
        digests = []
        for number, name in enumerate(self._shards):
            with damage_named(self.path / name):
                for block in self._shard(number):
                    digests += _verified(block, self.path / name)
        if store_checksum(digests) != self.meta.checksum:
            raise FormatError(f"{self.path}: the shards do not belong to this index.")

    def _row(self, key: str | int) -> int:
        row = self._find(key)
        if row is None:
            raise MissingFeatures([str(key)], self.path)
        return row

    def _find(self, key: object) -> int | None:
        # Exact keys first; `picture` forgives suffixes and zeros, and must not hide a key that is there.
        row = self._rows.get(str(key))
        return self._pictures.get(picture(str(key))) if row is None else row

    # read on first use, so that opening a store takes milliseconds whatever its size
    @cached_property
    def _rows(self) -> dict[str, int]:
        with damage_named(self.path / INDEX):
            return {key: row for row, key in enumerate(self._index.column("key").to_pylist())}

    @cached_property
    def _pictures(self) -> dict[str, int]:
        """Rows by the image that a key names, without images that several keys name."""
        short = {key: picture(key.rpartition("/")[2]) for key in self._rows}
        shared = Counter(short.values())
        # ambiguous names are left out: a wrong image would be worse than a missing one
        return {name: self._rows[key] for key, name in short.items() if shared[name] == 1}

    @cached_property
    def _places(self) -> dict[str, ndarray]:
        with damage_named(self.path / INDEX):
            return {name: _whole(self._index.column(name)) for name in ("shard", "batch", "row", "count")}

    def _shard(self, number: int) -> list[Block]:
        if number not in self._blocks:
            self._blocks[number] = read_shard(self.path / self._shards[number])[1]
        return self._blocks[number]


def _whole(column: pa.ChunkedArray) -> ndarray:
    """A column of the index as an array; it has one chunk, or none in an empty store."""
    return numbers(column.chunk(0) if column.num_chunks else pa.array([], column.type))


def _verified(block: Block, path: Path) -> list[bytes]:
    """The digests of a block, after each was compared with the data of its image."""
    for row, (key, digest) in enumerate(zip(block.keys, block.digests, strict=True)):
        if image_digest(key, block.size(row), block.arrays(row)) != digest:
            raise FormatError(
                f"{path}: the regions of image {key!r} do not match their checksum; the file was damaged "
                "after writing. Make the store again."
            )
    return block.digests


def picture(key: str) -> str:
    """The image that a key names: without the suffix of a file, without leading zeros of an integer."""
    name = PICTURE.sub("", key)
    # Example: "00625.png", "00625" and "625" name one picture; "0" stays "0".
    return (name.lstrip("0") or "0") if name.isascii() and name.isdigit() else name


def store_checksum(digests: list[bytes]) -> str:
    """The value of `FeatureMeta.checksum`: SHA-256 of the digests of the images in order."""
    return sha256(b"".join(digests)).hexdigest()


def _open_index(path: Path) -> tuple[FeatureMeta, list[str], pa.Table]:
    if not (path / INDEX).is_file():
        raise FormatError(f"{path} is not a feature store: {_why_not(path)}")
    schema, batches = read_file(path / INDEX)
    meta, values = read_metadata(schema, path / INDEX)
    shards = values.get("shards")
    # a name with a folder in it could lead out of the store
    if not isinstance(shards, dict) or any(Path(name).name != name for name in shards):
        raise FormatError(f"{path / INDEX}: it does not list the shards. Make the feature store again.")
    for name, expected in shards.items():
        size = (path / name).stat().st_size if (path / name).is_file() else None
        if size != expected:
            got = "it is missing" if size is None else f"it has {size:,} bytes"
            raise FormatError(
                f"{path / name}: {got}; expected {expected!s:.20} bytes. The feature store is "
                "incomplete; copy or make it again."
            )
    with damage_named(path / INDEX):
        if not pa.types.is_string(schema.field("key").type):
            raise ValueError(f"keys are {schema.field('key').type}; expected strings")
        table = pa.Table.from_batches(batches, schema).combine_chunks()  # so that columns are single arrays
        if holes := [name for name in table.column_names if table.column(name).null_count]:
            raise ValueError(f"the column {holes[0]} has rows without a value")
        return meta, list(shards), table


def _why_not(path: Path) -> str:
    partial = partial_folder(path)
    if path.is_file():
        return "it is a file. Turn region features of other formats into a store with `diptych import`."
    if path.suffix == ".partial":
        return f"its writing was not finished. Run the same command again with {RESUME}."
    if partial.is_dir():
        return f"its writing was not finished, see {partial}. Run the same command again with {RESUME}."
    if not path.is_dir():
        return "there is no such folder. Make one with `diptych extract` or `diptych import`."
    return f"{INDEX} is missing. Make the store again with `diptych import`."


def partial_folder(path: Path) -> Path:
    """The folder in which a store is written before it is complete."""
    path = path.absolute()
    return path.with_name(path.name + ".partial")
