"""Evaluation of multi-label classification."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from diptych.evaluate.form import Form, Options, class_details, dense_ranks, mean_defined, one_stratum
from diptych.metrics.labels import label_matrix
from diptych.metrics.uncertainty import RowMeasure, auroc_rows
from diptych.predictions import Predictions


class Labels(Form):
    """Macro AUROC, micro and macro F1 at the threshold, AUROC of each label."""

    @classmethod
    def fits(cls, predictions: Predictions, targets: Sequence[Any], options: Options) -> bool:
        """Whether targets are scores by label, and answers are not always exactly one label."""
        classes, answers = predictions.classes or (), predictions.answers
        # Soft targets of a classifier are mappings, too, but its answers are always one label.
        several = answers is None or not set(answers) <= set(classes)
        mappings = all(isinstance(target, Mapping) for target in targets)
        return predictions.scores is not None and mappings and several

    def __init__(self, sets: Sequence[Predictions], targets: Sequence[Any], options: Options) -> None:
        self.labels, self.threshold = sets[0].classes or (), options.threshold
        self.truth = label_matrix(targets, self.labels, sets[0].ids) >= 0.5
        self.scores = [np.stack([each.column(label) for label in self.labels], axis=1) for each in sets]
        self.strata = one_stratum(len(targets))  # labels overlap, so no strata keep all of their sizes
        # The same truth for each set, as row n of set m has the number m * N + n.
        self._truth = np.tile(self.truth, (len(sets), 1))
        self._decided = np.concatenate(self.scores) >= self.threshold
        aurocs = {label: self._auroc(column) for column, label in enumerate(self.labels)}
        self.measures = {
            "macro_auroc": lambda rows: mean_defined(
                np.stack([measure(rows) for measure in aurocs.values()])
            ),
            # Micro: numerators and denominators are added over labels first.
            # Macro: one F1 per label, then the mean.
            "micro_f1": lambda rows: _ratio(*np.sum(self._counts(rows), axis=0)),
            "macro_f1": lambda rows: mean_defined(
                np.stack([_ratio(*counts) for counts in self._counts(rows)])
            ),
            **{f"auroc_{label}": measure for label, measure in aurocs.items()},
        }

    def facts(self) -> dict[str, Any]:
        return {"threshold": self.threshold}

    def details(self) -> dict[str, Any]:
        columns = zip(self.truth.T, self.scores[0].T, strict=True)
        each = [class_details(truth, scores >= self.threshold, scores) for truth, scores in columns]
        return {"by_class": dict(zip(self.labels, each, strict=True))}

    def _auroc(self, column: int) -> RowMeasure:
        # Ranked once, as in `Classes`.
        ranks = dense_ranks([scores[:, column] for scores in self.scores])

        def measure(rows: Int[ndarray, "S M N"]) -> Float[ndarray, "S M"]:
            flat = rows.reshape(-1, rows.shape[-1])
            return auroc_rows(self._truth[flat, column], ranks[flat]).reshape(rows.shape[:2])

        return measure

    def _counts(self, rows: Int[ndarray, "S M N"]) -> list[tuple[ndarray, ndarray]]:
        """Return, for each label, the number of true positives and the sum of actual and predicted positives.

        These are the numerator and denominator of F1 = 2 TP / (actual + predicted).
        """
        columns = zip(self._truth.T, self._decided.T, strict=True)
        pairs = ((truth & decided, truth.astype(int) + decided) for truth, decided in columns)
        return [(hits[rows].sum(-1), involved[rows].sum(-1)) for hits, involved in pairs]


def _ratio(hits: Int[ndarray, "S M"], involved: Int[ndarray, "S M"]) -> Float[ndarray, "S M"]:
    return np.asarray(np.divide(2.0 * hits, involved, out=np.full(hits.shape, np.nan), where=involved > 0))
