"""Regions and examples in memory, in place of a store and a split."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from diptych.predictions import Predictions
from diptych.types import Example, FeatureMeta, Regions


class GivenRegions:
    """A region source over regions in memory."""

    def __init__(self, regions: Mapping[str, Regions], *, detector: FeatureMeta | None = None) -> None:
        # All regions come from one detector, so the first ones show the width.
        width = next(iter(regions.values())).features.shape[1]
        self.regions = regions
        # Regions in memory have class numbers only; their names are those of the training detector.
        self.meta = FeatureMeta(feature_dim=width, classes=detector.classes if detector else ())
        # Vectors of a store were compared with those of training where the store was opened.
        if detector is not None and detector.parts:
            self.meta = replace(self.meta, detector=detector.detector, parts=detector.parts)

    def __getitem__(self, key: str) -> Regions:
        return self.regions[key]

    def __contains__(self, key: str) -> bool:
        return key in self.regions

    # As in a store, where counting reads no features.
    def count(self, key: str) -> int:
        return len(self.regions[key])


class Listed:
    """A data set over examples in memory."""

    def __init__(self, examples: Sequence[Example]) -> None:
        self.examples = examples

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> Example:
        return self.examples[index]

    def write(self, predictions: Predictions, path: Path) -> None:
        predictions.save(path)
