"""Examples as a memory-mapped table: what a split holds, without a Python object per row.

A data set yields its examples once. They become an Arrow file in a cache, which is found again by the files
that they were read from. A row turns back into an `Example` only when a loader worker asks for it. A small
split stays in memory.
"""

import fcntl
import json
import mmap
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Int
from numpy import ndarray

from diptych.datasets.rows import PAIR, SCHEMA, STRINGS, WINDOW, Count, Rows, count_texts, example_of
from diptych.errors import FormatError
from diptych.files import NO_LOCKS, atomic_file, make_parents
from diptych.types import Example, Mention

VERSION = 2  # of the layout of `rows.SCHEMA`; a cached table of another version is not found
COLUMNS = 1  # of the layout of columns that are cached beside a table
HEADER = 512  # bytes before these: names, types and shapes as JSON
IN_MEMORY = 16 << 20  # bytes of annotation files up to which a table needs no file
AHEAD = 16  # windows of a mapped file that stay in memory while it is read through
OFTEN = 128  # rows after which their pages, and those around them, leave the memory of the process
ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))  # json.dumps makes one per call


class ExampleTable(Rows):
    """Examples by row, decoded when asked for.

    May be pickled: a table on disk travels as its path, one in memory as its bytes.

    Args:
        path: the file that holds the table, of which `whole` is False for the first rows alone.
        mapped: the mapping of that file.
    """

    def __init__(
        self,
        table: pa.Table,
        *,
        path: Path | None = None,
        mapped: mmap.mmap | None = None,
        whole: bool = True,
    ) -> None:
        self.table, self.path, self.whole, self._mapped = table, path, whole, mapped
        self._batches = table.to_batches()
        self._ends = np.cumsum([len(batch) for batch in self._batches], dtype=np.int64)
        self._read = 0

    @classmethod
    def open(cls, path: Path, count: int | None = None) -> "ExampleTable":
        """Map a file that `write_examples` wrote, or its first rows.

        Raises:
            FormatError: it is damaged.
        """
        try:
            with path.open("rb") as file:
                mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            table = pa.ipc.open_file(pa.BufferReader(pa.py_buffer(mapped))).read_all()
        except (pa.ArrowException, ValueError) as error:
            raise FormatError(
                f"{path}: damaged cache of examples ({error}). Delete it and try again."
            ) from error
        found = cls(table, path=path, mapped=mapped)
        return found if count is None else found.head(count)

    @classmethod
    def of(cls, examples: Iterable[Example | pa.RecordBatch]) -> "ExampleTable":
        """A table in memory."""
        return cls(pa.Table.from_batches(_batches(examples), schema=SCHEMA))

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        if self.path is not None:
            return ExampleTable.open, (self.path, None if self.whole else len(self))
        return ExampleTable, (self.table,)

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def __getitem__(self, index: int) -> Example:
        row = range(len(self))[index]
        number = int(np.searchsorted(self._ends, row, side="right"))
        batch = self._batches[number]
        place = row - int(self._ends[number]) + len(batch)
        self._read += 1
        if not self._read % OFTEN:
            self._forget()
        return example_of(*(batch.column(name)[place].as_py() for name in SCHEMA.names))

    def windows(self) -> Iterator[pa.RecordBatch]:
        """All rows; pages of a mapped file that were read leave the memory of the process again."""
        try:
            for number, batch in enumerate(self._batches, 1):
                yield batch
                if not number % AHEAD:
                    self._forget()
        finally:
            self._forget()
            pa.default_memory_pool().release_unused()

    def _forget(self) -> None:
        if self._mapped is not None:
            self._mapped.madvise(mmap.MADV_DONTNEED)  # they stay in the page cache

    def head(self, count: int) -> "ExampleTable":
        """The first `count` rows."""
        table = self.table.slice(0, count)
        whole = self.whole and len(table) == len(self)
        return ExampleTable(table, path=self.path, mapped=self._mapped, whole=whole)

    def text_counts(self, count: Count, *, key: str, trim: str = "") -> Int[ndarray, "K P"]:
        found = self._kept(
            f"tokens {key} {trim}", lambda: {"counts": count_texts(self.windows(), count, trim)}
        )
        counts: ndarray = found["counts"]
        return counts if self.whole else counts[:, : self.pair_count]

    def coded_images(self) -> tuple[pa.Array, Int[ndarray, " I"]]:
        if not self.whole:  # its images are others than those of the whole
            return super().coded_images()

        def make() -> dict[str, ndarray]:
            keys, codes = super(ExampleTable, self).coded_images()
            text = pa.BufferOutputStream()
            with pa.ipc.new_stream(text, pa.schema([("key", pa.string())])) as writer:
                writer.write_batch(pa.record_batch([keys], ["key"]))
            return {"codes": codes, "keys": np.frombuffer(text.getvalue(), np.uint8)}

        found = self._kept("images", make)
        keys = pa.ipc.open_stream(pa.py_buffer(found["keys"])).read_all().column("key").combine_chunks()
        return keys, found["codes"]

    def _kept(self, what: str, make: Callable[[], dict[str, ndarray]]) -> dict[str, ndarray]:
        """Arrays that are made once for every table on disk, and mapped afterwards."""
        if self.path is None:
            return make()
        name = sha256(f"{COLUMNS} {what}".encode()).hexdigest()[:16]
        place = self.path.with_name(f"{self.path.stem}-{name}")
        if not (self.whole or place.exists()):
            return make()
        with suppress(OSError):  # a cache that cannot be written is done without
            with once(place) as missing:
                found = None if missing else _open_arrays(place)
                if found is None:
                    found = make()
                    if self.whole:
                        _save_arrays(place, found)
            return found
        return make()


def _save_arrays(path: Path, arrays: dict[str, ndarray]) -> None:
    with atomic_file(path) as file:
        header = {name: [one.dtype.str, one.shape] for name, one in arrays.items()}
        file.write(json.dumps(header).encode().ljust(HEADER))
        for one in arrays.values():
            file.write(np.ascontiguousarray(one).data)


def _open_arrays(path: Path) -> dict[str, ndarray] | None:
    """None for a damaged file."""
    try:
        whole = np.memmap(path, np.uint8, mode="r")
        header, start, found = json.loads(whole[:HEADER].tobytes()), HEADER, {}
        for name, (kind, shape) in header.items():
            size = np.dtype(kind).itemsize * int(np.prod(shape))
            found[name] = whole[start : start + size].view(kind).reshape(shape)
            start += size
    except (ValueError, TypeError, AttributeError):
        return None
    return found if start == len(whole) else None


@contextmanager
def once(path: Path) -> Iterator[bool]:
    """Whether a file of the cache is missing; then other processes wait until the block has made it."""
    if path.exists():
        yield False
        return
    make_parents(path)
    with path.with_name(f".{path.name}.wait").open("wb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
        yield not path.exists()


def cached_examples(
    read: Callable[[], Iterable[Example | pa.RecordBatch]],
    *,
    sources: Sequence[Path],
    settings: Any,
    cache: Path | None = None,
) -> ExampleTable:
    """The examples of `read`, from the cache where they have been read before.

    Args:
        read: yields examples, or windows of them as `one_pair_batch` makes them.
        sources: files that decide what `read` yields; their path, size and time are the key.
        settings: anything else that decides, with a `repr` that tells it apart.
        cache: folder; by default `cache_folder()`. Everything in it may be deleted at any time.
    """
    if sum(path.stat().st_size for path in sources) <= IN_MEMORY:
        return ExampleTable.of(read())
    facts = [(str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns) for path in sources]
    key = sha256(repr((VERSION, facts, settings)).encode()).hexdigest()[:32]
    path = (cache or cache_folder()) / "examples" / f"{key}.arrow"
    with once(path) as missing:
        if missing:
            write_examples(path, read())
    return ExampleTable.open(path)


def cache_folder() -> Path:
    """Where caches lie: `DIPTYCH_CACHE`, else `diptych` in `XDG_CACHE_HOME` or `~/.cache`."""
    named = os.environ.get("DIPTYCH_CACHE")
    return (
        Path(named) if named else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "diptych"
    )


def write_examples(path: Path, examples: Iterable[Example | pa.RecordBatch]) -> None:
    """Write examples as one Arrow file, whole or not at all, with `WINDOW` of them in memory."""
    with atomic_file(path) as file, pa.ipc.new_file(file, SCHEMA) as writer:
        for batch in _batches(examples):
            writer.write_batch(batch)


def one_pair_batch(
    *,
    ids: pa.Array,
    texts: pa.Array,
    texts_b: pa.Array | None = None,
    images: pa.Array | None = None,
    files: pa.Array | None = None,
    targets: pa.Array | None = None,
    weights: pa.Array | None = None,
    groups: pa.Array | None = None,
) -> pa.RecordBatch:
    """A window of examples of one pair each, from columns of strings: for files of millions of rows.

    Args:
        images: one key each; `files` one picture each.
        targets: JSON texts.
    """
    count = len(ids)

    def column(values: pa.Array | None, kind: pa.DataType) -> pa.Array:
        return pa.nulls(count, kind) if values is None else values.cast(kind)

    def lists(values: pa.Array | None) -> pa.Array:
        if values is None:
            return pa.nulls(count, STRINGS)
        return pa.ListArray.from_arrays(pa.array(np.arange(count + 1, dtype=np.int32)), values)

    struct = pa.StructArray.from_arrays(
        [
            texts.cast(pa.string()),
            column(texts_b, pa.string()),
            lists(images),
            lists(files),
            pa.nulls(count, pa.string()),
            pa.nulls(count, STRINGS),
        ],
        fields=list(PAIR),
    )
    columns = [
        ids.cast(pa.string()),
        pa.ListArray.from_arrays(pa.array(np.arange(count + 1, dtype=np.int32)), struct),
        column(targets, pa.string()),
        column(weights, pa.float32()),
        column(groups, pa.string()),
        pa.nulls(count, pa.string()),
    ]
    return pa.record_batch(columns, schema=SCHEMA)


def _batches(examples: Iterable[Example | pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    window: list[Example] = []
    for one in examples:
        if isinstance(one, Example):
            window.append(one)
        if window and (len(window) == WINDOW or not isinstance(one, Example)):
            yield _record_batch(window)
            window = []
        if not isinstance(one, Example):
            yield one
    if window:
        yield _record_batch(window)


def _record_batch(window: Sequence[Example]) -> pa.RecordBatch:
    pairs = [pair for example in window for pair in example.pairs]
    struct = pa.StructArray.from_arrays(
        [
            pa.array([pair.text for pair in pairs], pa.string()),
            pa.array([pair.text_b for pair in pairs], pa.string()),
            pa.array([_keys(pair.image) for pair in pairs], STRINGS),
            pa.array([pair.files or None for pair in pairs], STRINGS),
            pa.array([_mentions(pair.mentions) for pair in pairs], pa.string()),
            pa.array([pair.more_texts or None for pair in pairs], STRINGS),
        ],
        fields=list(PAIR),
    )
    ends = np.cumsum([0, *(len(example.pairs) for example in window)], dtype=np.int32)
    columns = [
        pa.array([example.id for example in window], pa.string()),
        pa.ListArray.from_arrays(pa.array(ends), struct),
        pa.array([_json(example.target) for example in window], pa.string()),
        pa.array([None if example.weight == 1 else example.weight for example in window], pa.float32()),
        pa.array([example.group for example in window], pa.string()),
        pa.array([_json(dict(example.meta)) if example.meta else None for example in window], pa.string()),
    ]
    return pa.record_batch(columns, schema=SCHEMA)


def _keys(image: str | tuple[str, ...] | None) -> tuple[str, ...] | None:
    return (image,) if isinstance(image, str) else image


def _json(value: Any) -> str | None:
    return None if value is None else ENCODER.encode(value)


def _mentions(mentions: Sequence[Mention]) -> str | None:
    return _json([[m.start, m.stop, m.region, m.segment] for m in mentions]) if mentions else None
