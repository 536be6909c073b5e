"""A table of scores that is filled block by block on disk, and goes on where a killed process stopped."""

import json
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice, pairwise
from math import isqrt, prod
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray
from typing_extensions import TypedDict

from diptych.documents import closed, read_json
from diptych.errors import AGAIN, ConfigError, FormatError
from diptych.files import atomic_file, claimed
from diptych.types import Progress

SCORES, RECORD = "scores.f32", "progress.json"
EVERY = 5.0  # seconds between two records; a kill loses that much work
CELLS = 1 << 20  # scores that are written at a time

Block = tuple[list[int], list[int]]


@closed
class RecordNode(TypedDict):
    """How far the table is, and the checksums of its inputs."""

    made_of: dict[str, Any]
    blocks: int


def blocks_of(
    lengths: tuple[Int[ndarray, " N"], Int[ndarray, " M"]],
    owners: Int[ndarray, " M"],
    *,
    size: int,
    folds: int = 1,
) -> Iterator[Block]:
    """Cut a table into blocks of at most `size` cells, with rows and columns of similar lengths together.

    The order is fixed, so the number of finished blocks says which ones these are.

    Args:
        owners: row to which each column belongs.
        folds: cut the rows into so many parts, in their order. A column is scored with the rows of the part
            that its own row is in.
    """
    # Squares read least: n x n scores need n images and n texts, and a row of as many n ** 2 texts.
    side = max(1, isqrt(size))
    ends = [len(lengths[0]) * number // folds for number in range(folds + 1)]
    for first, last in pairwise(ends):
        columns = _longest_first(lengths[1], np.flatnonzero((owners >= first) & (owners < last)))
        rows = _longest_first(lengths[0], np.arange(first, last))
        # Rows outside: their features are read once for all columns.
        for top in range(0, len(rows), side):
            for left in range(0, len(columns), side):
                yield rows[top : top + side].tolist(), columns[left : left + side].tolist()


def _longest_first(lengths: Int[ndarray, " L"], members: Int[ndarray, " K"]) -> Int[ndarray, " K"]:
    ordered: ndarray = members[np.argsort(-lengths[members], kind="stable")]
    return ordered


class PartialScores:
    """The folder of an unfinished table.

    Args:
        shape: rows and columns of the table.
        made_of: checksums of everything that determines the scores.
        blocks: returns all blocks, always in the same order.
    """

    def __init__(
        self,
        folder: Path,
        shape: tuple[int, int],
        *,
        made_of: Mapping[str, Any],
        blocks: Callable[[], Iterable[Block]],
    ) -> None:
        self.folder, self.shape, self.made_of, self.blocks = folder, shape, dict(made_of), blocks
        self.done = 0
        self.scores: Float[ndarray, "N M"] = np.zeros((0, 0), np.float32)

    @contextmanager
    def opened(self, *, overwrite: bool = False) -> Iterator[None]:
        """Lock the folder while the block runs, and continue what an earlier process left in it.

        Raises:
            ConfigError: the earlier process had other inputs, another process uses the folder, or it holds
                other files.
            FormatError: a file in it is damaged.
        """
        from diptych.features.writer import (
            holds_only,
        )  # imports pyarrow, which single predictions do not need

        if self.folder.exists() and not holds_only(self.folder, (SCORES, RECORD, ".*.part")):
            raise ConfigError(f"{self.folder} holds files that are not part of a retrieval and is kept.")
        with claimed(self.folder):
            if overwrite:
                self.discard()
            if (self.folder / RECORD).is_file():
                self._resume()
            else:
                self._begin()
            try:
                yield
            except BaseException:
                if not self.done:  # nothing that a later call could use
                    self.discard()
                raise

    def discard(self) -> None:
        """Remove the folder."""
        self.scores = np.zeros((0, 0), np.float32)
        if self.folder.exists():
            shutil.rmtree(self.folder)

    def fill(
        self, score: Callable[[Sequence[int], Sequence[int]], ndarray], progress: Progress | None
    ) -> None:
        """Score the blocks that are missing.

        Args:
            score: function of row and column numbers that returns the block of their scores.
            progress: called with the number of scored cells and the number of all cells to score.
        """
        total = sum(len(rows) * len(columns) for rows, columns in self.blocks())
        cells = sum(len(rows) * len(columns) for rows, columns in islice(self.blocks(), self.done))
        saved = time.monotonic()
        try:
            for rows, columns in islice(self.blocks(), self.done, None):
                self.scores[np.ix_(rows, columns)] = score(rows, columns)
                self.done += 1
                cells += len(rows) * len(columns)
                if progress is not None:
                    progress(cells, total)
                if time.monotonic() - saved > EVERY:
                    self._save()
                    saved = time.monotonic()
        finally:
            self._save()

    def _begin(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        rows = max(1, CELLS // self.shape[1])
        # Real bytes instead of a hole: a disk that fills up later would kill the process without an error.
        with (self.folder / SCORES).open("wb") as file:
            for start in range(0, self.shape[0], rows):
                count = min(rows, self.shape[0] - start)
                file.write(np.full((count, self.shape[1]), np.nan, np.float32).tobytes())
        self._map()
        self._save()  # the record comes last: without it, the folder is not continued

    def _map(self) -> None:
        self.scores = np.memmap(self.folder / SCORES, np.float32, "r+", shape=self.shape)

    def _save(self) -> None:
        assert isinstance(self.scores, np.memmap)
        self.scores.flush()  # before the record that counts it
        with atomic_file(self.folder / RECORD, "w", encoding="utf-8") as file:
            json.dump({"made_of": self.made_of, "blocks": self.done}, file, indent=1)

    def _resume(self) -> None:
        record, scores = self.folder / RECORD, self.folder / SCORES
        before = read_json(record, RecordNode, advice=AGAIN)
        if other := [name for name in self.made_of if before["made_of"].get(name) != self.made_of[name]]:
            raise ConfigError(
                f"{self.folder} was made with other inputs ({', '.join(other)} differ), so it is kept. Use "
                f"the same ones, or choose another place. {AGAIN}"
            )
        count = sum(1 for _ in self.blocks())
        size, expected = scores.stat().st_size if scores.is_file() else 0, 4 * prod(self.shape)
        # Somebody may have cut or exchanged the file since.
        if not 0 <= before["blocks"] <= count or size != expected:
            raise FormatError(
                f"{record} says that {before['blocks']} blocks of {count} are done, and {scores.name} has "
                f"{size:,} bytes; expected {expected:,}. {AGAIN}"
            )
        self._map()
        for number, (rows, columns) in enumerate(islice(self.blocks(), before["blocks"])):
            if np.isnan(self.scores[np.ix_(rows, columns)]).any():
                raise FormatError(f"{scores}: block {number} is recorded as done but has no scores. {AGAIN}")
        self.done = before["blocks"]
