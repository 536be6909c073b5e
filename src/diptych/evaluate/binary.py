"""Evaluation of two classes, or of one class against the rest."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from diptych.evaluate.form import Form, Options
from diptych.metrics.classification import (
    accuracy,
    auroc,
    average_precision,
    brier,
    calibration_error,
    class_index,
    f1,
    reliability,
)
from diptych.metrics.uncertainty import Metric, class_rows, delong_test, score_measure
from diptych.predictions import Predictions


class Binary(Form):
    """AUROC, average precision, accuracy, F1; for probabilities also calibration error and Brier score.

    Predictions may have the scores of a single class only; then targets are 0 or 1.
    """

    @classmethod
    def fits(cls, predictions: Predictions, targets: Sequence[Any], options: Options) -> bool:
        """Whether there are scores of one or two classes, or the caller names the positive class."""
        named = options.positive is not None
        return predictions.scores is not None and (named or len(predictions.classes or ()) in (1, 2))

    def __init__(self, sets: Sequence[Predictions], targets: Sequence[Any], options: Options) -> None:
        classes = sets[0].classes or ()
        self.positive, self.threshold = options.positive or classes[-1], options.threshold
        sets[0].column(self.positive)  # raises a helpful error if there is no such class
        # A single column needs a second name, so that the targets 0 and 1 are found by index.
        labels = classes if len(classes) > 1 else (f"not {self.positive}", self.positive)
        ids = sets[0].ids
        indices = [
            class_index(target, labels, where=f"example {key}")
            for target, key in zip(targets, ids, strict=True)
        ]
        self.truth: Bool[ndarray, " N"] = np.array(indices) == labels.index(self.positive)
        self.scores: list[Float[ndarray, " N"]] = [each.column(self.positive) for each in sets]
        # Resampled by class: the number of positives is a property of the split, and never 0 by chance.
        self.strata = class_rows(self.truth)
        # Both sets must be probabilities, because a comparison needs the same metrics of both.
        self.metrics = self._metrics(probabilities=all(map(_are_probabilities, self.scores)))
        self.measures = {
            name: score_measure(self.truth, metric, *self.scores) for name, metric in self.metrics.items()
        }

    def value(self, name: str, number: int = 0) -> float:
        return self.metrics[name](self.truth, self.scores[number])

    def p_value(self, name: str, *, samples: int, seed: int) -> float:
        """DeLong's test for AUROC; else a permutation test, for which both sets must be on the same scale."""
        if name == "auroc":
            # Works on ranks, so the two sets may be on different scales, such as logits and probabilities.
            return delong_test(self.truth, *self.scores).p
        return super().p_value(name, samples=samples, seed=seed)

    def facts(self) -> dict[str, Any]:
        positives = int(np.count_nonzero(self.truth))
        return {"positive": self.positive, "threshold": self.threshold, "positives": positives}

    def details(self) -> dict[str, Any]:
        truth, scores = self.truth, self.scores[0]
        decided = scores >= self.threshold
        return {
            "confusion": {
                "true_positive": int(np.count_nonzero(truth & decided)),
                "false_positive": int(np.count_nonzero(~truth & decided)),
                "true_negative": int(np.count_nonzero(~truth & ~decided)),
                "false_negative": int(np.count_nonzero(truth & ~decided)),
            },
            "reliability": reliability(truth, scores) if _are_probabilities(scores) else (),
        }

    def _metrics(self, *, probabilities: bool) -> dict[str, Metric]:
        # Decisions follow the threshold, not the answers, which may belong to another threshold.
        def decided(metric: Metric) -> Metric:
            return lambda truth, scores: metric(truth, scores >= self.threshold)

        metrics: dict[str, Metric] = {
            "auroc": auroc,
            "average_precision": average_precision,
            "accuracy": decided(accuracy),
            "f1": decided(f1),
        }
        return metrics | ({"calibration_error": calibration_error, "brier": brier} if probabilities else {})


def _are_probabilities(scores: Float[ndarray, " N"]) -> bool:
    return bool(((scores >= 0) & (scores <= 1)).all())
