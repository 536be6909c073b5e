"""Maps from a model's probability to a calibrated one, fitted on labeled examples.

All maps never fall, so they keep the order of the scores. With q the model's probability:

    identity      q
    temperature   log-odds of q, divided by one number (Guo et al., 2017)
    platt         a line through the log-odds (Platt, 1999)
    beta          sigmoid(a ln q - b ln(1 - q) + c) (Kull et al., 2017)
    isotonic      centered isotonic regression: one knot per block of equal fitted values, at the mean
                  log-odds of the block, and straight lines between (Oron and Flournoy, 2017)
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from diptych.metrics import fit_logistic, log_losses, log_odds

Method = Literal["identity", "temperature", "platt", "beta", "isotonic"]
CANDIDATES: tuple[Method, ...] = ("identity", "platt", "beta", "isotonic")
"""What `auto` chooses from, the simplest first."""
FEW = 200  # below so many examples, a fit of two numbers is all that the data can carry
REPEATS, HALVES = 5, 2  # of the cross-validation that chooses the map


@dataclass(frozen=True, slots=True, kw_only=True)
class Map:
    """A fitted map.

    Args:
        a: factor of ln q.
        b: factor of -ln(1 - q); equal to `a` for all methods but beta.
        c: intercept.
        knots: log-odds of the knots of an isotonic map, ascending; else empty.
        values: its probabilities at the knots.
    """

    method: Method
    a: float = 1.0
    b: float = 1.0
    c: float = 0.0
    knots: tuple[float, ...] = ()
    values: tuple[float, ...] = ()

    def __call__(self, scores: Float[ndarray, "*N"]) -> Float[ndarray, "*N"]:
        """Calibrated probabilities of the model's probabilities `scores`."""
        from scipy.special import expit, log_expit

        odds = log_odds(scores)
        if self.knots:
            # Beyond the outer knots the map is flat: no example there says how it would go on.
            return np.asarray(np.interp(odds, self.knots, self.values))
        if self.method == "identity":
            # Not through the log-odds, whose clipping would change the extreme scores.
            return scores.astype(np.float64)
        # log_expit(x) - log_expit(-x) is x, so with a = b this is a x + c: temperature and Platt's map, too.
        # Near 1 the logarithm of 1 - q would lose its digits; log_expit(-x) keeps them.
        return np.asarray(expit(self.a * log_expit(odds) - self.b * log_expit(-odds) + self.c))


def fit_map(method: Method, scores: Float[ndarray, " N"], truth: Bool[ndarray, " N"]) -> Map:
    """Fit a map on the model's probabilities and the truth of labeled examples of both classes."""
    return _FITS[method](log_odds(scores), truth)


def cross_fitted(
    method: Method,
    scores: Float[ndarray, " N"],
    truth: Bool[ndarray, " N"],
    *,
    folds: int = HALVES,
    repeats: int = REPEATS,
) -> Float[ndarray, "R N"]:
    """Calibrated probabilities of every example by a map that was fitted without it, for each repeat."""
    found = np.empty((repeats, len(scores)))
    for repeat in range(repeats):
        fold = stratified_folds(truth, folds, seed=repeat)
        for number in range(folds):
            held = fold == number
            found[repeat, held] = fit_map(method, scores[~held], truth[~held])(scores[held])
    return found


def stratified_folds(truth: Bool[ndarray, " N"], folds: int, *, seed: int) -> Int[ndarray, " N"]:
    """Number of the fold of every example; each class is spread evenly."""
    generator = np.random.default_rng(seed)
    fold = np.empty(len(truth), dtype=np.int64)
    for rows in (np.flatnonzero(truth), np.flatnonzero(~truth)):
        # Dealt like cards: the sizes of folds differ by at most one example of each class.
        fold[generator.permutation(rows)] = np.arange(len(rows)) % folds
    return fold


def choose_method(
    scores: Float[ndarray, " N"], truth: Bool[ndarray, " N"]
) -> tuple[Method, dict[Method, float]]:
    """Choose among `CANDIDATES` by the log loss of five times two folds.

    The simplest map whose loss is within one standard error of the smallest wins; the error is that of the
    difference on the same examples. Below 200 examples only Platt's map is considered.

    Returns:
        The method, and the cross-validated log loss of each candidate.
    """
    names: tuple[Method, ...] = ("platt",) if len(truth) < FEW else CANDIDATES
    target = truth.astype(np.float64)
    # Of five repeats, the mean loss of each example, so that candidates can be compared example by example.
    losses = {
        name: np.mean([log_losses(target, row) for row in cross_fitted(name, scores, truth)], axis=0)
        for name in names
    }
    best = min(names, key=lambda name: float(losses[name].mean()))
    for name in names:
        behind = losses[name] - losses[best]
        # The loss of the best itself is behind by 0, so some candidate is always chosen.
        if behind.mean() <= behind.std() / np.sqrt(len(behind)):
            best = name
            break
    return best, {name: float(loss.mean()) for name, loss in losses.items()}


def _identity(odds: Float[ndarray, " N"], truth: Bool[ndarray, " N"]) -> Map:
    return Map(method="identity")


def _temperature(odds: Float[ndarray, " N"], truth: Bool[ndarray, " N"]) -> Map:
    from scipy.optimize import minimize_scalar

    def loss(power: float) -> float:
        # A power, so that the factor is positive whatever the search tries.
        raw = np.exp(power) * odds
        return float(np.sum(np.logaddexp(0, raw) - truth * raw))

    # The bounds of scikit-learn; separated classes would make the temperature 0.
    found = minimize_scalar(loss, bounds=(-10.0, 10.0), options={"xatol": 1e-10})
    factor = float(np.exp(found.x))
    return Map(method="temperature", a=factor, b=factor)


def _platt(odds: Float[ndarray, " N"], truth: Bool[ndarray, " N"]) -> Map:
    (slope,), intercept = _line([odds], truth)
    return Map(method="platt", a=slope, b=slope, c=intercept)


def _beta(odds: Float[ndarray, " N"], truth: Bool[ndarray, " N"]) -> Map:
    from scipy.special import log_expit

    (a, b), c = _line([log_expit(odds), -log_expit(-odds)], truth)
    return Map(method="beta", a=a, b=b, c=c)


def _line(terms: list[Float[ndarray, " N"]], truth: Bool[ndarray, " N"]) -> tuple[tuple[float, ...], float]:
    """Non-negative factors of the terms, and the intercept, of a logistic regression.

    Platt's targets, (n + 1) / (n + 2) of the positives and 1 / (n + 2) of the negatives, keep the factors
    finite where the classes are separated. A term whose factor would be negative is left out.
    """
    positives = np.count_nonzero(truth)
    high, low = (positives + 1) / (positives + 2), 1 / (len(truth) - positives + 2)
    targets, kept = np.where(truth, high, low), list(range(len(terms)))
    while True:
        columns = np.stack([*(terms[number] for number in kept), np.ones(len(truth))], axis=1)
        found = fit_logistic(columns, targets)
        # Equal scores in a fold leave no slope to be found.
        factors = np.zeros(len(kept)) if found is None else found[:-1]
        intercept = log_odds(targets.mean()) if found is None else found[-1]
        if (factors >= 0).all():
            break
        # Left out and fitted anew, as Kull et al. do: a negative factor would make the map fall.
        kept.pop(int(factors.argmin()))
    full = np.zeros(len(terms))
    full[kept] = factors
    return tuple(full.tolist()), float(intercept)


def _isotonic(odds: Float[ndarray, " N"], truth: Bool[ndarray, " N"]) -> Map:
    from scipy.optimize import isotonic_regression

    # Equal scores are one point, whose weight is their number.
    points, where, counts = np.unique(odds, return_inverse=True, return_counts=True)
    shares = np.bincount(where.ravel(), truth) / counts
    fitted = isotonic_regression(shares, weights=counts.astype(np.float64))
    starts = fitted.blocks[:-1]
    # Of points 1 2 5 whose first two are one block, with equal counts, the knots are 1.5 and 5.
    mass = np.add.reduceat(counts, starts)
    knots = np.add.reduceat(points * counts, starts) / mass
    # Never 0 or 1, which one contrary example would make infinitely wrong.
    edge = 1 / (len(truth) + 2)
    values = np.clip(fitted.x[starts], edge, 1 - edge)
    return Map(method="isotonic", knots=tuple(knots.tolist()), values=tuple(values.tolist()))


_FITS: dict[Method, Callable[[ndarray, ndarray], Map]] = {
    "identity": _identity,
    "temperature": _temperature,
    "platt": _platt,
    "beta": _beta,
    "isotonic": _isotonic,
}
METHODS: tuple[Method, ...] = tuple(_FITS)
