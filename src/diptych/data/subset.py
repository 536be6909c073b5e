"""Subsets of a data set."""

import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Int
from numpy import ndarray

from diptych.data.processor import Processor, image_keys
from diptych.data.stream import key_windows, rows_of, stream
from diptych.errors import MissingFeatures, first_five
from diptych.predictions import Predictions
from diptych.types import Dataset, Example, RegionSource

if TYPE_CHECKING:
    from diptych.datasets.rows import Rows


@dataclass(frozen=True, eq=False)
class Subset:
    """Some examples of a data set, in its order.

    Args:
        indices: which examples, ascending. An array, so that 10 million examples take 80 MB.
    """

    dataset: Dataset
    indices: Int[ndarray, " n"]

    @property
    def files(self) -> tuple[Path, ...]:
        """Files that the data set was read from; empty if it does not say."""
        return getattr(self.dataset, "files", ())

    @property
    def node(self) -> dict[str, Any] | None:
        """Config that opens any split of the data set again; None if it does not say."""
        return getattr(self.dataset, "node", None)

    @property
    def stores(self) -> tuple[str, ...]:
        """Names of the feature stores of the data set."""
        return getattr(self.dataset, "stores", ())

    @property
    def draws(self) -> list[tuple[int, int]] | None:
        """The `draws` of a weighted mix (see `Plan`), scaled to the examples that the subset keeps."""
        draws = getattr(self.dataset, "draws", None)
        if draws is None:
            return None
        both = zip(draws, self._kept(count for count, _ in draws), strict=True)
        # A member of which some examples are left is drawn at least once.
        return [(left, max(1, round(wanted * left / count))) for (count, wanted), left in both if left]

    @property
    def member_counts(self) -> dict[str, int]:
        """Number of examples that are left of each member of a mix; empty for other data sets."""
        members: dict[str, int] = getattr(self.dataset, "member_counts", {})
        return dict(zip(members, self._kept(members.values()), strict=True))

    def _kept(self, counts: Iterable[int]) -> list[int]:
        ends = np.cumsum([*counts])
        # Indices ascend, so the place of the end of each data set counts the examples kept so far.
        return [*map(int, np.diff(np.searchsorted(self.indices, ends), prepend=0))]

    @property
    def rows(self) -> "Rows | None":
        """The columns of the examples; None where the data set has none."""
        rows = rows_of(self.dataset)
        if rows is None:
            return None
        from diptych.datasets.chosen import ChosenRows  # which loads pyarrow

        return ChosenRows(rows, self.indices)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Example:
        return self.dataset[int(self.indices[index])]

    def write(self, predictions: Predictions, path: Path) -> None:
        self.dataset.write(predictions, path)


def with_regions(dataset: Dataset, processor: Processor, regions: RegionSource | None) -> Dataset:
    """Leave out examples without regions if `missing` of the processor is `skip`, and warn about them.

    Raises:
        MissingFeatures: no example has regions.
    """
    if processor.missing != "skip" or regions is None:
        return dataset
    # One byte per example; a list of indices or ids would take gigabytes for millions of examples.
    has_regions = np.fromiter(
        (
            all(key in regions for pair in example.pairs for key in image_keys(pair))
            for example in stream(dataset)
        ),
        bool,
        len(dataset),
    )
    kept, lacking = np.flatnonzero(has_regions), np.flatnonzero(~has_regions)
    if not len(lacking):
        return dataset
    if not len(kept):
        missing = {key for keys in key_windows(dataset) for key in keys if key not in regions}
        raise MissingFeatures(missing, getattr(regions, "path", "the feature store"))
    first = first_five(dataset[int(index)].id for index in lacking[:6])
    warnings.warn(
        f"{len(lacking)} of {len(dataset)} examples have no regions and are left out: {first}.", stacklevel=2
    )
    return Subset(dataset, kept)
