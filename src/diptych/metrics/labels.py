"""Measures of multi-label classification."""

from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from diptych.errors import FormatError
from diptych.metrics.classification import auroc, f1, labeled
from diptych.predictions import Predictions


def measure_labels(
    predictions: Predictions, targets: Mapping[str, Any], labels: Sequence[str], *, threshold: float = 0.5
) -> dict[str, float]:
    """Measures of a multi-label classifier; the first one selects the best checkpoint.

    These are macro AUROC (the mean over labels with both positive and negative examples), micro and macro F1
    of the decisions `score >= threshold`, and the AUROC of each label. A soft target is positive if it is at
    least 0.5. Macro F1 skips labels without any positive in truth and decisions.

    Args:
        targets: `{label: score}` by id, where missing labels are 0; None if unknown.

    Raises:
        FormatError: an id has no entry in `targets`, or a target names another label.
    """
    predictions = labeled(predictions, targets)
    if not len(predictions):
        return {}
    truth = label_matrix([targets[key] for key in predictions.ids], labels, predictions.ids) >= 0.5
    # By name: the columns of a file may have another order than the task's labels.
    scores = np.stack([predictions.column(label) for label in labels], axis=1)
    decisions = scores >= threshold
    each = [auroc(truth[:, column], scores[:, column]) for column in range(len(labels))]
    return {
        "macro_auroc": mean_defined(each),
        "micro_f1": f1(truth.ravel(), decisions.ravel()),
        "macro_f1": mean_defined([f1(truth[:, index], decisions[:, index]) for index in range(len(labels))]),
        **{f"auroc_{label}": value for label, value in zip(labels, each, strict=True)},
    }


def label_matrix(targets: Sequence[Any], labels: Sequence[str], ids: Sequence[str]) -> Float[ndarray, "N C"]:
    """Convert targets, scores in [0, 1] by label or names of labels, to a matrix.

    Raises:
        FormatError: a target has another form, an unknown label, or a score outside [0, 1].
    """
    columns = {label: number for number, label in enumerate(labels)}
    matrix = np.zeros((len(targets), len(labels)))
    for row, (target, key) in enumerate(zip(targets, ids, strict=True)):
        names = [target] if isinstance(target, str) else target
        # Names alone mean that each label holds.
        scores = dict.fromkeys(names, 1.0) if isinstance(names, list | tuple | set) else names
        if not isinstance(scores, Mapping) or any(name not in columns for name in scores):
            raise FormatError(f"example {key} has the labels {target!r}; expected scores of {tuple(labels)}.")
        # The comparison also fails for NaN.
        if not all(isinstance(score, Real) and 0 <= float(score) <= 1 for score in scores.values()):
            raise FormatError(f"example {key} has the labels {target!r}; expected scores in [0, 1].")
        for name, score in scores.items():
            matrix[row, columns[name]] = score
    return matrix


def mean_defined(values: Sequence[float]) -> float:
    """Mean of the values other than nan; nan if there are none."""
    numbers = [value for value in values if not np.isnan(value)]
    return float(np.mean(numbers)) if numbers else float("nan")
