"""Evaluation of three or more classes."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from diptych.evaluate.form import Form, Options, class_details, dense_ranks, mean_defined, mean_measure
from diptych.metrics.classification import class_index
from diptych.metrics.uncertainty import RowMeasure, auroc_rows
from diptych.predictions import Predictions


class Classes(Form):
    """Accuracy, macro F1 over the classes that occur, macro AUROC of one class against the rest.

    Decisions are the answers, or the class with the highest score if there are no answers.
    """

    @classmethod
    def fits(cls, predictions: Predictions, targets: Sequence[Any], options: Options) -> bool:
        """Whether there are scores of three or more classes."""
        return predictions.scores is not None and len(predictions.classes or ()) > 2

    def __init__(self, sets: Sequence[Predictions], targets: Sequence[Any], options: Options) -> None:
        self.labels = labels = sets[0].classes or ()
        self.scores = [np.stack([each.column(label) for label in labels], axis=1) for each in sets]
        self.truth = _indices(targets, labels, sets[0].ids)
        self.decisions = [
            scores.argmax(axis=1) if each.answers is None else _indices(each.answers, labels, each.ids)
            for each, scores in zip(sets, self.scores, strict=True)
        ]
        # Every class keeps its size in a resample, so that none is missing by chance.
        self.strata = [np.flatnonzero(self.truth == index) for index in np.unique(self.truth)]
        aurocs = [self._auroc(index) for index in range(len(labels))]
        self.measures = {
            "accuracy": mean_measure([(self.truth == decided).astype(float) for decided in self.decisions]),
            "macro_f1": self._macro_f1,
            "macro_auroc": lambda rows: mean_defined(np.stack([measure(rows) for measure in aurocs])),
        }

    def details(self) -> dict[str, Any]:
        truth, decided, scores = self.truth, self.decisions[0], self.scores[0]
        by_class = {
            label: class_details(truth == index, decided == index, scores[:, index])
            for index, label in enumerate(self.labels)
        }
        return {"by_class": by_class}

    def _macro_f1(self, rows: Int[ndarray, "S M N"]) -> Float[ndarray, "S M"]:
        flat, classes = rows.reshape(-1, rows.shape[-1]), len(self.labels)
        # Row n of set m has the number m * N + n, so the truth is repeated for every set.
        truth = np.tile(self.truth, len(self.decisions))[flat]
        decided = np.concatenate(self.decisions)[flat]
        # One histogram of classes per resample: offsets give every resample its own range of codes.
        # Example with 3 classes: resample 0 counts in the bins 0 to 2, resample 1 in 3 to 5, and so on.
        offsets = classes * np.arange(len(flat))[:, None]

        def count(codes: ndarray) -> ndarray:
            return np.bincount(codes.ravel(), minlength=classes * len(flat)).reshape(*rows.shape[:2], classes)

        hits = count((truth + offsets)[truth == decided])
        # F1 of a class is 2 TP / (actual + predicted).
        involved = count(truth + offsets) + count(decided + offsets)
        each = np.divide(2.0 * hits, involved, out=np.full(hits.shape, np.nan), where=involved > 0)
        return mean_defined(np.moveaxis(each, -1, 0))

    def _auroc(self, index: int) -> RowMeasure:
        # Ranked once, not per resample: resampling does not change the order of scores.
        ranks = dense_ranks([scores[:, index] for scores in self.scores])
        truth = np.tile(self.truth == index, len(self.scores))

        def measure(rows: Int[ndarray, "S M N"]) -> Float[ndarray, "S M"]:
            flat = rows.reshape(-1, rows.shape[-1])
            return auroc_rows(truth[flat], ranks[flat]).reshape(rows.shape[:2])

        return measure


def _indices(values: Sequence[Any], labels: Sequence[str], ids: Sequence[str]) -> Int[ndarray, " N"]:
    pairs = zip(values, ids, strict=True)
    return np.array([class_index(value, labels, where=f"example {key}") for value, key in pairs])
