"""Part of a data set."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from diptych.data.processor import Processor, image_keys
from diptych.data.stream import stream
from diptych.errors import MissingFeatures
from diptych.predictions import Predictions
from diptych.types import Dataset, Example, RegionSource


@dataclass(frozen=True)
class Subset:
    """Some examples of a data set, in its order."""

    dataset: Dataset
    indices: Sequence[int]

    @property
    def files(self) -> tuple[Path, ...]:
        """What the data set was read from, if it says so."""
        return getattr(self.dataset, "files", ())

    @property
    def node(self) -> dict[str, Any] | None:
        """What opens any split of the data set again, if it says so."""
        return getattr(self.dataset, "node", None)

    @property
    def stores(self) -> tuple[str, ...]:
        """Names of the feature stores of the data set."""
        return getattr(self.dataset, "stores", ())

    @property
    def draws(self) -> list[tuple[int, int]] | None:
        """Those of a weighted mix, as far as its examples are here."""
        draws = getattr(self.dataset, "draws", None)
        if draws is None:
            return None
        ends = np.cumsum([count for count, _ in draws])
        kept = np.diff(np.searchsorted(self.indices, ends), prepend=0).tolist()
        both = zip(draws, kept, strict=True)
        return [(left, max(1, round(wanted * left / count))) for (count, wanted), left in both if left]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Example:
        return self.dataset[self.indices[index]]

    def write(self, predictions: Predictions, path: Path) -> None:
        self.dataset.write(predictions, path)


def with_regions(dataset: Dataset, processor: Processor, regions: RegionSource | None) -> Dataset:
    """Without the examples that `missing: skip` of the processor leaves out, which are warned about.

    Raises:
        MissingFeatures: none would remain.
    """
    if processor.missing != "skip" or regions is None:
        return dataset
    lacking: dict[str, str] = {}
    kept = []
    for index, example in enumerate(stream(dataset)):
        keys = [key for pair in example.pairs for key in image_keys(pair) if key not in regions]
        if keys:
            lacking[example.id] = keys[-1]
        else:
            kept.append(index)
    if not lacking:
        return dataset
    if len(lacking) == len(dataset):
        raise MissingFeatures(list(lacking.values()), getattr(regions, "path", "the feature store"))
    first = f"{', '.join(list(lacking)[:5])}{', ...' if len(lacking) > 5 else ''}"
    warnings.warn(
        f"{len(lacking)} of {len(dataset)} examples have no regions and are left out: {first}.", stacklevel=2
    )
    return Subset(dataset, kept)
