"""Evaluation of answers that may be partly right."""

from collections.abc import Mapping, Sequence
from typing import Any

from diptych.errors import FormatError
from diptych.evaluate.form import Form, Options, mean_measure, one_stratum
from diptych.metrics.answers import answer_scores
from diptych.predictions import Predictions


class Answers(Form):
    """Accuracy: the mean score of the answers."""

    @classmethod
    def fits(cls, predictions: Predictions, targets: Sequence[Any], options: Options) -> bool:
        """Whether there are answers without scores."""
        return predictions.answers is not None and predictions.scores is None

    def __init__(self, sets: Sequence[Predictions], targets: Sequence[Any], options: Options) -> None:
        if any(predictions.answers is None for predictions in sets):
            raise FormatError("the predictions have no answers, so they cannot be graded.")
        # Looked at one by one, so that the message can name the example.
        for key, target in zip(sets[0].ids, targets, strict=True):
            if not isinstance(target, str | Mapping):
                raise FormatError(
                    f"example {key} has the target {target!r}; expected an answer, or scores by answer."
                )
        # There are no classes whose sizes a resample could keep.
        self.strata = one_stratum(len(targets))
        # One score per example; everything further is a mean of selected rows.
        scores = [answer_scores(predictions, targets) for predictions in sets]
        self.measures = {"accuracy": mean_measure(scores)}
