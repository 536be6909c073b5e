"""Facts about all examples of a data set, computed from its columns if it has them, else one by one."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Int
from numpy import ndarray

from diptych.data.cutting import lengths_of_rows
from diptych.data.processor import Processor, image_keys
from diptych.text import CachedTokenizer, WordPiece
from diptych.types import Dataset, Example, RegionSource, Tokenizer

if TYPE_CHECKING:
    from diptych.datasets.rows import Rows  # loads pyarrow

CHUNK = 1 << 20  # pairs whose lengths are computed at a time
WINDOW = 4096  # examples that are in memory at a time
UNLIMITED = 1 << 28  # tokens, more than any text has


def rows_of(dataset: object) -> "Rows | None":
    """Return the columns of a data set, or None if it has none or its examples differ from them."""
    return getattr(dataset, "rows", None)


def stream(dataset: Dataset) -> Iterator[Example]:
    """Iterate over all examples in order without keeping them."""
    rows = rows_of(dataset)
    return (dataset[index] for index in range(len(dataset))) if rows is None else iter(rows)


def ids_of(dataset: Dataset) -> tuple[str, ...]:
    """Return the ids of all examples."""
    rows = rows_of(dataset)
    return tuple(example.id for example in stream(dataset)) if rows is None else rows.ids


def targets_of(dataset: Dataset) -> Iterator[tuple[str, Any]]:
    """Iterate over the id and the target of every example."""
    rows = rows_of(dataset)
    if rows is not None:
        return rows.target_column()
    return ((example.id, example.target) for example in stream(dataset))


def count_targets(dataset: Dataset) -> Iterator[tuple[Any, int]]:
    """Targets, and how many examples have each; one that was counted may occur again."""
    rows = rows_of(dataset)
    if rows is not None:
        return ((target, count) for target, _, count in rows.targets())
    return ((example.target, 1) for example in stream(dataset))


def look_at_labels(examples: Dataset | Sequence[Example]) -> tuple[int, list[str], set[str]]:
    """Look at the targets of all examples.

    Returns:
        The number of examples without target, the ids of the first five of them, and names of classes. Two
        names are enough for the callers, so the columns give no more.
    """
    rows = rows_of(examples)
    if rows is not None:
        named = (target for target, _, _ in rows.targets() if isinstance(target, str))
        return *rows.unlabeled(), set(islice(named, 2))
    count, first, labels = 0, list[str](), set[str]()
    for index in range(len(examples)):
        example = examples[index]
        if example.target is None:
            count += 1
            first += [example.id] if count <= 5 else []
        elif isinstance(example.target, str):
            labels.add(example.target)
    return count, first, labels


class Texts:
    """All texts of all pairs of a data set. Can be iterated several times."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset

    def __iter__(self) -> Iterator[str]:
        rows = rows_of(self.dataset)
        if rows is not None:
            return rows.texts()
        pairs = (pair for example in stream(self.dataset) for pair in example.pairs)
        return (text for pair in pairs for text in (pair.text, pair.text_b, *pair.more_texts) if text)


def different_targets(dataset: Dataset) -> Iterator[list[Example]]:
    """Yield examples in windows that together have every target of the data set.

    Columns give one example per different target; without columns, all examples are given.
    """
    rows = rows_of(dataset)
    if rows is not None:
        yield from rows.different_targets(WINDOW)
        return
    # In windows: a data set of millions of examples does not fit into memory as Python objects.
    for start in range(0, len(dataset), WINDOW):
        yield [dataset[index] for index in range(start, min(start + WINDOW, len(dataset)))]


def key_windows(examples: Dataset | Iterable[Example]) -> Iterator[list[str]]:
    """Yield every image key once, sorted, in windows of some thousand."""
    rows = rows_of(examples)
    if rows is not None:
        yield from rows.key_windows(WINDOW)
        return
    every = examples if isinstance(examples, Iterable) else stream(examples)
    yield sorted({key for example in every for pair in example.pairs for key in image_keys(pair)})


def has_images(dataset: Dataset) -> bool:
    """Whether an example has an image."""
    rows = rows_of(dataset)
    return any(map(bool, key_windows(dataset))) if rows is None else len(rows.coded_images()[0]) > 0


def images_of(dataset: Dataset) -> Int[ndarray, " N"] | None:
    """Number of the image of every example; None unless each has one pair and one image, in columns."""
    rows = rows_of(dataset)
    return None if rows is None or not rows.one_each else rows.coded_images()[1]


def lengths_of(
    dataset: Dataset, processor: Processor, regions: RegionSource | None = None
) -> Int[ndarray, " N"]:
    """Compute `Processor.length` of every example, from token counts of whole columns if possible."""
    rows = rows_of(dataset)
    text = _counter(processor.text)
    if rows is None or not _countable(processor, text):
        lengths = (processor.length(example, regions) for example in stream(dataset))
        return np.fromiter(lengths, np.int64, len(dataset))
    # Must equal `Processor.length`; without special cases, so that millions of pairs take seconds.
    total, seen = (np.zeros(rows.pair_count, np.int32) for _ in range(2))
    if text is not None:
        counts = rows.text_counts(text.count, key=text.fingerprint, trim=_trimmed(processor))
        for start in range(0, len(total), CHUNK):
            total[start : start + CHUNK] = _token_lengths(
                counts[:, start : start + CHUNK], processor, text, most=processor.max_tokens
            )
        if processor.bare_texts and processor.text_b is None:
            bare = rows.image_costs(lambda keys: np.ones(len(keys), np.int32)) == 0
            bare &= len(counts) < 2 or counts[-1] == -1  # a pair of texts keeps its special tokens
            total[bare] = np.minimum(counts[0][bare], processor.max_tokens)
    if processor.regions and regions is not None:
        most, source = processor.max_regions, regions
        seen += rows.image_costs(lambda keys: count_regions(source, keys).clip(0, most))
        seen += int(processor.whole_image)
    return rows.longest(lengths_of_rows(total, seen, most=processor.max_row, whole=processor.added))


def count_cut(dataset: Dataset, processor: Processor) -> int:
    """Number of examples with a text that `processor.max_tokens` cuts; object names do not count."""
    text = processor.text
    if text is None:
        return 0
    rows, counter = rows_of(dataset), _counter(text)
    if rows is None or counter is None or not _countable(processor, counter):
        return sum(any(map(processor.cuts, example.pairs)) for example in stream(dataset))
    counts = rows.text_counts(counter.count, key=counter.fingerprint, trim=_trimmed(processor))
    lengths = [
        _token_lengths(counts[:, start : start + CHUNK], processor, counter, most=UNLIMITED)
        for start in range(0, counts.shape[1], CHUNK)
    ]
    total = np.concatenate([np.zeros(0, np.int32), *lengths])
    return int(np.count_nonzero(rows.longest(total) > processor.max_tokens))


def count_regions(source: RegionSource, keys: Sequence[str]) -> Int[ndarray, " N"]:
    """Number of regions of each image; -1 for an image that the source does not have."""
    many: Callable[[Sequence[str]], ndarray] | None = getattr(source, "counts_of", None)
    if many is not None:
        return many(keys)
    return np.array([source.count(key) if key in source else -1 for key in keys], np.int64)


def _counter(text: Tokenizer | None) -> WordPiece | None:
    """The WordPiece tokenizer inside, or None: `_token_lengths` knows the truncation of WordPiece only."""
    # A subclass with its own `encode` may cut texts in another way, so it is counted one by one.
    text = text.tokenizer if isinstance(text, CachedTokenizer) else text
    return text if isinstance(text, WordPiece) and type(text).encode is WordPiece.encode else None


def _countable(processor: Processor, text: WordPiece | None) -> bool:
    """Whether lengths follow from numbers of tokens and regions. With tags they do not: a tag is a text."""
    # A subclass of Processor may have its own `length`. Below 3 tokens, a pair has no room for its specials.
    known = (text is None) == (processor.text is None)
    return type(processor) is Processor and known and not processor.tags and processor.max_tokens >= 3


def _trimmed(processor: Processor) -> str:
    """Characters that `Processor` strips before `text_end`."""
    return "" if processor.text_end is None else "? "


def _token_lengths(
    counts: Int[ndarray, "K P"], processor: Processor, text: WordPiece, *, most: int
) -> Int[ndarray, " P"]:
    """Numbers of tokens with special tokens, truncated to `most` as in `WordPiece.encode`.

    Args:
        counts: tokens of the first texts and, if there are any, of the second ones; -1 for no second text.
    """
    first = np.array(counts[0])
    if processor.text_end is not None:
        first += text.count([processor.text_end])[0]
    second = np.array(counts[1]) if len(counts) > 1 else np.full(len(first), -1, np.int32)
    # -1 marks a pair without second text; those get the processor's, as `Processor._second` does.
    if processor.text_b is not None:
        second[second == -1] = text.count([processor.text_b])[0]
    # Example: most=9 leaves room 6. Texts of 5 and 4 keep 3 and 3; texts of 8 and 1 keep 5 and 1.
    room = most - 3  # a pair has [CLS] and two [SEP]
    # The shorter text keeps up to half of the room; the longer one gets the rest.
    shorter = np.minimum(np.minimum(first, second), room // 2)
    longer = np.minimum(np.maximum(first, second), room - shorter)
    alone = np.minimum(first, room + 1) + 2  # one text has [CLS] and one [SEP]
    lengths: ndarray = np.where(second == -1, alone, shorter + longer + 3)
    return lengths
