"""Confidence intervals of measures, and significance tests of two classifiers.

Rows are assumed to be independent. A `truth` is of two classes, and larger scores mean more positive. Random
numbers are seeded: equal arguments give equal results.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Real
from numpy import ndarray

from diptych.metrics.classification import Truth, auroc, average_precision, checked

Metric = Callable[[ndarray, ndarray], float]
"""A function of truth and scores, such as `auroc`."""

RowMeasure = Callable[[ndarray], ndarray]
"""A measure of M sets of predictions on S resamples: row numbers of shape S x M x N to values of shape S x M.

With N examples, row n of set m has the number m * N + n. Row numbers instead of scores let one function serve
resampling of examples and exchange between sets.
"""

CELLS = 2**21  # numbers held at a time while resampling: about 50 MB


class DeLong(NamedTuple):
    """Difference of two AUROCs, first minus second, with its interval and two-sided p-value."""

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
    """Percentile bootstrap interval of `metric`; resampling is stratified by class.

    Args:
        metric: `auroc` and `average_precision` are computed for many resamples at once; any other function
            of truth and scores is called `samples` times.
        level: share of resamples inside the interval, in (0, 1).

    Returns:
        Low and high end; (nan, nan) if the metric is undefined.
    """
    truth = checked(truth, scores)
    measure = score_measure(truth, metric, scores)
    return row_interval(measure, class_rows(truth), level=level, samples=samples, seed=seed)


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
    """Bootstrap interval of the difference in `metric`, `first` minus `second`, on the same rows."""
    truth = checked(truth, first)
    checked(truth, second)
    measure = score_measure(truth, metric, first, second)
    return row_interval(measure, class_rows(truth), sets=2, level=level, samples=samples, seed=seed)


def permutation_test(
    truth: Truth,
    first: Real[ndarray, " N"],
    second: Real[ndarray, " N"],
    metric: Metric,
    *,
    samples: int = 2000,
    seed: int = 0,
) -> float:
    """Two-sided p-value in (0, 1] of the hypothesis that both classifiers are equally good by `metric`.

    The two scores of a row are exchanged at random, so both must be on the same scale, such as probabilities.
    The smallest possible value is 1 / (samples + 1). nan if the metric is undefined.
    """
    truth = checked(truth, first)
    checked(truth, second)
    measure = score_measure(truth, metric, first, second)
    return row_permutation(measure, len(truth), samples=samples, seed=seed)


def delong_test(
    truth: Truth, first: Real[ndarray, " N"], second: Real[ndarray, " N"], *, level: float = 0.95
) -> DeLong:
    """DeLong's test for the difference of two AUROCs on the same rows.

    DeLong et al., 1988, in the O(N log N) form of Sun and Xu, 2014, which works on ranks. All fields are nan
    if a class has fewer than two rows, because the variance is undefined.
    """
    from scipy.stats import norm, rankdata  # slow to import

    truth = checked(truth, first)
    checked(truth, second)
    positives, negatives = np.count_nonzero(truth), np.count_nonzero(~truth)
    if min(positives, negatives) < 2:
        return DeLong(*[float("nan")] * 4)
    pair = np.stack((first, second))
    ranks = rankdata(pair, axis=1)
    # Share of negatives below each positive, and share of positives above each negative: the rank among all
    # rows minus the rank within the own class.
    above = (ranks[:, truth] - rankdata(pair[:, truth], axis=1)) / negatives
    below = 1 - (ranks[:, ~truth] - rankdata(pair[:, ~truth], axis=1)) / positives
    difference = float(np.subtract(*above.mean(axis=1)))
    # Variance of the difference, from the differences: the covariance of the two AUROCs is in it.
    variance = np.var(np.diff(above, axis=0), ddof=1) / positives
    variance += np.var(np.diff(below, axis=0), ddof=1) / negatives
    error = float(np.sqrt(variance))
    reach = float(norm.ppf((1 + level) / 2)) * error
    if error == 0:  # both order the rows in the same way
        return DeLong(difference, difference, difference, float(difference == 0))
    p = float(2 * norm.sf(abs(difference) / error))
    return DeLong(difference, difference - reach, difference + reach, p)


def row_interval(
    measure: RowMeasure,
    strata: Sequence[Int[ndarray, " _"]],
    *,
    sets: int = 1,
    level: float = 0.95,
    samples: int = 2000,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile bootstrap interval of a measure, or of its difference, first minus second, for two sets.

    Resamples with an undefined measure are skipped.

    Args:
        strata: row numbers of each stratum. Rows are resampled within strata, and every row is in one.
        sets: number of sets of predictions, 1 or 2.
    """
    values = resampled_values(measure, strata, sets=sets, samples=samples, seed=seed)
    return percentiles(values[:, 0] - values[:, 1] if sets == 2 else values[:, 0], level)


def resampled_values(
    measure: RowMeasure,
    strata: Sequence[Int[ndarray, " _"]],
    *,
    sets: int,
    samples: int = 2000,
    seed: int = 0,
) -> Float[ndarray, "S M"]:
    """The measure of every set on every bootstrap resample; all sets have the same rows in a resample."""
    return np.concatenate([measure(rows) for rows in _resample(strata, sets, samples, seed)])


def row_permutation(measure: RowMeasure, count: int, *, samples: int = 2000, seed: int = 0) -> float:
    """Two-sided p-value of a permutation test for two sets of `count` rows; see `permutation_test`."""
    pair = np.arange(2 * count).reshape(2, count)
    observed = np.diff(measure(pair[None])[0])[0]
    if np.isnan(observed):
        return float("nan")
    generator = np.random.default_rng(seed)
    extreme = 0
    for chunk in _chunks(samples, pair.size):
        # The same rows are exchanged in both sets, so each example keeps one prediction in each.
        swap = generator.random((chunk, 1, count)) < 0.5
        differences = np.diff(measure(np.where(swap, pair[::-1], pair)))[:, 0]
        # Summing in another order changes the last bits; equal differences must still count as extreme.
        extreme += int(np.count_nonzero(np.abs(differences) >= abs(observed) - 1e-12))
    # The observed assignment is one of the permutations, so the p-value is never 0.
    return (extreme + 1) / (samples + 1)


def resampled_sums(
    values: Float[ndarray, "N K"],
    strata: Sequence[Int[ndarray, " _"]],
    *,
    samples: int = 2000,
    seed: int = 0,
) -> Float[ndarray, "S K"]:
    """Column sums of every bootstrap resample; rows are resampled within strata.

    A measure that is a function of sums (a mean, a rate, frequencies in bins) needs no resampled rows, so
    one matrix product per chunk serves all of them.
    """
    generator = np.random.default_rng(seed)
    parts = []
    for count in _chunks(samples, len(values)):
        total = np.zeros((count, values.shape[1]))
        for rows in strata:
            drawn = generator.integers(len(rows), size=(count, len(rows)))
            # How often each resample has each row: a matrix that multiplies the values.
            flat = (drawn + len(rows) * np.arange(count)[:, None]).ravel()
            times = np.bincount(flat, minlength=drawn.size).reshape(drawn.shape)
            total += times.astype(np.float64) @ values[rows]
        parts.append(total)
    return np.concatenate(parts)


def wilson_interval(hits: int, total: int, *, level: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a rate `hits / total`; (nan, nan) without rows.

    It stays inside [0, 1] and is not empty at 0 and 1 (Wilson, 1927).
    """
    from scipy.stats import norm

    if not total:
        return float("nan"), float("nan")
    z2 = float(norm.ppf((1 + level) / 2)) ** 2
    middle = (hits + z2 / 2) / (total + z2)
    reach = np.sqrt(z2 * (hits * (total - hits) / total + z2 / 4)) / (total + z2)
    return float(max(middle - reach, 0.0)), float(min(middle + reach, 1.0))


def score_measure(truth: Bool[ndarray, " N"], metric: Metric, *scores: Real[ndarray, " N"]) -> RowMeasure:
    """Turn a two-class metric into a `RowMeasure`; all resamples must have equal truth in each position."""
    ranked, truths = _ranked(metric, *scores).ravel(), np.tile(truth, len(scores))
    return lambda rows: _each(metric, truths[rows[0, 0]], ranked[rows])


def class_rows(truth: Bool[ndarray, " N"]) -> list[Int[ndarray, " _"]]:
    """Row numbers of each class, positives first."""
    return [rows for rows in (np.flatnonzero(truth), np.flatnonzero(~truth)) if len(rows)]


def auroc_rows(truth: Bool[ndarray, "S N"], ranks: Int[ndarray, "S N"]) -> Float[ndarray, " S"]:
    """AUROC of every resample (row), from dense ranks; nan for a row with a single class."""
    distinct, positives = int(ranks.max()) + 1, truth.sum(axis=1)
    # One histogram of ranks per row. Counting for each rank the negatives below it, ties by half, needs no
    # sorting, which would dominate the time of thousands of resamples.
    flat = ranks + distinct * np.arange(len(ranks))[:, None]
    size = distinct * len(ranks)
    right, every = (
        np.bincount(codes, minlength=size).reshape(len(ranks), distinct)
        for codes in (flat[truth], flat.ravel())
    )
    wrong = every - right
    # Example: ranks 0, 1, 1, 2 with negatives at 0 and 1: the positive at 1 wins 1.5,
    # that at 2 wins 2; 3.5 of 4.
    won = (right * (wrong.cumsum(axis=1) - wrong / 2)).sum(axis=1)
    pairs = positives * (truth.shape[1] - positives)
    return np.asarray(np.divide(won, pairs, out=np.full(len(ranks), np.nan), where=pairs > 0))


def _resample(
    strata: Sequence[Int[ndarray, " _"]], sets: int, samples: int, seed: int
) -> Iterator[Int[ndarray, "S M N"]]:
    """Yield chunks of resampled row numbers; every resample has the strata in the same order."""
    generator = np.random.default_rng(seed)
    total = sum(map(len, strata))
    offsets = total * np.arange(sets)[:, None]
    for count in _chunks(samples, sets * total):
        drawn = [rows[generator.integers(len(rows), size=(count, len(rows)))] for rows in strata]
        yield np.concatenate(drawn, axis=1)[:, None] + offsets  # equal rows for all sets: a paired bootstrap


def _chunks(samples: int, size: int) -> Iterator[int]:
    if samples < 1:
        raise ValueError(f"samples is {samples}; expected at least 1.")
    # Bounds the memory, whatever the size of the split.
    step = max(1, CELLS // size)
    for start in range(0, samples, step):
        yield min(step, samples - start)


def _ranked(metric: Metric, *scores: ndarray) -> Real[ndarray, "M N"]:
    """Stack the sets of scores; if only their order matters, replace them by common dense ranks."""
    stacked = np.stack(scores)
    # Ranks make the histograms of `_counts` small, however many different scores there are.
    if metric not in ROWWISE:
        return stacked
    # Both sets ranked together, so that exchanging scores between them stays meaningful.
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


def percentiles(values: Float[ndarray, " S"], level: float = 0.95) -> tuple[float, float]:
    """Ends of the middle `level` of the values, without undefined ones; (nan, nan) if there are no others."""
    if not 0 < level < 1:
        raise ValueError(f"level is {level}; expected a number between 0 and 1.")
    # Resamples in which the measure is undefined.
    values = values[~np.isnan(values)]
    if not len(values):
        return float("nan"), float("nan")
    low, high = np.quantile(values, ((1 - level) / 2, (1 + level) / 2))
    return float(low), float(high)


def _counts(ranks: Int[ndarray, "S K"], distinct: int) -> Int[ndarray, "S U"]:
    """Count how often each of the `distinct` ranks occurs in each row."""
    flat = ranks + distinct * np.arange(len(ranks))[:, None]
    return np.bincount(flat.ravel(), minlength=distinct * len(ranks)).reshape(len(ranks), distinct)


def _auroc_rows(truth: Bool[ndarray, " N"], ranks: Int[ndarray, "S N"]) -> Float[ndarray, " S"]:
    # Faster than `auroc_rows`: all resamples share the truth, so each class is a fixed set of columns.
    if truth.all() or not truth.any():
        return np.full(len(ranks), np.nan)
    positives, negatives = (_counts(ranks[:, rows], int(ranks.max()) + 1) for rows in (truth, ~truth))
    beaten = negatives.cumsum(axis=1) - negatives / 2
    pairs = np.count_nonzero(truth) * np.count_nonzero(~truth)
    return np.asarray(np.einsum("su,su->s", positives, beaten) / pairs)


def _average_precision_rows(truth: Bool[ndarray, " N"], ranks: Int[ndarray, "S N"]) -> Float[ndarray, " S"]:
    if not truth.any():
        return np.full(len(ranks), np.nan)
    # Reversed, so that the cumulative sums run from the best score down.
    positives, every = (
        _counts(ranks[:, rows], int(ranks.max()) + 1)[:, ::-1] for rows in (truth, slice(None))
    )
    precision = positives.cumsum(axis=1) / np.maximum(every.cumsum(axis=1), 1)
    return np.asarray(np.einsum("su,su->s", positives, precision) / np.count_nonzero(truth))


ROWWISE: dict[Metric, Callable[[ndarray, ndarray], ndarray]] = {
    auroc: _auroc_rows,
    average_precision: _average_precision_rows,
}
