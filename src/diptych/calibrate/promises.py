"""Thresholds that keep a promise about new examples, and the usual ones that do not.

The promise: of the positive examples, at most a share `limit` scores below the threshold (and is allowed
unseen). Thresholds are tried in a fixed order, from below, and accepted while the Clopper-Pearson bound of
that share is within the limit; the first failure ends the search. With probability 1 - delta over labeled
samples, the threshold keeps the promise (fixed-sequence testing; Angelopoulos et al., Learn then Test, 2021).
It assumes that new examples come from where the labeled ones came from.
"""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray


@dataclass(frozen=True, slots=True, kw_only=True)
class Promise:
    """A threshold for a promise, and the threshold read off the curve for the same promise.

    Args:
        limit: largest share of examples beyond the threshold that is promised.
        delta: largest probability that the promise does not hold.
        count: number of labeled examples of the class that the promise is about.
        threshold: score that keeps the promise; None if no threshold does.
        share: share of the labeled examples beyond it.
        bound: upper bound of that share for new examples.
        naive: the farthest threshold at which the share of labeled examples is within the limit.
        naive_share: share of the labeled examples beyond it.
        naive_broken: probability that `naive` breaks the promise on new examples.
        missing: further labeled examples without which no threshold can keep the promise.
    """

    limit: float
    delta: float
    count: int
    threshold: float | None
    share: float
    bound: float
    naive: float
    naive_share: float
    naive_broken: float
    missing: int


def promise_below(scores: Float[ndarray, " N"], *, limit: float, delta: float) -> Promise:
    """Find the highest threshold below which at most a share `limit` of examples like these scores.

    Args:
        scores: scores of labeled examples of one class.
        limit: in (0, 1).
        delta: in (0, 1).
    """
    from scipy.stats import beta

    count = len(scores)
    values = np.unique(scores)
    # Number of examples strictly below each candidate.
    below = np.searchsorted(np.sort(scores), values)
    # `below` at a candidate counts what it would allow: a score at the threshold itself is not below it.
    bounds = upper_bound(below, count, delta=delta)
    # The bound only rises, so the first failure is where it crosses the limit.
    kept = int(np.count_nonzero(bounds <= limit))
    # What one reads off a curve: no bound, just the share on the labeled examples.
    read = int(np.count_nonzero(below <= limit * count)) - 1
    number = below[read]
    return Promise(
        limit=limit,
        delta=delta,
        count=count,
        threshold=float(values[kept - 1]) if kept else None,
        share=float(below[kept - 1] / count) if kept else 0.0,
        bound=float(bounds[kept - 1]) if kept else 0.0,
        naive=float(values[read]),
        naive_share=float(number / count),
        # The share of new examples below the (number + 1)-th of `count` is beta distributed.
        naive_broken=float(beta.sf(limit, number + 1, count - number)),
        missing=max(0, needed(limit, delta) - count),
    )


def promise_above(scores: Float[ndarray, " N"], *, limit: float, delta: float) -> Promise:
    """The same for the lowest threshold above which at most a share `limit` scores."""
    # Above a threshold of s is below a threshold of -s.
    mirrored = promise_below(-scores, limit=limit, delta=delta)
    threshold = None if mirrored.threshold is None else -mirrored.threshold
    values = {name: getattr(mirrored, name) for name in mirrored.__dataclass_fields__}
    return Promise(**values | {"threshold": threshold, "naive": -mirrored.naive})


def upper_bound(hits: ndarray, count: int, *, delta: float) -> Float[ndarray, " K"]:
    """One-sided upper Clopper-Pearson bound, at level 1 - delta, of rates `hits / count`."""
    from scipy.stats import beta

    # With all of them hits, the beta distribution has no second parameter, and the bound is 1.
    return np.where(hits < count, beta.ppf(1 - delta, hits + 1, np.maximum(count - hits, 1)), 1.0)


def needed(limit: float, delta: float) -> int:
    """Labeled examples of the class that the strictest threshold needs, with none of them beyond it."""
    # Without a hit the bound is 1 - delta ** (1 / n); it is within the limit from this n on. For 5 % and
    # delta = 0.1 that is 45. log1p keeps the digits of small limits.
    return math.ceil(math.log(delta) / math.log1p(-limit))
