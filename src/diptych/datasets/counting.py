"""Image keys and token counts of whole columns, for millions of pairs in seconds."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Int
from numpy import ndarray

Count = Callable[[Sequence[str]], Sequence[int]]
Words = tuple[pa.Array, pa.Array | None, pa.Array | None]  # texts, their words, codes of all words
TOGETHER = 8  # windows whose words and targets are looked up together


def code_images(windows: Iterator[pa.RecordBatch]) -> tuple[pa.Array, Int[ndarray, " I"]]:
    """Compute `Rows.coded_images` from windows of columns."""
    keys = [batch.column("pairs").flatten().field("images").flatten() for batch in windows]
    encoded = pa.chunked_array(keys, pa.string()).dictionary_encode()
    # Arrow gives all chunks one dictionary; unifying it with itself takes 20 s for 10 million pairs.
    if len({chunk.dictionary.buffers()[-1].address for chunk in encoded.chunks}) > 1:
        encoded = encoded.unify_dictionaries()
    chunks = encoded.chunks
    first = chunks[0].dictionary if chunks else pa.array([], pa.string())
    return first, np.concatenate([np.zeros(0, np.int32), *(chunk.indices.to_numpy() for chunk in chunks)])


def count_texts(windows: Iterator[pa.RecordBatch], count: Count, trim: str) -> Int[ndarray, "K P"]:
    """Compute `Rows.text_counts` from windows of columns. Every different word is tokenized once."""
    known: dict[str, int] = {}
    first, second = [np.zeros(0, np.int32)], [np.zeros(0, np.int32)]
    # Several windows at once: most words of a large data set occur in each of them. Arrow cuts the next
    # windows into words in threads, while this one counts.
    with ThreadPoolExecutor(2) as pool:
        waiting = deque[tuple[Future[Words], Future[Words]]]()
        while True:
            while len(waiting) < 2 and (group := [*islice(windows, TOGETHER)]):
                waiting.append(
                    (pool.submit(_words, group, "text", trim), pool.submit(_words, group, "text_b"))
                )
            if not waiting:
                break
            texts, others = waiting.popleft()
            first.append(_count_texts(texts.result(), known, count))
            second.append(_count_texts(others.result(), known, count))
    # Without second texts one row is enough; callers look at `len`.
    if all(bool((counts == -1).all()) for counts in second):
        return np.concatenate(first)[None]
    return np.stack([np.concatenate(first), np.concatenate(second)])


def _words(windows: Sequence[pa.RecordBatch], field: str, trim: str = "") -> Words:
    """Texts of one field of all pairs, the words of each, and the codes of all words."""
    texts = pa.concat_arrays([batch.column("pairs").flatten().field(field) for batch in windows])
    if texts.null_count == len(texts):
        return texts, None, None
    words = pc.split_pattern(pc.utf8_rtrim(texts, trim) if trim else texts, " ")
    return texts, words, words.flatten().dictionary_encode()


def _count_texts(found: Words, known: dict[str, int], count: Count) -> Int[ndarray, " P"]:
    """Number of tokens of each text; -1 for null. `known` caches the counts of words."""
    texts, words, encoded = found
    if words is None or encoded is None:
        return np.full(len(texts), -1, np.int32)
    names = encoded.dictionary.to_pylist()
    if new := [name for name in names if name not in known]:
        # In one call: of a large table, most words have been counted in an earlier window.
        known.update(zip(new, count(new), strict=True))
    each = np.array([known[name] for name in names] or [0], np.int32)[encoded.indices.to_numpy()]
    # The sum over the words of each text is a difference of cumulative sums.
    sums = np.concatenate([[0], np.cumsum(each)])
    offsets = words.offsets.to_numpy() - words.offsets[0].as_py()
    lengths: ndarray = sums[offsets[1:]] - sums[offsets[:-1]]
    if texts.null_count:
        lengths[texts.is_null().to_numpy(zero_copy_only=False)] = -1
    return lengths.astype(np.int32)
