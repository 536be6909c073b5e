"""Mirrored pictures in training: a share of the examples is seen with left and right exchanged."""

import re
from bisect import bisect_right
from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

from diptych.errors import ConfigError
from diptych.predictions import Predictions
from diptych.types import Dataset, Example, Pair

WORDS = ("skip", "swap", "keep")
SIDES = re.compile(r"\b(left|right)\b", re.IGNORECASE)
OTHER = {"left": "right", "right": "left"}


class Mirrored:
    """A data set in which a share of the examples has mirrored pictures, drawn anew for every epoch.

    Pixels, boxes, silhouettes and gold boxes are mirrored together by the processor and the task, which
    `Pair.mirrored` tells. What is drawn is a pure function of `seed`, epoch and index, so a resumed run sees
    the same pictures. The example `index` of epoch e is `self[e * len(self) + index]`.

    Args:
        share: probability of an example, in (0, 1]; 0.5 in VL-BERT.
        words: what becomes of an example that says "left" or "right". `skip` never mirrors it: only a person
            can tell whether "right" is a side in "the man on the right is right". `swap` exchanges the two
            words in texts and answers, as VL-BERT does for RefCOCO and VQA, where they are sides. `keep`
            (compat) leaves the texts as they are, which then contradict the picture, as VL-BERT does for VCR.

    Raises:
        ConfigError: a setting is invalid.
    """

    def __init__(
        self, dataset: Dataset, *, share: int | float = 0.5, words: str = "skip", seed: int = 0
    ) -> None:
        if not 0 < share <= 1 or words not in WORDS:
            raise ConfigError(
                f"data.mirror has share {share} and words {words!r}; expected a number above 0, up to 1, and "
                f"one of {WORDS}."
            )
        self.dataset, self.share, self.words, self.seed = dataset, share, words, seed

    def seeded(self, seed: int) -> "Mirrored":
        """The same with other draws."""
        other = copy(self)
        other.seed = seed
        return other

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Example:
        epoch, row = divmod(index, len(self))
        example = self.dataset[row]
        random = np.random.default_rng([self.seed, epoch, row, 4])  # 4: apart from `Plan` and `Negatives`
        drawn = random.random() < self.share
        # A text of a corpus has no picture to mirror.
        if not drawn or all(pair.image is None for pair in example.pairs):
            return example
        if self.words == "skip" and any(map(_says_side, example.pairs)):
            return example
        pairs = tuple(map(swap_sides, example.pairs)) if self.words == "swap" else example.pairs
        return replace(
            example,
            pairs=tuple(replace(pair, mirrored=True) for pair in pairs),
            target=_swapped_answers(example.target) if self.words == "swap" else example.target,
        )

    def write(self, predictions: Predictions, path: Path) -> None:
        self.dataset.write(predictions, path)


def swap_sides(pair: Pair) -> Pair:
    """Exchange "left" and "right" in both texts; mentions move with their words."""
    text, place = _swapped(pair.text)
    second, place_b = (None, place) if pair.text_b is None else _swapped(pair.text_b)
    moved = (
        replace(one, start=to(one.start), stop=to(one.stop))
        for one in pair.mentions
        for to in [place_b if one.segment else place]
    )
    return replace(pair, text=text, text_b=second, mentions=tuple(moved))


def _says_side(pair: Pair) -> bool:
    return any(SIDES.search(text) for text in (pair.text, pair.text_b, *pair.more_texts) if text)


def _swapped(text: str) -> tuple[str, Callable[[int], int]]:
    """The text with the words exchanged, and the new place of each of its characters."""
    found = [*SIDES.finditer(text)]
    ends = [one.end() for one in found]
    # "right" is one character longer than "left", which moves everything behind it.
    moves = [0, *accumulate(9 - 2 * len(one[0]) for one in found)]
    return SIDES.sub(_other, text), lambda at: at + moves[bisect_right(ends, at)]


def _other(found: re.Match[str]) -> str:
    word = OTHER[found[0].lower()]
    return word.capitalize() if found[0][0].isupper() else word


def _swapped_answers(target: Any) -> Any:
    """Answers of a question with their scores; any other target says nothing in words."""
    if not isinstance(target, Mapping):
        return target
    return {
        _swapped(answer)[0] if isinstance(answer, str) else answer: score for answer, score in target.items()
    }
