"""A data set some of whose examples have other texts."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from diptych.predictions import Predictions
from diptych.types import Dataset, Example


@dataclass(frozen=True, eq=False)
class Reworded:
    """A data set whose examples have the given texts, where there is one.

    It has no columns (`rows`), so readers go through the examples. Mentions of a replaced text are dropped,
    because their places are those in the old one.

    Args:
        texts: first text of every pair, by id of the example.
    """

    dataset: Dataset
    texts: Mapping[str, str]

    @property
    def images(self) -> Mapping[str, Path] | None:
        """Picture files by key; None if the data set does not say."""
        return getattr(self.dataset, "images", None)

    @property
    def node(self) -> dict[str, Any] | None:
        """Config that opens any split of the data set again, with its own texts; None if it does not say."""
        return getattr(self.dataset, "node", None)

    @property
    def stores(self) -> tuple[str, ...]:
        """Names of the feature stores of the data set."""
        return getattr(self.dataset, "stores", ())

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Example:
        example = self.dataset[index]
        text = self.texts.get(example.id)
        if text is None:
            return example
        return replace(example, pairs=tuple(replace(pair, text=text, mentions=()) for pair in example.pairs))

    def write(self, predictions: Predictions, path: Path) -> None:
        self.dataset.write(predictions, path)
