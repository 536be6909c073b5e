"""Examples as a memory-mapped table: what a split holds, without a Python object per row.

A data set yields its examples once. They become an Arrow file in a cache, which is found again by the files
that they were read from. A row turns back into an `Example` only when a loader worker asks for it. A small
split stays in memory.
"""

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Int
from numpy import ndarray

from diptych.errors import FormatError
from diptych.files import atomic_file
from diptych.types import Example, Mention, Pair

VERSION = 1  # of the layout below; a cached table of another version is not found
WINDOW = 16_384  # rows that are in memory while a table is written
IN_MEMORY = 16 << 20  # bytes of annotation files up to which a table needs no file
ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))  # json.dumps makes one per call
STRINGS = pa.list_(pa.string())
PAIR = pa.struct(
    [
        ("text", pa.string()),
        ("text_b", pa.string()),
        ("images", STRINGS),
        ("files", STRINGS),
        ("mentions", pa.string()),  # JSON
    ]
)
SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("pairs", pa.list_(PAIR)),
        ("target", pa.string()),  # JSON
        ("weight", pa.float32()),
        ("group", pa.string()),
        ("meta", pa.string()),  # JSON
    ]
)


class ExampleTable:
    """Examples by row, decoded when asked for.

    May be pickled: a table on disk travels as its path, one in memory as its bytes.
    """

    def __init__(self, table: pa.Table, *, path: Path | None = None) -> None:
        self.table, self.path = table, path
        self._batches = table.to_batches()
        self._ends = np.cumsum([len(batch) for batch in self._batches], dtype=np.int64)

    @classmethod
    def open(cls, path: Path) -> "ExampleTable":
        """Map a file that `write_examples` wrote.

        Raises:
            FormatError: it is damaged.
        """
        try:
            with pa.memory_map(str(path)) as source:
                table = pa.ipc.open_file(source).read_all()
        except pa.ArrowException as error:
            raise FormatError(
                f"{path}: damaged cache of examples ({error}). Delete it and try again."
            ) from error
        return cls(table, path=path)

    @classmethod
    def of(cls, examples: Iterable[Example | pa.RecordBatch]) -> "ExampleTable":
        """A table in memory."""
        return cls(pa.Table.from_batches(_batches(examples), schema=SCHEMA))

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        if self.path is not None:
            return ExampleTable.open, (self.path,)
        return ExampleTable, (self.table,)

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def __getitem__(self, index: int) -> Example:
        row = range(len(self))[index]
        number = int(np.searchsorted(self._ends, row, side="right"))
        batch = self._batches[number]
        place = row - int(self._ends[number]) + len(batch)
        return _example(*(batch.column(name)[place].as_py() for name in SCHEMA.names))

    def __iter__(self) -> Iterator[Example]:
        for batch in self._batches:
            for start in range(0, len(batch), 1024):
                for record in batch.slice(start, 1024).to_pylist():
                    yield _example(**record)

    def head(self, count: int) -> "ExampleTable":
        """The first `count` rows."""
        return ExampleTable(self.table.slice(0, count))

    @property
    def ids(self) -> tuple[str, ...]:
        """All ids as Python strings; for splits that are predicted, not for the largest training sets."""
        return tuple(self.table.column("id").to_pylist())

    def image_keys(self) -> tuple[str, ...]:
        """Every image key once, sorted."""
        found: set[str] = set()
        for pairs in self._pairs():
            found.update(pairs.field("images").flatten().unique().drop_null().to_pylist())
        return tuple(sorted(found))

    def image_files(self) -> dict[str, str]:
        """The picture file of every image key that has one, below the root of the data set."""
        found: dict[str, str] = {}
        for pairs in self._pairs():
            both = pairs.filter(pairs.field("files").is_valid())
            keys, files = (both.field(name).flatten().to_pylist() for name in ("images", "files"))
            found.update(zip(keys, files, strict=True))
        return found

    def _pairs(self) -> Iterator[pa.StructArray]:
        return (batch.column("pairs").flatten() for batch in self._batches)

    def targets(self) -> Iterator[tuple[Any, str, int]]:
        """Every different target once: (target, id of the first example that has it, how many have it)."""
        counts: dict[str | None, tuple[str, int]] = {}
        for batch in self._batches:
            encoded = batch.column("target").dictionary_encode(null_encoding="encode")
            codes = encoded.indices.to_numpy(zero_copy_only=False)
            names = encoded.dictionary.to_pylist()
            number, first, times = np.unique(codes, return_index=True, return_counts=True)
            for code, place, many in zip(number.tolist(), first.tolist(), times.tolist(), strict=True):
                key, before = batch.column("id")[place].as_py(), counts.get(names[code])
                counts[names[code]] = (key, many) if before is None else (before[0], before[1] + many)
        for text, (key, many) in counts.items():
            yield (None if text is None else json.loads(text)), key, many

    def texts(self) -> Iterator[str]:
        """Every text, first and second of each pair, in order."""
        for pairs in self._pairs():
            for start in range(0, len(pairs), WINDOW):
                window = pairs.slice(start, WINDOW)
                both = zip(window.field("text").to_pylist(), window.field("text_b").to_pylist(), strict=True)
                yield from (text for pair in both for text in pair if text)

    def count_tokens(self, count: Callable[[Sequence[str]], Sequence[int]]) -> Int[ndarray, " N"]:
        """Tokens of the longest pair of every example, special tokens and truncation apart.

        A space always ends a token, so every word is counted once, however often it occurs: 10 million texts
        take seconds instead of minutes.

        Args:
            count: numbers of tokens of many words.
        """
        known: dict[str, int] = {}
        lengths = [_count_batch(batch, known, count) for batch in self._batches]
        return np.concatenate(lengths) if lengths else np.zeros(0, np.int64)


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
    if not path.exists():
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


def _example(
    id: str,
    pairs: list[dict[str, Any]],
    target: str | None,
    weight: float | None,
    group: str | None,
    meta: str | None,
) -> Example:
    return Example(
        id=id,
        pairs=tuple(_pair(**pair) for pair in pairs),
        target=None if target is None else json.loads(target),
        weight=1.0 if weight is None else weight,
        group=group,
        meta={} if meta is None else json.loads(meta),
    )


def _pair(
    text: str, text_b: str | None, images: list[str] | None, files: list[str] | None, mentions: str | None
) -> Pair:
    named = () if mentions is None else json.loads(mentions)
    return Pair(
        image=None if images is None else images[0] if len(images) == 1 else tuple(images),
        text=text,
        text_b=text_b,
        mentions=tuple(Mention(start=a, stop=b, region=c, segment=d) for a, b, c, d in named),
        files=tuple(files or ()),
    )


def _count_batch(
    batch: pa.RecordBatch, known: dict[str, int], count: Callable[[Sequence[str]], Sequence[int]]
) -> Int[ndarray, " N"]:
    pairs = batch.column("pairs")
    struct = pairs.flatten()
    tokens = _count_texts(struct.field("text"), known, count) + _count_texts(
        struct.field("text_b"), known, count
    )
    starts = pairs.offsets.to_numpy()[:-1] - pairs.offsets[0].as_py()
    return np.maximum.reduceat(tokens, starts) if len(starts) else np.zeros(0, np.int64)


def _count_texts(
    texts: pa.Array, known: dict[str, int], count: Callable[[Sequence[str]], Sequence[int]]
) -> Int[ndarray, " N"]:
    import pyarrow.compute as pc

    if texts.null_count == len(texts):
        return np.zeros(len(texts), np.int64)
    words = pc.split_pattern(pc.fill_null(texts, ""), " ")
    encoded = words.flatten().dictionary_encode()
    names = encoded.dictionary.to_pylist()
    if new := [name for name in names if name not in known]:
        known.update(zip(new, count(new), strict=True))
    each = np.array([known[name] for name in names], np.int64)[encoded.indices.to_numpy()]
    sums = np.concatenate([[0], np.cumsum(each)])
    offsets = words.offsets.to_numpy() - words.offsets[0].as_py()
    lengths: ndarray = sums[offsets[1:]] - sums[offsets[:-1]]
    return lengths
