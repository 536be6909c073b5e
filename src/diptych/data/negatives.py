"""Wrong pairs for training on true ones: some examples get the text or the image of another example."""

from collections.abc import Hashable
from copy import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import Int
from numpy import ndarray

from diptych.data.stream import images_of, stream
from diptych.errors import ConfigError
from diptych.predictions import Predictions
from diptych.types import Dataset, Example, Pair

EXCHANGED = ("text", "image", "either", "text_b")
TRIES = 100  # draws of another example before the data set counts as too uniform


class Negatives:
    """A data set of true pairs in which a share of the examples is wrong, drawn anew for every epoch.

    A wrong pair has the target 0. Its text is never one of the texts that its image has anywhere in the data
    set: MM-BERT draws any other row, which may be another caption of the same image. What is drawn is a pure
    function of `seed`, epoch and index, so a resumed run sees the same pairs.

    The example `index` of epoch e is `self[e * len(self) + index]`.

    Args:
        dataset: examples of one pair each.
        share: probability that an example is wrong, in (0, 1].
        exchange: what comes from another example: `text`, as in MM-BERT, `image`, one of these at random
            (`either`), or `text_b`, the second sentence of a translation.

    Raises:
        ConfigError: a setting is invalid, an example has several pairs or lacks what is to be exchanged, or
            all examples have the same image.
    """

    def __init__(
        self,
        dataset: Dataset,
        *,
        share: int | float = 0.5,
        exchange: str = "text",
        seed: int = 0,
    ) -> None:
        if not 0 < share <= 1 or exchange not in EXCHANGED:
            raise ConfigError(
                f"data.negatives has share {share} and exchange {exchange!r}; expected a number above 0, up "
                f"to 1, and one of {EXCHANGED}."
            )
        self.dataset, self.share, self.exchange, self.seed = dataset, share, exchange, seed
        self._owners = _owners(dataset)
        self._order = np.argsort(self._owners, kind="stable")
        self._ends = np.cumsum(np.bincount(self._owners))
        if len(self._owners) and self._owners.min() == self._owners.max():
            raise ConfigError(
                "data.negatives needs examples with two different images or more; all have the same."
            )

    def seeded(self, seed: int) -> "Negatives":
        """The same with other draws."""
        other = copy(self)
        other.seed = seed
        return other

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Example:
        epoch, row = divmod(index, len(self))
        example = self.dataset[row]
        if len(example.pairs) != 1:
            raise ConfigError(
                f"example {example.id} has {len(example.pairs)} pairs; data.negatives takes one."
            )
        random = np.random.default_rng([self.seed, epoch, row, 3])  # 3: apart from the streams of `Plan`
        if random.random() >= self.share:
            return example
        part = self.exchange if self.exchange != "either" else ("text", "image")[int(random.integers(2))]
        return replace(example, pairs=(self._wrong(example, row, part, random),), target=0)

    def _wrong(self, example: Example, row: int, part: str, random: np.random.Generator) -> Pair:
        own = example.pairs[0]
        if getattr(own, part) is None:
            raise ConfigError(f"example {example.id} has no {part} that data.negatives could exchange.")
        for _ in range(TRIES):
            place = int(random.integers(len(self)))
            if self._owners[place] == self._owners[row]:
                continue
            other = self.dataset[place].pairs[0]
            if part == "image":
                if own.text not in self._texts(place, "text"):  # two images may have the same caption
                    return replace(own, image=other.image, files=other.files)
            elif getattr(other, part) not in (None, *self._texts(row, part)):
                return replace(own, text=other.text) if part == "text" else replace(own, text_b=other.text_b)
        raise ConfigError(
            f"example {example.id}: none of {TRIES} drawn examples has another image and another {part}."
        )

    def _texts(self, row: int, part: str) -> list[str | None]:
        """All texts in the data set that belong to the image of an example."""
        owner = self._owners[row]
        rows = self._order[self._ends[owner - 1] if owner else 0 : self._ends[owner]]
        return [getattr(self.dataset[int(one)].pairs[0], part) for one in rows]

    def write(self, predictions: Predictions, path: Path) -> None:
        self.dataset.write(predictions, path)


def _owners(dataset: Dataset) -> Int[ndarray, " N"]:
    """Number of the image of every example; an example without image is alone."""
    coded = images_of(dataset)
    if coded is not None:
        return coded
    numbers: dict[Hashable, int] = {}
    keys = ((example.pairs[0].image, example.id) for example in stream(dataset))
    each = (numbers.setdefault(key if image is None else image, len(numbers)) for image, key in keys)
    return np.fromiter(each, np.int64, len(dataset))
