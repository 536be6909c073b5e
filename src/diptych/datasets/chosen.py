"""Some rows of a table, in its order."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Int
from numpy import ndarray

from diptych.datasets.counting import Count
from diptych.datasets.rows import Rows
from diptych.types import Example


class ChosenRows(Rows):
    """Some rows of others. No row is copied; windows hold what is chosen of the windows below.

    Args:
        chosen: numbers of the rows, ascending.
    """

    def __init__(self, rows: Rows, chosen: Int[ndarray, " N"]) -> None:
        self.rows, self.chosen = rows, chosen

    def __len__(self) -> int:
        return len(self.chosen)

    def __getitem__(self, index: int) -> Example:
        return self.rows[int(self.chosen[index])]

    def windows(self) -> Iterator[pa.RecordBatch]:
        done = 0
        for batch in self.rows.windows():
            # Rows ascend, so those of a window are neighbors in `chosen`.
            first, last = np.searchsorted(self.chosen, [done, done + len(batch)])
            # A whole window is passed on without a copy.
            if last - first == len(batch):
                yield batch
            elif last > first:
                yield batch.take(pa.array(self.chosen[first:last] - done))
            done += len(batch)

    def text_counts(self, count: Count, *, key: str, trim: str = "") -> Int[ndarray, "K P"]:
        # Of all rows below, because these counts are cached on disk; of the chosen rows they would not be.
        counts = self.rows.text_counts(count, key=key, trim=trim)
        chosen = np.zeros(len(self.rows), bool)
        chosen[self.chosen] = True
        return counts[:, chosen if counts.shape[1] == len(chosen) else np.repeat(chosen, self._pair_counts())]

    def _pair_counts(self) -> Int[ndarray, " N"]:
        """Number of pairs of every row below."""
        parts = [np.diff(batch.column("pairs").offsets.to_numpy()) for batch in self.rows.windows()]
        return np.concatenate([np.zeros(0, np.int32), *parts])


def rows_with(rows: Rows, kept: Bool[ndarray, " K"], codes: Int[ndarray, " I"]) -> Int[ndarray, " N"]:
    """Numbers of the rows all of whose images are kept; a row without image is kept.

    Args:
        kept: for every key of `Rows.coded_images`, whether it is kept.
        codes: the second part of `Rows.coded_images`.
    """
    # Images that are not kept, counted up to each place: a row is kept if the count does not grow within it.
    lost = np.concatenate([[0], np.cumsum(~kept[codes])])
    found, row, place = [np.zeros(0, np.int64)], 0, 0
    for batch in rows.windows():
        lists = batch.column("pairs")
        images = lists.flatten().field("images")
        counts = np.concatenate([[0], np.cumsum(images.value_lengths().fill_null(0).to_numpy())])
        # where the images of every row begin: the lists of a slice start at its first offset
        starts = place + counts[lists.offsets.to_numpy() - lists.offsets[0].as_py()]
        found.append(row + np.flatnonzero(lost[starts[1:]] == lost[starts[:-1]]))
        row, place = row + len(batch), int(starts[-1])
    return np.concatenate(found)
