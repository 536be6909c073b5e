"""How far a measured number can be trusted, and whether two classifiers differ.

Everything here is about two classes, rows that are independent of each other, and scores of which larger
ones mean more positive. Random parts are seeded: equal arguments give equal numbers.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Real
from numpy import ndarray
from scipy.stats import norm, rankdata

from diptych.metrics.classification import Truth, auroc, average_precision, checked

Metric = Callable[[ndarray, ndarray], float]
"""A function of truth and scores, such as `auroc`."""

CELLS = 2**21  # numbers held at once while resampling: about 50 MB


class DeLong(NamedTuple):
    """AUROC of the first minus that of the second scores, its interval, and the two-sided p-value."""

    difference: float
    low: float
    high: float
    p: float


def bootstrap_interval(
    truth: Truth,
    scores: Real[ndarray, " N"],
    metric: Metric,
    *,
    level: float = 0.95,
    samples: int = 2000,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile interval of `metric` under resampling of rows, each class keeping its size.

    Args:
        metric: `auroc` and `average_precision` are computed for many resamples at once; any other function
            of truth and scores is called `samples` times.
        level: share of resamples inside the interval, in (0, 1).

    Returns:
        Low and high end; (nan, nan) where the metric is undefined.
    """
    truth = checked(truth, scores)
    values = np.concatenate(
        [_each(metric, *rows) for rows in _resample(truth, _ranked(metric, scores), samples, seed)]
    )
    return _percentiles(values[:, 0], level)


def paired_interval(
    truth: Truth,
    first: Real[ndarray, " N"],
    second: Real[ndarray, " N"],
    metric: Metric,
    *,
    level: float = 0.95,
    samples: int = 2000,
    seed: int = 0,
) -> tuple[float, float]:
    """Bootstrap interval of `metric` of `first` minus `metric` of `second` on the same rows."""
    truth = checked(truth, first)
    checked(truth, second)
    pair = _ranked(metric, first, second)
    values = np.concatenate([_each(metric, *rows) for rows in _resample(truth, pair, samples, seed)])
    return _percentiles(values[:, 0] - values[:, 1], level)


def permutation_test(
    truth: Truth,
    first: Real[ndarray, " N"],
    second: Real[ndarray, " N"],
    metric: Metric,
    *,
    samples: int = 2000,
    seed: int = 0,
) -> float:
    """Two-sided p-value for "both classifiers are equally good by `metric`", in (0, 1].

    The two scores of every row are exchanged at random, so they must mean the same, as probabilities do. The
    smallest possible value is 1 / (samples + 1). nan where the metric is undefined.
    """
    truth = checked(truth, first)
    checked(truth, second)
    pair = _ranked(metric, first, second)
    observed = np.diff(_each(metric, truth, pair[None])[0])[0]
    if np.isnan(observed):
        return float("nan")
    generator = np.random.default_rng(seed)
    extreme = 0
    for count in _chunks(samples, pair.size):
        swap = generator.random((count, 1, len(truth))) < 0.5
        differences = np.diff(_each(metric, truth, np.where(swap, pair[::-1], pair)))[:, 0]
        # sums in another order differ in the last bits; equal differences must count as equal
        extreme += int(np.count_nonzero(np.abs(differences) >= abs(observed) - 1e-12))
    return (extreme + 1) / (samples + 1)


def delong_test(
    truth: Truth, first: Real[ndarray, " N"], second: Real[ndarray, " N"], *, level: float = 0.95
) -> DeLong:
    """DeLong's test for two AUROCs on the same rows, by ranks.

    DeLong et al., 1988; the O(N log N) form is Sun and Xu, 2014. All nan with fewer than two rows of either
    class, where the variance is undefined.
    """
    truth = checked(truth, first)
    checked(truth, second)
    positives, negatives = np.count_nonzero(truth), np.count_nonzero(~truth)
    if min(positives, negatives) < 2:
        return DeLong(*[float("nan")] * 4)
    pair = np.stack((first, second))
    ranks = rankdata(pair, axis=1)
    # placement of every positive among the negatives, and of every negative among the positives
    above = (ranks[:, truth] - rankdata(pair[:, truth], axis=1)) / negatives
    below = 1 - (ranks[:, ~truth] - rankdata(pair[:, ~truth], axis=1)) / positives
    difference = float(np.subtract(*above.mean(axis=1)))
    variance = np.var(np.diff(above, axis=0), ddof=1) / positives
    variance += np.var(np.diff(below, axis=0), ddof=1) / negatives
    error = float(np.sqrt(variance))
    reach = float(norm.ppf((1 + level) / 2)) * error
    if error == 0:
        return DeLong(difference, difference, difference, float(difference == 0))
    p = float(2 * norm.sf(abs(difference) / error))
    return DeLong(difference, difference - reach, difference + reach, p)


def _resample(
    truth: Bool[ndarray, " N"], scores: Real[ndarray, "M N"], samples: int, seed: int
) -> Iterator[tuple[ndarray, ndarray]]:
    """Chunks of (truth, scores of shape samples x M x N): all resamples share one order of the classes."""
    generator = np.random.default_rng(seed)
    classes = [rows for rows in (np.flatnonzero(truth), np.flatnonzero(~truth)) if len(rows)]
    ordered = truth[np.concatenate(classes)]
    for count in _chunks(samples, scores.size):
        drawn = [rows[generator.integers(len(rows), size=(count, len(rows)))] for rows in classes]
        yield ordered, scores[:, np.concatenate(drawn, axis=1)].swapaxes(0, 1)


def _chunks(samples: int, size: int) -> Iterator[int]:
    if samples < 1:
        raise ValueError(f"samples is {samples}; expected at least 1.")
    step = max(1, CELLS // size)
    for start in range(0, samples, step):
        yield min(step, samples - start)


def _ranked(metric: Metric, *scores: ndarray) -> Real[ndarray, "M N"]:
    """Scores side by side; where only their order counts, as dense ranks shared by all."""
    stacked = np.stack(scores)
    if metric not in ROWWISE:
        return stacked
    return np.unique(stacked, return_inverse=True)[1].reshape(stacked.shape)


def _each(
    metric: Metric, truth: Bool[ndarray, " N"], scores: Real[ndarray, "S M N"]
) -> Float[ndarray, "S M"]:
    rows = scores.reshape(-1, scores.shape[-1])
    if metric in ROWWISE:
        values = ROWWISE[metric](truth, rows)
    else:
        values = np.array([metric(truth, row) for row in rows], dtype=np.float64)
    return values.reshape(scores.shape[:2])


def _percentiles(values: Float[ndarray, " S"], level: float) -> tuple[float, float]:
    if not 0 < level < 1:
        raise ValueError(f"level is {level}; expected a number between 0 and 1.")
    low, high = np.quantile(values, ((1 - level) / 2, (1 + level) / 2))
    return float(low), float(high)


def _counts(ranks: Int[ndarray, "S K"], distinct: int) -> Int[ndarray, "S U"]:
    """How often each of the `distinct` ranks occurs in each row."""
    flat = ranks + distinct * np.arange(len(ranks))[:, None]
    return np.bincount(flat.ravel(), minlength=distinct * len(ranks)).reshape(len(ranks), distinct)


def _auroc_rows(truth: Bool[ndarray, " N"], ranks: Int[ndarray, "S N"]) -> Float[ndarray, " S"]:
    if truth.all() or not truth.any():
        return np.full(len(ranks), np.nan)
    positives, negatives = (_counts(ranks[:, rows], int(ranks.max()) + 1) for rows in (truth, ~truth))
    beaten = negatives.cumsum(axis=1) - negatives / 2
    pairs = np.count_nonzero(truth) * np.count_nonzero(~truth)
    return np.asarray(np.einsum("su,su->s", positives, beaten) / pairs)


def _average_precision_rows(truth: Bool[ndarray, " N"], ranks: Int[ndarray, "S N"]) -> Float[ndarray, " S"]:
    if not truth.any():
        return np.full(len(ranks), np.nan)
    positives, every = (
        _counts(ranks[:, rows], int(ranks.max()) + 1)[:, ::-1] for rows in (truth, slice(None))
    )
    precision = positives.cumsum(axis=1) / np.maximum(every.cumsum(axis=1), 1)
    return np.asarray(np.einsum("su,su->s", positives, precision) / np.count_nonzero(truth))


ROWWISE: dict[Metric, Callable[[ndarray, ndarray], ndarray]] = {
    auroc: _auroc_rows,
    average_precision: _average_precision_rows,
}
