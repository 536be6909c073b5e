"""Examples as a memory-mapped table, which needs no Python object per row.

A data set yields its examples once. They are written to an Arrow file in the cache, whose key depends on the
files that they were read from. A row becomes an `Example` only when it is accessed. A small split stays in
memory.
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

from diptych.datasets.counting import Count, count_texts
from diptych.datasets.rows import PAIR, SCHEMA, STRINGS, WINDOW, Rows, example_of
from diptych.errors import FormatError
from diptych.files import NO_LOCKS, atomic_file, make_parents
from diptych.types import Example, Mention

VERSION = 2  # version of `rows.SCHEMA`, part of the key; raise it with every change of the layout
COLUMNS = 1  # version of the files of columns beside a table
HEADER = 512  # bytes at the beginning of such a file: names, types and shapes as JSON
IN_MEMORY = 16 << 20  # bytes of annotation files up to which a table stays in memory
AHEAD = 16  # windows of a mapped file that stay in memory while it is read from beginning to end
OFTEN = 128  # accesses to single rows after which the pages of the file are given back
ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))  # json.dumps builds one per call


class ExampleTable(Rows):
    """Examples by row, decoded on access.

    Pickling a table on disk pickles its path; pickling a table in memory pickles its bytes.

    Args:
        path: file of the table. None for a table in memory.
        mapped: memory mapping of the file.
        whole: False if the table has only the first rows of the file.
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
        # For the binary search of `__getitem__`: a large table has hundreds of batches.
        self._ends = np.cumsum([len(batch) for batch in self._batches], dtype=np.int64)
        self._read = 0

    @classmethod
    def open(cls, path: Path, count: int | None = None) -> "ExampleTable":
        """Memory-map a file that `write_examples` wrote.

        Args:
            count: number of rows from the beginning. None takes all.

        Raises:
            FormatError: the file is damaged.
        """
        try:
            with path.open("rb") as file:
                # Python's own mapping, because Arrow's cannot give pages back (`_forget`).
                mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            table = pa.ipc.open_file(pa.BufferReader(pa.py_buffer(mapped))).read_all()
        except (pa.ArrowException, ValueError) as error:
            raise FormatError(
                f"{path}: damaged cache of examples ({error}). Delete it and try again."
            ) from error
        whole = cls(table, path=path, mapped=mapped)
        return whole if count is None else whole.head(count)

    @classmethod
    def of(cls, examples: Iterable[Example | pa.RecordBatch]) -> "ExampleTable":
        """Build a table in memory."""
        return cls(pa.Table.from_batches(_batches(examples), schema=SCHEMA))

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        if self.path is not None:
            return ExampleTable.open, (self.path, None if self.whole else len(self))
        return ExampleTable, (self.table,)

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def __getitem__(self, index: int) -> Example:
        row = range(len(self))[index]  # handles negative indices and raises IndexError
        number = int(np.searchsorted(self._ends, row, side="right"))
        batch = self._batches[number]
        # Example: batches of 4 and 3 rows end at 4 and 7. Row 5 is in batch 1 at 5 - 7 + 3 = 1.
        place = row - int(self._ends[number]) + len(batch)
        self._read += 1
        # Shuffled training touches every page of the file; without this,
        # each worker would seem to hold all of it.
        if not self._read % OFTEN:
            self._forget()
        return example_of(*(batch.column(name)[place].as_py() for name in SCHEMA.names))

    def windows(self) -> Iterator[pa.RecordBatch]:
        """Yield all rows. Pages of a mapped file that have been read are given back to the system."""
        try:
            for number, batch in enumerate(self._batches, 1):
                yield batch
                if not number % AHEAD:
                    self._forget()
        finally:
            self._forget()
            # In `finally`, because readers often stop before the last window.
            pa.default_memory_pool().release_unused()

    def _forget(self) -> None:
        """Give the pages of the mapped file back, so that the memory of workers does not grow."""
        if self._mapped is not None:
            self._mapped.madvise(mmap.MADV_DONTNEED)  # they stay in the page cache of the system

    def head(self, count: int) -> "ExampleTable":
        """Return a table of the first `count` rows."""
        table = self.table.slice(0, count)
        whole = self.whole and len(table) == len(self)
        return ExampleTable(table, path=self.path, mapped=self._mapped, whole=whole)

    def text_counts(self, count: Count, *, key: str, trim: str = "") -> Int[ndarray, "K P"]:
        arrays = self._kept(
            f"tokens {key} {trim}", lambda: {"counts": count_texts(self.windows(), count, trim)}
        )
        counts: ndarray = arrays["counts"]
        # Pairs of the first rows come first, so counts of the whole file serve a limited table.
        return counts if self.whole else counts[:, : self.pair_count]

    def coded_images(self) -> tuple[pa.Array, Int[ndarray, " I"]]:
        if not self.whole:  # the cached codes refer to the images of all rows
            return super().coded_images()

        def make() -> dict[str, ndarray]:
            keys, codes = super(ExampleTable, self).coded_images()
            # The cache holds arrays of numbers, so strings are stored as the bytes of an Arrow stream.
            text = pa.BufferOutputStream()
            with pa.ipc.new_stream(text, pa.schema([("key", pa.string())])) as writer:
                writer.write_batch(pa.record_batch([keys], ["key"]))
            return {"codes": codes, "keys": np.frombuffer(text.getvalue(), np.uint8)}

        arrays = self._kept("images", make)
        keys = pa.ipc.open_stream(pa.py_buffer(arrays["keys"])).read_all().column("key").combine_chunks()
        return keys, arrays["codes"]

    def different_rows(self) -> Iterator[int]:
        if not self.whole:  # the first row of a target may be beyond the limit, and another before it
            return super().different_rows()
        rows = super().different_rows
        return map(int, self._kept("targets", lambda: {"rows": np.fromiter(rows(), np.int64)})["rows"])

    def _kept(self, what: str, make: Callable[[], dict[str, ndarray]]) -> dict[str, ndarray]:
        """Return arrays that are computed once for a table on disk, stored beside it, and then mapped."""
        if self.path is None:
            return make()
        name = sha256(f"{COLUMNS} {what}".encode()).hexdigest()[:16]
        place = self.path.with_name(f"{self.path.stem}-{name}")
        # A part of the table must not fill the cache of the whole one.
        if not (self.whole or place.exists()):
            return make()
        with suppress(OSError):  # without a writable cache, compute the arrays every time
            with once(place) as missing:
                arrays = None if missing else _open_arrays(place)
                if arrays is None:  # missing or damaged
                    arrays = make()
                    if self.whole:
                        _save_arrays(place, arrays)
            return arrays
        return make()


def _save_arrays(path: Path, arrays: dict[str, ndarray]) -> None:
    with atomic_file(path) as file:
        # A fixed length of the header keeps the first array aligned.
        header = {name: [array.dtype.str, array.shape] for name, array in arrays.items()}
        file.write(json.dumps(header).encode().ljust(HEADER))
        for array in arrays.values():
            file.write(np.ascontiguousarray(array).data)


def _open_arrays(path: Path) -> dict[str, ndarray] | None:
    """Map the arrays that `_save_arrays` wrote; None if the file is damaged."""
    try:
        whole = np.memmap(path, np.uint8, mode="r")
        header, start, arrays = json.loads(whole[:HEADER].tobytes()), HEADER, {}
        for name, (kind, shape) in header.items():
            size = np.dtype(kind).itemsize * int(np.prod(shape))
            arrays[name] = whole[start : start + size].view(kind).reshape(shape)
            start += size
    except (ValueError, TypeError, AttributeError):  # an empty file, broken JSON, JSON of another structure
        return None
    # A file that was cut off, or has something behind it, is made again.
    return arrays if start == len(whole) else None


@contextmanager
def once(path: Path) -> Iterator[bool]:
    """Yield whether a file of the cache is missing; if so, others wait until the block has written it."""
    if path.exists():
        yield False
        return
    make_parents(path)
    # Eight ranks or workers often open the same data set at the same moment; one reads, the others wait.
    with path.with_name(f".{path.name}.wait").open("wb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise  # without locks, two processes may write the same file, which is atomic
        yield not path.exists()  # another process may have written it while this one waited


def cached_examples(
    read: Callable[[], Iterable[Example | pa.RecordBatch]],
    *,
    sources: Sequence[Path],
    settings: Any,
    cache: Path | None = None,
) -> ExampleTable:
    """Return the examples of `read`, from the cache if they have been read before.

    Args:
        read: yields examples, or windows of `one_pair_batch`.
        sources: files that define what `read` yields. Their paths, sizes and times are the key.
        settings: everything else that defines it; its `repr` is part of the key.
        cache: folder of the cache. None is `cache_folder()`. Everything in it may be deleted at any time.
    """
    if sum(path.stat().st_size for path in sources) <= IN_MEMORY:
        return ExampleTable.of(read())
    # Not checksums: reading gigabytes to find out that nothing changed would cost as much as parsing them.
    facts = [(str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns) for path in sources]
    key = sha256(repr((VERSION, facts, settings)).encode()).hexdigest()[:32]
    path = (cache or cache_folder()) / "examples" / f"{key}.arrow"
    with once(path) as missing:
        if missing:
            write_examples(path, read())
    return ExampleTable.open(path)


def cache_folder() -> Path:
    """Return the folder of caches: `DIPTYCH_CACHE`, else `diptych` in `XDG_CACHE_HOME` or `~/.cache`."""
    named = os.environ.get("DIPTYCH_CACHE")
    return (
        Path(named) if named else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "diptych"
    )


def write_examples(path: Path, examples: Iterable[Example | pa.RecordBatch]) -> None:
    """Write examples to an Arrow file atomically, with `WINDOW` of them in memory at a time."""
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
    """Build a window of examples with one pair each from columns of strings, for files of millions of rows.

    Args:
        ids: one id per example.
        texts: text of each pair; `texts_b` its second text.
        images: image key of each pair; `files` its picture file.
        targets: target of each example, as JSON.
    """
    count = len(ids)

    def column(values: pa.Array | None, kind: pa.DataType) -> pa.Array:
        return pa.nulls(count, kind) if values is None else values.cast(kind)

    def lists(values: pa.Array | None) -> pa.Array:
        if values is None:
            return pa.nulls(count, STRINGS)
        # Offsets 0, 1, 2, ...: a list of one element in every row.
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


def string_batch(**columns: Sequence[str | None]) -> pa.RecordBatch:
    """As `one_pair_batch`, from Python strings.

    Raises:
        FormatError: a string is no Unicode text, such as half of a surrogate pair.
    """
    try:
        return one_pair_batch(**{name: pa.array(values, pa.string()) for name, values in columns.items()})
    except (UnicodeEncodeError, pa.ArrowException) as error:
        raise FormatError(f"a string near {columns['ids'][0]!r} is no Unicode text ({error}).") from error


def _batches(examples: Iterable[Example | pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    window: list[Example] = []
    for item in examples:
        if isinstance(item, Example):
            window.append(item)
        # A ready window ends the current one, so that the order stays.
        if window and (len(window) == WINDOW or not isinstance(item, Example)):
            yield _record_batch(window)
            window = []
        if not isinstance(item, Example):
            yield item
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
    # Pairs of all examples lie one behind the other; the offsets say where each example ends.
    ends = np.cumsum([0, *(len(example.pairs) for example in window)], dtype=np.int32)
    columns = [
        pa.array([example.id for example in window], pa.string()),
        pa.ListArray.from_arrays(pa.array(ends), struct),
        pa.array([_json(example.target) for example in window], pa.string()),
        # nulls take little space in a file, and most examples have the weight 1
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
