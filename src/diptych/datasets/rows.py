"""Examples as columns, for questions about millions of them without a Python object for each."""

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Int
from numpy import ndarray

from diptych.datasets.counting import TOGETHER, Count, code_images
from diptych.errors import unlabeled
from diptych.predictions import likeliest
from diptych.types import Example, Mention, Pair

WINDOW = 16_384  # rows that are in memory while a table is written
FEW = 1024  # limit of different targets that are cached
STRINGS = pa.list_(pa.string())
PAIR = pa.struct(
    [
        ("text", pa.string()),
        ("text_b", pa.string()),
        ("images", STRINGS),
        ("files", STRINGS),
        ("mentions", pa.string()),  # JSON
        ("more_texts", STRINGS),
    ]
)
# Targets, mentions and meta differ between data sets, so their cells are JSON and the schema stays one.
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

Target = tuple[Any, str, int]


class Rows(ABC):
    """Examples by row, decoded on access, and their columns in windows."""

    _known_targets: list[Target] | None = None

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, index: int) -> Example: ...

    @abstractmethod
    def windows(self) -> Iterator[pa.RecordBatch]:
        """Yield all rows in order as columns of `SCHEMA`, some thousand at a time."""

    @abstractmethod
    def text_counts(self, count: Count, *, key: str, trim: str = "") -> Int[ndarray, "K P"]:
        """Number of tokens of the texts of every pair, without special tokens and truncation.

        The result has one row for first texts, and one for second texts if any pair has one; -1 means no
        text. For a table on disk, texts are counted once per `key` and `trim`.

        Args:
            count: function that returns the number of tokens of each of several words. A space always ends a
                token, so the tokens of a text are those of its words.
            key: fingerprint of the tokenizer.
            trim: characters to strip from the end of first texts.
        """

    def __iter__(self) -> Iterator[Example]:
        for batch in self.windows():
            # In parts: the Python objects of a whole window would take many times its memory.
            for start in range(0, len(batch), 1024):
                for record in batch.slice(start, 1024).to_pylist():
                    yield example_of(**record)

    @property
    def one_each(self) -> bool:
        """Whether every example has one pair, and every pair one image: one code of an image per example."""
        return all(
            len(batch) == len(images) and not images.null_count and len(images.flatten()) == len(images)
            for batch in self.windows()
            for images in [batch.column("pairs").flatten().field("images")]
        )

    @property
    def ids(self) -> tuple[str, ...]:
        """All ids as Python strings. Only for splits that are predicted; training sets may be too large."""
        return tuple(key for batch in self.windows() for key in batch.column("id").to_pylist())

    @property
    def pair_count(self) -> int:
        """Number of all pairs."""
        offsets = (batch.column("pairs").offsets for batch in self.windows())
        # Example: a list column of 3 rows with 1, 2 and 1 pairs has the offsets 0, 1, 3, 4. Its last two rows
        # alone have 1, 3, 4, and 4 - 1 = 3 pairs.
        # A slice of a batch has offsets that do not begin with 0.
        return sum(ends[len(ends) - 1].as_py() - ends[0].as_py() for ends in offsets)

    def coded_images(self) -> tuple[pa.Array, Int[ndarray, " I"]]:
        """Every image key once, and the index of the key of each image of all pairs, in order."""
        return code_images(self.windows())

    def image_keys(self) -> tuple[str, ...]:
        """Every image key once, sorted."""
        return tuple(sorted(self.coded_images()[0].to_pylist()))

    def key_windows(self, window: int) -> Iterator[list[str]]:
        """Yield every image key once, sorted, `window` of them at a time."""
        keys, _ = self.coded_images()
        # Sorted, so that the checks before a run name the same missing
        # keys whatever the order of the rows is.
        order = pc.sort_indices(keys)
        for start in range(0, len(keys), window):
            yield keys.take(order.slice(start, window)).to_pylist()

    def image_files(self) -> dict[str, str]:
        """Picture file of every image key that has one, relative to the root of the data set."""
        paths: dict[str, str] = {}
        for pairs in self._pairs():
            # `files` is null where the key alone leads to the picture.
            both = pairs.filter(pairs.field("files").is_valid())
            names = [both.field(name).flatten() for name in ("images", "files")]
            for keys, files in _first_of_each(*names):
                paths.update(zip(keys.to_pylist(), files.to_pylist(), strict=True))
        return paths

    def image_costs(self, cost: Callable[[list[str]], ndarray]) -> Int[ndarray, " P"]:
        """Total cost of the images of every pair.

        Args:
            cost: function that returns the costs of several image keys. It gets every key once.
        """
        keys, codes = self.coded_images()
        # Costs per different key, spread over all images by their codes: a popular image is looked up once.
        costs: ndarray = np.asarray(cost(keys.to_pylist()), np.int32)[codes]
        if self.one_each:
            return costs
        lengths = [pc.list_value_length(pairs.field("images")).fill_null(0) for pairs in self._pairs()]
        counts = np.concatenate([length.to_numpy() for length in lengths] or [np.zeros(0, np.int32)])
        # Sum over the images of each pair, as a difference of cumulative sums.
        # Example: costs 5, 7, 1 of pairs with 2, 0 and 1 images: sums 0, 5, 12, 13; ends 2, 2, 3;
        # totals 12, 0, 1.
        sums = np.concatenate([[0], np.cumsum(costs)])
        ends = np.cumsum(counts, dtype=np.int64)
        totals: ndarray = sums[ends] - sums[ends - counts]
        return totals.astype(np.int32)

    def longest(self, costs: Int[ndarray, " P"]) -> Int[ndarray, " N"]:
        """Largest cost of the pairs of each example; `costs` has one number per pair."""
        if len(costs) == len(self):
            return costs
        parts, done = [], 0
        for batch in self.windows():
            offsets = batch.column("pairs").offsets.to_numpy()
            starts, count = offsets[:-1] - offsets[0], int(offsets[-1] - offsets[0])
            # `reduceat` needs an element between two starts: every example has at least one pair.
            parts.append(np.maximum.reduceat(costs[done : done + count], starts))
            done += count
        return np.concatenate(parts)

    def targets(self) -> Iterator[Target]:
        """Yield every different target once: target, id of the first example with it, number of examples."""
        if self._known_targets is not None:
            yield from self._known_targets
            return
        # By the JSON text, because a target may be a dictionary, which no dictionary takes as a key.
        counts: dict[str | None, tuple[str, int]] = {}
        for batch in self.windows():
            names, codes = _coded(batch.column("target"))
            if len(names) == 1:  # frequent, such as in a split without labels; spares sorting the codes
                number, first, times = (np.array([value]) for value in (0, 0, len(codes)))
            else:
                number, first, times = np.unique(codes, return_index=True, return_counts=True)
            for code, place, many in zip(number.tolist(), first.tolist(), times.tolist(), strict=True):
                key, before = batch.column("id")[place].as_py(), counts.get(names[code])
                counts[names[code]] = (key, many) if before is None else (before[0], before[1] + many)
        targets = ((_read(text), key, many) for text, (key, many) in counts.items())
        # Classes are few and asked for again and again; soft targets may be as many as the examples.
        if len(counts) <= FEW:
            self._known_targets = list(targets)
        yield from self._known_targets or targets

    def target_column(self) -> Iterator[tuple[str, Any]]:
        """Yield the id and the target of every example."""
        for batch in self.windows():
            names, codes = _coded(batch.column("target"))
            # JSON is decoded once per different target and window.
            values = [_read(name) for name in names]
            ids = batch.column("id").to_pylist()
            yield from zip(ids, (values[code] for code in codes.tolist()), strict=True)

    def unlabeled(self, most: int = 5) -> tuple[int, list[str]]:
        """Number of examples without target, and the ids of the first `most` of them."""
        count, first = 0, list[str]()
        for batch in self.windows():
            # Arrow counts nulls anyway, so a labeled window costs nothing.
            if missing := batch.column("target").null_count:
                count += missing
                if len(first) < most:
                    rows = batch.filter(batch.column("target").is_null()).slice(0, most - len(first))
                    first += rows.column("id").to_pylist()
        return count, first

    def different_targets(self, window: int = 4096) -> Iterator[list[Example]]:
        """Yield one example per different target and number of pairs, in windows, without unlabeled ones.

        Checks of targets that pass for these examples pass for all.
        """
        rows = self.different_rows()  # row numbers first, so that only these few examples are decoded
        while examples := [self[row] for row in islice(rows, window)]:
            yield examples

    def different_rows(self) -> Iterator[int]:
        """Number of the first row with each target and number of pairs; large tables may have more rows."""
        seen: set[tuple[str, int]] = set()
        done, windows = 0, self.windows()
        # Several windows at once: most targets of a large data set occur in each of them.
        while group := [*islice(windows, TOGETHER)]:
            names, codes = _coded(pa.concat_arrays([batch.column("target") for batch in group]))
            if names == [None]:
                done += len(codes)
                continue
            pairs = np.concatenate([np.diff(batch.column("pairs").offsets.to_numpy()) for batch in group])
            # Code of the target in the high 32 bits and number of pairs in the low ones: `unique` of integers
            # is far faster than of rows.
            both, first = np.unique(codes.astype(np.int64) << 32 | pairs, return_index=True)
            for packed, place in sorted(
                zip(both.tolist(), first.tolist(), strict=True), key=lambda pair: pair[1]
            ):
                text = names[packed >> 32]
                if text is None or (text, packed & 0xFFFFFFFF) in seen:
                    continue
                if len(seen) < 1 << 16:  # bounds the memory; beyond, windows may repeat a target
                    seen.add((text, packed & 0xFFFFFFFF))
                yield done + place
            done += len(codes)

    def classes(self) -> Int[ndarray, " N"]:
        """Number of the class of every example. A soft target counts as its most likely class.

        Raises:
            ConfigError: an example has no target.
        """
        numbers: dict[Any, int] = {}
        parts = [np.zeros(0, np.int32)]
        for batch in self.windows():
            names, codes = _coded(batch.column("target"))
            if None in names:
                place = int(np.flatnonzero(codes == names.index(None))[0])
                raise unlabeled(batch.column("id")[place].as_py())
            # Numbered as they appear: balancing needs to tell classes apart, not to name them.
            each = [numbers.setdefault(likeliest(_read(name)), len(numbers)) for name in names]
            parts.append(np.array(each, np.int32)[codes])
        return np.concatenate(parts)

    def texts(self) -> Iterator[str]:
        """Yield all texts that are not empty in order: first, second and further ones of each pair."""
        for pairs in self._pairs():
            for start in range(0, len(pairs), WINDOW):
                window = pairs.slice(start, WINDOW)
                columns = (window.field(name).to_pylist() for name in ("text", "text_b", "more_texts"))
                for text, text_b, more in zip(*columns, strict=True):
                    yield from (one for one in (text, text_b, *(more or ())) if one)

    def _pairs(self) -> Iterator[pa.StructArray]:
        return (batch.column("pairs").flatten() for batch in self.windows())


def _first_of_each(keys: pa.Array, files: pa.Array) -> Iterator[tuple[pa.Array, pa.Array]]:
    """Keys and files of a window: each key once if it always has the same file, else all in order.

    The caller writes them to a dict, in which the last file of a key counts.
    """
    if not len(keys):
        return
    both = pa.table({"key": keys, "file": files}).group_by(["key", "file"], use_threads=False).aggregate([])
    if len(both.column("key").unique()) == len(both):
        keys, files = (both.column(name).combine_chunks() for name in ("key", "file"))
    yield keys, files


def _coded(column: pa.Array) -> tuple[list[str | None], Int[ndarray, " N"]]:
    """The different values of a column in order of appearance, and the index of the value of each row."""
    if column.null_count == len(column):
        return [None], np.zeros(len(column), np.int32)
    encoded = column.dictionary_encode(null_encoding="encode")
    codes: ndarray = encoded.indices.to_numpy(zero_copy_only=False)
    return encoded.dictionary.to_pylist(), codes


def _read(text: str | None) -> Any:
    return None if text is None else json.loads(text)


def example_of(
    id: str,
    pairs: list[dict[str, Any]],
    target: str | None,
    weight: float | None,
    group: str | None,
    meta: str | None,
) -> Example:
    """Build an example from the cells of a row."""
    return Example(
        id=id,
        pairs=tuple(_pair(**pair) for pair in pairs),
        target=_read(target),
        weight=1.0 if weight is None else weight,
        group=group,
        meta={} if meta is None else json.loads(meta),
    )


def _pair(
    text: str,
    text_b: str | None,
    images: list[str] | None,
    files: list[str] | None,
    mentions: str | None,
    more_texts: list[str] | None,
) -> Pair:
    named = () if mentions is None else json.loads(mentions)
    return Pair(
        image=None if images is None else images[0] if len(images) == 1 else tuple(images),
        text=text,
        text_b=text_b,
        mentions=tuple(Mention(start=a, stop=b, region=c, segment=d) for a, b, c, d in named),
        files=tuple(files or ()),
        more_texts=tuple(more_texts or ()),
    )
