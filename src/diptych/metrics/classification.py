"""How well scores and decisions fit known classes.

In two-class functions `truth` is bool or 0/1 and True is the positive class, larger scores mean more
positive, and a result is nan where the measure is undefined (AUROC of a single class). Scores that are nan,
truth that is not 0/1 and empty input raise ValueError.
"""

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float, Int, Real, Shaped
from numpy import ndarray
from scipy.stats import rankdata
from sklearn.metrics import (
    average_precision_score,
    f1_score,
    precision_recall_curve,
    roc_auc_score,
    roc_curve,
)

from diptych.errors import FormatError
from diptych.predictions import Predictions, likeliest

Truth = Bool[ndarray, " N"] | Int[ndarray, " N"]
Binning = Literal["mass", "width"]
Criterion = Literal["youden", "accuracy", "f1"]


def auroc(truth: Truth, scores: Real[ndarray, " N"]) -> float:
    """Probability in [0, 1] that a positive outscores a negative, ties counting half.

    nan when only one class is present.
    """
    truth = checked(truth, scores)
    if truth.all() or not truth.any():
        return float("nan")
    # ranks, because scikit-learn refuses infinite scores such as the logarithm of 0
    return float(roc_auc_score(truth, rankdata(scores)))


def batch_mean_auroc(truth: Truth, scores: Real[ndarray, " N"], batch_size: int) -> float:
    """Mean of the AUROCs of consecutive batches, weighted by their size.

    This is what nav13n/multimodal-learning logs and selects checkpoints by; it is not the AUROC of the split.
    Batches of one class are left out; nan when all are.
    """
    truth = checked(truth, scores)
    starts = range(0, len(truth), batch_size)
    values = np.array([auroc(truth[i : i + batch_size], scores[i : i + batch_size]) for i in starts])
    sizes = np.array([min(batch_size, len(truth) - i) for i in starts])
    defined = ~np.isnan(values)
    return float(np.average(values[defined], weights=sizes[defined])) if defined.any() else float("nan")


def average_precision(truth: Truth, scores: Real[ndarray, " N"]) -> float:
    """Area under the precision-recall steps in [0, 1], without interpolation; nan without positives.

    Chance level is the share of positives.
    """
    truth = checked(truth, scores)
    return float(average_precision_score(truth, rankdata(scores))) if truth.any() else float("nan")


def roc_points(
    truth: Truth, scores: Real[ndarray, " N"]
) -> tuple[Float[ndarray, " K"], Float[ndarray, " K"]]:
    """False-positive and true-positive rates in [0, 1] as the threshold falls; needs both classes."""
    alarms, hits, _ = roc_curve(checked(truth, scores), rankdata(scores))
    return alarms, hits


def precision_recall_points(
    truth: Truth, scores: Real[ndarray, " N"]
) -> tuple[Float[ndarray, " K"], Float[ndarray, " K"]]:
    """Recall, falling from 1 to 0, and precision, both in [0, 1]; needs a positive."""
    precision, recall, _ = precision_recall_curve(checked(truth, scores), rankdata(scores))
    return recall, precision


def accuracy(truth: Shaped[ndarray, " N"], decisions: Shaped[ndarray, " N"]) -> float:
    """Share of decisions in [0, 1] that equal the truth; any number of classes."""
    if not len(truth):
        raise ValueError("there are no rows to measure.")
    return float(np.mean(truth == decisions))


def f1(truth: Truth, decisions: Truth) -> float:
    """Harmonic mean of precision and recall of the positive class; nan without any positive in both."""
    truth, decisions = checked(truth), checked(decisions)
    involved = np.count_nonzero(truth) + np.count_nonzero(decisions)
    return float(2 * np.count_nonzero(truth & decisions) / involved) if involved else float("nan")


def macro_f1(truth: Shaped[ndarray, " N"], decisions: Shaped[ndarray, " N"]) -> float:
    """Unweighted mean of the F1 of every class that occurs in either argument."""
    return float(f1_score(truth, decisions, average="macro", zero_division=0.0))


def brier(truth: Truth, probabilities: Float[ndarray, " N"]) -> float:
    """Mean squared difference between probability and truth in [0, 1]; lower is better."""
    return float(np.mean((checked_probabilities(truth, probabilities) - probabilities) ** 2))


@dataclass(frozen=True, slots=True, kw_only=True)
class ReliabilityBin:
    """Rows of similar probability: their number, mean probability and share of positives."""

    count: int
    probability: float
    frequency: float


def reliability(
    truth: Truth, probabilities: Float[ndarray, " N"], *, bins: int = 10, binning: Binning = "mass"
) -> tuple[ReliabilityBin, ...]:
    """Rows grouped by probability, lowest first; empty groups are left out.

    Args:
        binning: `mass` puts about equally many rows into every bin (equal probabilities always share one),
            `width` cuts [0, 1] into equal parts.
    """
    counts, means, shares = _binned(truth, probabilities, bins, binning)
    rows = zip(counts.tolist(), means.tolist(), shares.tolist(), strict=True)
    return tuple(ReliabilityBin(count=n, probability=p, frequency=f) for n, p, f in rows)


def calibration_error(
    truth: Truth, probabilities: Float[ndarray, " N"], *, bins: int = 10, binning: Binning = "mass"
) -> float:
    """Expected calibration error in [0, 1]: mean gap between probability and frequency over bins.

    Bins are weighted by their rows. Equal mass is the default (Nixon et al., 2019), because the usual equal
    width (Guo et al., 2017, there with 15 bins) leaves most bins of a small split almost empty.
    """
    counts, means, shares = _binned(truth, probabilities, bins, binning)
    return float(np.average(np.abs(means - shares), weights=counts))


def best_threshold(truth: Truth, scores: Real[ndarray, " N"], *, criterion: Criterion = "youden") -> float:
    """The threshold for which the decisions `scores >= threshold` fit best; choose it on dev, not on test.

    Candidates lie halfway between neighboring scores, at the lowest score (all positive) and just above the
    highest (none positive). Of equally good ones the highest is taken.

    Args:
        criterion: `youden` maximizes true-positive minus false-positive rate.

    Raises:
        ValueError: `truth` holds a single class.
    """
    truth = checked(truth, scores)
    positives, negatives = np.count_nonzero(truth), np.count_nonzero(~truth)
    if not positives or not negatives:
        raise ValueError("a threshold cannot be chosen on rows of a single class.")
    # kept in the type of the scores: a float64 between two float32 neighbors would compare like one of them
    values, codes = np.unique(scores.astype(np.result_type(scores, np.float32)), return_inverse=True)
    hits = np.append(np.bincount(codes[truth], minlength=len(values))[::-1].cumsum()[::-1], 0)
    alarms = np.append(np.bincount(codes[~truth], minlength=len(values))[::-1].cumsum()[::-1], 0)
    quality = {
        "youden": hits / positives - alarms / negatives,
        "accuracy": hits + negatives - alarms,
        "f1": hits / (hits + alarms + positives),
    }[criterion]
    between = (values[1:] + values[:-1]) / 2
    between = np.where(between > values[:-1], between, values[1:])
    candidates = np.concatenate((values[:1], between, [np.nextafter(values[-1], np.inf)]))
    return float(candidates[len(candidates) - 1 - int(np.argmax(quality[::-1]))])


def measure_classes(
    predictions: Predictions, targets: Mapping[str, Any], labels: Sequence[str]
) -> dict[str, float]:
    """What a classifier is judged by, the monitored measure first.

    Of two labels the second is positive: AUROC, accuracy, F1, average precision. Of more: accuracy, macro F1,
    macro AUROC (one class against the rest, over the classes for which it is defined). Decisions are the
    answers, or the class of the highest score where there are none.

    Args:
        targets: class name or index by id; rows whose target is None are left out, and without any other
            row the result is empty.

    Raises:
        FormatError: an id has no entry in `targets`, or a target is not among `labels`.
    """
    predictions = labeled(predictions, targets)
    if not len(predictions):
        return {}
    truth = np.array([class_index(targets[key], labels, where=key) for key in predictions.ids])
    scores = np.stack([predictions.column(label) for label in labels], axis=1)
    decisions = scores.argmax(axis=1)
    if predictions.answers is not None:
        answers = zip(predictions.ids, predictions.answers, strict=True)
        decisions = np.array([class_index(answer, labels, where=key) for key, answer in answers])
    if len(labels) == 2:
        return {
            "auroc": auroc(truth, scores[:, 1]),
            "accuracy": accuracy(truth, decisions),
            "f1": f1(truth, decisions),
            "average_precision": average_precision(truth, scores[:, 1]),
        }
    each = np.array([auroc(truth == index, scores[:, index]) for index in range(len(labels))])
    return {
        "accuracy": accuracy(truth, decisions),
        "macro_f1": macro_f1(truth, decisions),
        "macro_auroc": float("nan") if np.isnan(each).all() else float(np.nanmean(each)),
    }


def labeled(predictions: Predictions, targets: Mapping[str, Any]) -> Predictions:
    """One row of every id whose target is known, that is, not None.

    Raises:
        FormatError: an id has no entry in `targets`.
    """
    predictions = predictions.unique()
    if unknown := [key for key in predictions.ids if key not in targets]:
        raise FormatError(f"{len(unknown)} predicted id(s) have no target, the first is {unknown[0]!r}.")
    return predictions.select([row for row, key in enumerate(predictions.ids) if targets[key] is not None])


def class_index(target: Any, labels: Sequence[str], *, where: object) -> int:
    """Position of a target, given as a class name, as an index or as `{class: probability}`, among `labels`.

    Raises:
        FormatError: names `where`, the target and the labels.
    """
    try:
        likely = likeliest(target)
        index = labels.index(likely) if isinstance(likely, str) else operator.index(likely)
        if 0 <= index < len(labels):
            return index
    except (ValueError, TypeError):
        pass
    raise FormatError(
        f"{where}: target {target!r} is no class; expected one of {tuple(labels)} or an index below "
        f"{len(labels)}."
    )


def checked(truth: Truth, scores: Real[ndarray, " N"] | None = None) -> Bool[ndarray, " N"]:
    """The truth as bool, once it is sure that it can be measured.

    Raises:
        ValueError: no rows, truth other than 0/1, another number of scores, or a nan among them.
    """
    if not len(truth):
        raise ValueError("there are no rows to measure.")
    if scores is not None and len(scores) != len(truth):
        raise ValueError(f"there are {len(truth)} truths but {len(scores)} scores; expected one of each.")
    if scores is not None and (missing := np.isnan(scores)).any():
        raise ValueError(
            f"{missing.sum()} of {len(scores)} scores are nan, the first in row {missing.argmax()}."
        )
    if truth.dtype == bool:
        return truth
    if (other := (truth != 0) & (truth != 1)).any():
        raise ValueError(f"truth holds {truth[other][0]} in row {other.argmax()}; expected 0 or 1.")
    return truth.astype(bool)


def checked_probabilities(truth: Truth, probabilities: Float[ndarray, " N"]) -> Bool[ndarray, " N"]:
    """The truth as bool, once it is sure that every score is a probability.

    Raises:
        ValueError: as `checked`, or a score outside [0, 1].
    """
    truth = checked(truth, probabilities)
    if (outside := (probabilities < 0) | (probabilities > 1)).any():
        first = int(outside.argmax())
        raise ValueError(f"score {probabilities[first]} in row {first} is no probability in [0, 1].")
    return truth


def _binned(
    truth: Truth, probabilities: Float[ndarray, " N"], bins: int, binning: Binning
) -> tuple[Int[ndarray, " K"], Float[ndarray, " K"], Float[ndarray, " K"]]:
    truth = checked_probabilities(truth, probabilities)
    cuts = np.linspace(0, 1, bins + 1)[1:-1]
    inner = np.quantile(probabilities, cuts) if binning == "mass" else cuts
    index = np.searchsorted(inner, probabilities, side="right")
    counts = np.bincount(index, minlength=bins)
    full = counts > 0
    means = np.bincount(index, probabilities, minlength=bins)[full] / counts[full]
    shares = np.bincount(index, truth, minlength=bins)[full] / counts[full]
    return counts[full], means, shares
