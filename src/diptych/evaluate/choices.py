"""Evaluation of multiple choice: which pair of an example is right."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from diptych.errors import FormatError
from diptych.evaluate.form import Form, Options, mean_measure, one_stratum
from diptych.metrics.ranking import choice_ranks
from diptych.predictions import Predictions


class Choices(Form):
    """Accuracy, and the mean reciprocal rank of the right pair."""

    @classmethod
    def fits(cls, predictions: Predictions, targets: Sequence[Any], options: Options) -> bool:
        """Whether the classes are pairs numbered from 0, and the targets are numbers of pairs."""
        classes = predictions.classes or ()
        # Two pairs would look like the labels "0" and "1" of a binary classifier.
        numbered = classes == tuple(map(str, range(len(classes)))) and len(classes) > 2
        return numbered and all(isinstance(target, int | np.integer) for target in targets)

    def __init__(self, sets: Sequence[Predictions], targets: Sequence[Any], options: Options) -> None:
        pairs = len(sets[0].classes or ())
        for key, target in zip(sets[0].ids, targets, strict=True):
            if not isinstance(target, int | np.integer) or not 0 <= target < pairs:
                raise FormatError(
                    f"example {key} has the target {target!r}; expected a number below {pairs}."
                )
        results = [choice_ranks(each.scores, targets) for each in sets if each.scores is not None]
        self.strata = one_stratum(len(targets))
        self.measures = {
            "accuracy": mean_measure([right.astype(float) for right, _ in results]),
            # A mean over examples, like accuracy, so both resample as one value per row.
            "mean_reciprocal_rank": mean_measure([1 / ranks for _, ranks in results]),
        }
