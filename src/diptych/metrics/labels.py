"""How well several labels of each example are told, each of which may hold or not."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from diptych.errors import FormatError
from diptych.metrics.classification import auroc, labeled
from diptych.predictions import Predictions


def measure_labels(
    predictions: Predictions, targets: Mapping[str, Any], labels: Sequence[str], *, threshold: float = 0.5
) -> dict[str, float]:
    """What a multi-label classifier is judged by, the monitored measure first.

    Macro AUROC (the mean over labels that occur and do not always occur), micro and macro F1 of the decisions
    `score >= threshold`, and the AUROC of each label. A soft target counts as positive from 0.5 on.

    Args:
        targets: `{label: score}` by id, labels that are not named being 0; None where it is not known.

    Raises:
        FormatError: an id has no entry in `targets`, or a target names another label.
    """
    predictions = labeled(predictions, targets)
    if not len(predictions):
        return {}
    truth = label_matrix([targets[key] for key in predictions.ids], labels, predictions.ids) >= 0.5
    scores = np.stack([predictions.column(label) for label in labels], axis=1)
    each = [auroc(truth[:, column], scores[:, column]) for column in range(len(labels))]
    return {
        "macro_auroc": mean_defined(each),
        "micro_f1": micro_f1(truth, scores >= threshold),
        "macro_f1": macro_label_f1(truth, scores >= threshold),
        **{f"auroc_{label}": value for label, value in zip(labels, each, strict=True)},
    }


def label_matrix(targets: Sequence[Any], labels: Sequence[str], ids: Sequence[str]) -> Float[ndarray, "N C"]:
    """Scores by label in [0, 1] as a matrix.

    Raises:
        FormatError: a target is no mapping, names another label, or holds a score outside [0, 1].
    """
    columns = {label: number for number, label in enumerate(labels)}
    matrix = np.zeros((len(targets), len(labels)))
    for row, (target, key) in enumerate(zip(targets, ids, strict=True)):
        scores = {target: 1.0} if isinstance(target, str) else target
        if not isinstance(scores, Mapping) or any(name not in columns for name in scores):
            raise FormatError(f"example {key} has the labels {target!r}; expected scores of {tuple(labels)}.")
        for name, score in scores.items():
            matrix[row, columns[name]] = score
    if ((matrix < 0) | (matrix > 1)).any():
        row = int(np.argwhere((matrix < 0) | (matrix > 1))[0][0])
        raise FormatError(f"example {ids[row]} has a label score outside [0, 1]: {targets[row]!r}.")
    return matrix


def micro_f1(truth: Bool[ndarray, "N C"], decisions: Bool[ndarray, "N C"]) -> float:
    """F1 over all cells together; nan without any positive in both."""
    involved = np.count_nonzero(truth) + np.count_nonzero(decisions)
    return float(2 * np.count_nonzero(truth & decisions) / involved) if involved else float("nan")


def macro_label_f1(truth: Bool[ndarray, "N C"], decisions: Bool[ndarray, "N C"]) -> float:
    """Mean of the F1 of each label; a label without any positive in both is left out."""
    return mean_defined([micro_f1(*column) for column in zip(truth.T[..., None], decisions.T[..., None], strict=True)])


def mean_defined(values: Sequence[float]) -> float:
    """The mean of the values that are numbers; nan without any."""
    numbers = [value for value in values if not np.isnan(value)]
    return float(np.mean(numbers)) if numbers else float("nan")
