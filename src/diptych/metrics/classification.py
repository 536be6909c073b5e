"""Measures of scores and decisions for classification.

In two-class functions, `truth` is bool or 0/1 with True for the positive class, and larger scores mean more
positive. The result is nan if the measure is undefined, such as the AUROC of a single class. nan scores,
truth other than 0/1 and empty input raise ValueError.

Functions import SciPy and scikit-learn themselves: that takes a second, and many commands measure nothing.
"""

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float, Int, Real, Shaped
from numpy import ndarray

from diptych.errors import FormatError
from diptych.predictions import Predictions, likeliest

Truth = Bool[ndarray, " N"] | Int[ndarray, " N"]
Binning = Literal["mass", "width"]
Criterion = Literal["youden", "accuracy", "f1"]


def auroc(truth: Truth, scores: Real[ndarray, " N"]) -> float:
    """Area under the ROC curve in [0, 1]: probability that a positive outscores a negative; ties count half.

    nan if only one class is present.
    """
    from scipy.stats import rankdata
    from sklearn.metrics import roc_auc_score

    truth = checked(truth, scores)
    if truth.all() or not truth.any():
        return float("nan")
    # Ranks have the same AUROC, and scikit-learn rejects infinite scores such as the logarithm of 0.
    return float(roc_auc_score(truth, rankdata(scores)))


def batch_mean_auroc(truth: Truth, scores: Real[ndarray, " N"], batch_size: int) -> float:
    """Mean of the AUROCs of consecutive batches, weighted by their size.

    nav13n/multimodal-learning logs this number and selects checkpoints by it; it is not the AUROC of the
    split. Batches with a single class are skipped; nan if all are.
    """
    truth = checked(truth, scores)
    starts = range(0, len(truth), batch_size)
    values = np.array([auroc(truth[i : i + batch_size], scores[i : i + batch_size]) for i in starts])
    sizes = np.array([min(batch_size, len(truth) - i) for i in starts])
    # A batch of one class has no AUROC; the original skips it, too.
    defined = ~np.isnan(values)
    return float(np.average(values[defined], weights=sizes[defined])) if defined.any() else float("nan")


def average_precision(truth: Truth, scores: Real[ndarray, " N"]) -> float:
    """Area under the precision-recall curve in [0, 1], without interpolation; nan without positives.

    The chance level is the share of positives.
    """
    from scipy.stats import rankdata
    from sklearn.metrics import average_precision_score

    truth = checked(truth, scores)
    # Ranks, as in `auroc`.
    return float(average_precision_score(truth, rankdata(scores))) if truth.any() else float("nan")


def roc_points(
    truth: Truth, scores: Real[ndarray, " N"]
) -> tuple[Float[ndarray, " K"], Float[ndarray, " K"]]:
    """ROC curve: false-positive and true-positive rates in [0, 1]; needs both classes."""
    from scipy.stats import rankdata
    from sklearn.metrics import roc_curve

    # Ranks, as in `auroc`.
    false_rates, true_rates, _ = roc_curve(checked(truth, scores), rankdata(scores))
    return false_rates, true_rates


def precision_recall_points(
    truth: Truth, scores: Real[ndarray, " N"]
) -> tuple[Float[ndarray, " K"], Float[ndarray, " K"]]:
    """Precision-recall curve: recall, from 1 to 0, and precision, both in [0, 1]; needs a positive."""
    from scipy.stats import rankdata
    from sklearn.metrics import precision_recall_curve

    # Ranks, as in `auroc`.
    precision, recall, _ = precision_recall_curve(checked(truth, scores), rankdata(scores))
    return recall, precision


def accuracy(truth: Shaped[ndarray, " N"], decisions: Shaped[ndarray, " N"]) -> float:
    """Share of correct decisions in [0, 1]; any number of classes."""
    if not len(truth):
        raise ValueError("there are no rows to measure.")
    return float(np.mean(truth == decisions))


def f1(truth: Truth, decisions: Truth) -> float:
    """Harmonic mean of precision and recall of the positive class; nan if neither argument has a positive."""
    truth, decisions = checked(truth), checked(decisions)
    positives = np.count_nonzero(truth) + np.count_nonzero(decisions)
    # 2 TP / (actual + predicted), which is the harmonic mean without dividing by zero twice.
    return float(2 * np.count_nonzero(truth & decisions) / positives) if positives else float("nan")


def macro_f1(truth: Shaped[ndarray, " N"], decisions: Shaped[ndarray, " N"]) -> float:
    """Unweighted mean of F1 over the classes that occur in either argument."""
    from sklearn.metrics import f1_score

    return float(f1_score(truth, decisions, average="macro", zero_division=0.0))


def brier(truth: Truth, probabilities: Float[ndarray, " N"]) -> float:
    """Mean squared difference between probability and truth in [0, 1]; lower is better."""
    return float(np.mean((checked_probabilities(truth, probabilities) - probabilities) ** 2))


@dataclass(frozen=True, slots=True, kw_only=True)
class ReliabilityBin:
    """A bin of rows with similar probabilities.

    Args:
        count: number of rows.
        probability: their mean probability.
        frequency: their share of positives.
    """

    count: int
    probability: float
    frequency: float


def reliability(
    truth: Truth, probabilities: Float[ndarray, " N"], *, bins: int = 10, binning: Binning = "mass"
) -> tuple[ReliabilityBin, ...]:
    """Reliability diagram: rows binned by probability, lowest first, without empty bins.

    Args:
        binning: `mass` puts about equal numbers of rows into the bins; equal probabilities always share a
            bin. `width` divides [0, 1] into equal parts.
    """
    counts, means, shares = _binned(truth, probabilities, bins, binning)
    rows = zip(counts.tolist(), means.tolist(), shares.tolist(), strict=True)
    return tuple(ReliabilityBin(count=n, probability=p, frequency=f) for n, p, f in rows)


def calibration_error(
    truth: Truth, probabilities: Float[ndarray, " N"], *, bins: int = 10, binning: Binning = "mass"
) -> float:
    """Expected calibration error in [0, 1]: mean difference of probability and frequency over bins.

    Bins are weighted by their number of rows. The default is equal mass (Nixon et al., 2019), because the
    usual equal width (Guo et al., 2017, with 15 bins) leaves most bins of a small split almost empty.
    """
    counts, means, shares = _binned(truth, probabilities, bins, binning)
    return float(np.average(np.abs(means - shares), weights=counts))


def best_threshold(truth: Truth, scores: Real[ndarray, " N"], *, criterion: Criterion = "youden") -> float:
    """Find the threshold with the best decisions `scores >= threshold`. Use it on dev, never on test.

    Candidates are the midpoints between neighboring scores, the lowest score (all positive) and a value just
    above the highest (none positive). Ties go to the highest threshold.

    Args:
        criterion: `youden` maximizes true-positive rate minus false-positive rate.

    Raises:
        ValueError: `truth` has a single class.
    """
    truth = checked(truth, scores)
    positives, negatives = np.count_nonzero(truth), np.count_nonzero(~truth)
    if not positives or not negatives:
        raise ValueError("a threshold cannot be chosen on rows of a single class.")
    # Thresholds keep the type of the scores: compared with float32 scores, a float64 between two neighbors
    # would be rounded to one of them.
    values, codes = np.unique(scores.astype(np.result_type(scores, np.float32)), return_inverse=True)
    # Numbers of true and false positives for the threshold at each value, and for one above all values.
    # Example: positives at values 0 and 2 of three values: counts 1 0 1, from above 2 1 1, and 0 for none.
    hits = np.append(np.bincount(codes[truth], minlength=len(values))[::-1].cumsum()[::-1], 0)
    alarms = np.append(np.bincount(codes[~truth], minlength=len(values))[::-1].cumsum()[::-1], 0)
    quality = {
        "youden": hits / positives - alarms / negatives,
        # Number of right decisions; the best threshold is that of the share.
        "accuracy": hits + negatives - alarms,
        "f1": hits / (hits + alarms + positives),
    }[criterion]
    between = (values[1:] + values[:-1]) / 2
    # Between adjacent floats the midpoint rounds to one of them; only the upper one separates the two.
    between = np.where(between > values[:-1], between, values[1:])
    candidates = np.concatenate((values[:1], between, [np.nextafter(values[-1], np.inf)]))
    # Reversed, because argmax() returns the first of equal values and ties go to the highest threshold.
    return float(candidates[len(candidates) - 1 - int(np.argmax(quality[::-1]))])


def measure_classes(
    predictions: Predictions, targets: Mapping[str, Any], labels: Sequence[str]
) -> dict[str, float]:
    """Measures of a classifier; the first one selects the best checkpoint.

    For two labels, of which the second is positive: AUROC, accuracy, F1, average precision. For more labels:
    accuracy, macro F1, macro AUROC (one class against the rest, averaged over the classes for which it is
    defined). Decisions are the answers, or the class with the highest score if there are no answers.

    Args:
        targets: class name or index by id. Rows with the target None are skipped; if no other row is left,
            the result is empty.

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
        # nanmean() warns if all values are nan.
        "macro_auroc": float("nan") if np.isnan(each).all() else float(np.nanmean(each)),
    }


def labeled(predictions: Predictions, targets: Mapping[str, Any]) -> Predictions:
    """Select one row for every id with a known target, that is, not None.

    Raises:
        FormatError: an id has no entry in `targets`.
    """
    predictions = predictions.unique()
    if unknown := [key for key in predictions.ids if key not in targets]:
        raise FormatError(f"{len(unknown)} predicted id(s) have no target; the first is {unknown[0]!r}.")
    return predictions.select([row for row, key in enumerate(predictions.ids) if targets[key] is not None])


def class_index(target: Any, labels: Sequence[str], *, where: object) -> int:
    """Index in `labels` of a target, which is a class name, an index or `{class: probability}`.

    Raises:
        FormatError: names `where`, the target and the labels.
    """
    try:
        likely = likeliest(target)
        # `operator.index` takes NumPy's integers, but neither 1.0 nor "1".
        index = labels.index(likely) if isinstance(likely, str) else operator.index(likely)
        if 0 <= index < len(labels):
            return index
    except (ValueError, TypeError):
        pass
    raise FormatError(
        f"{where}: target {target!r} is not a class; expected one of {tuple(labels)} or an index below "
        f"{len(labels)}."
    )


def checked(truth: Truth, scores: Real[ndarray, " N"] | None = None) -> Bool[ndarray, " N"]:
    """Validate truth and scores, and return the truth as bool.

    Raises:
        ValueError: there are no rows, truth is not 0/1, the number of scores differs, or a score is nan.
    """
    if not len(truth):
        raise ValueError("there are no rows to measure.")
    if scores is not None and len(scores) != len(truth):
        raise ValueError(f"there are {len(truth)} truths but {len(scores)} scores; expected one per row.")
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
    """Validate truth and probabilities, and return the truth as bool.

    Raises:
        ValueError: as `checked`, or a score outside [0, 1].
    """
    truth = checked(truth, probabilities)
    if (outside := (probabilities < 0) | (probabilities > 1)).any():
        first = int(outside.argmax())
        raise ValueError(f"score {probabilities[first]} in row {first} is not a probability in [0, 1].")
    return truth


def bin_numbers(
    probabilities: Float[ndarray, " N"], bins: int, binning: Binning = "mass"
) -> Int[ndarray, " N"]:
    """Number of the bin, from 0, of every row; see `reliability`."""
    cuts = np.linspace(0, 1, bins + 1)[1:-1]
    inner = np.quantile(probabilities, cuts) if binning == "mass" else cuts
    # A value on a cut is in the upper bin.
    return np.asarray(np.searchsorted(inner, probabilities, side="right"))


def _binned(
    truth: Truth, probabilities: Float[ndarray, " N"], bins: int, binning: Binning
) -> tuple[Int[ndarray, " K"], Float[ndarray, " K"], Float[ndarray, " K"]]:
    truth = checked_probabilities(truth, probabilities)
    index = bin_numbers(probabilities, bins, binning)
    # Empty bins are left out below: their means would be 0 / 0.
    counts = np.bincount(index, minlength=bins)
    full = counts > 0
    means = np.bincount(index, probabilities, minlength=bins)[full] / counts[full]
    shares = np.bincount(index, truth, minlength=bins)[full] / counts[full]
    return counts[full], means, shares
