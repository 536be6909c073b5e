"""How scores, and what a policy does with them, have moved since a reference; needs no labels."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Real
from numpy import ndarray

from diptych.calibrate.policy import ACTIONS, Policy
from diptych.predictions import Predictions

BINS = 10
QUIET, ALARM = 0.1, 0.25  # of the stability index, by the habit of credit scoring


@dataclass(frozen=True, slots=True, kw_only=True)
class Shift:
    """How the distribution of a number has moved.

    Args:
        stability: population stability index; below 0.1 is quiet, above 0.25 an alarm.
        distance: largest difference of the two distribution functions (Kolmogorov and Smirnov), in [0, 1].
        p: p-value of equal distributions; tiny for large samples, however small the distance.
    """

    stability: float
    distance: float
    p: float

    @property
    def level(self) -> str:
        """`quiet`, `moved` or `alarm`."""
        return "quiet" if self.stability < QUIET else "alarm" if self.stability > ALARM else "moved"


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """Differences between reference and live predictions.

    Args:
        scores: shift of the scores of each label.
        lengths: shift of the number of characters of the texts; None without texts.
        actions: with a policy, the share of each action in the reference and live.
        prevalence: with a policy, the share of positives of each label: on its dev examples, and live,
            estimated from the calibrated probabilities. It holds if only the mix of classes has changed.
    """

    scores: dict[str, Shift]
    lengths: Shift | None
    actions: dict[str, tuple[float, float]]
    prevalence: dict[str, tuple[float, float]]


def drift(
    reference: Predictions,
    live: Predictions,
    *,
    policy: Policy | None = None,
    texts: tuple[Sequence[str], Sequence[str]] | None = None,
) -> Drift:
    """Compare live predictions with a reference of the same model.

    Args:
        policy: of that model, see `Policy.require_model`.
        texts: of the reference and of the live examples.

    Raises:
        FormatError: the live predictions lack a class, or scores that a policy decides on are not
            probabilities.
    """
    # Of two classes, the scores of one say all.
    labels = tuple(policy.labels) if policy else (reference.classes or ())[-1:]
    if policy is None and (reference.form == "labels" or len(reference.classes or ()) > 2):
        labels = reference.classes or ()
    shares: dict[str, tuple[float, float]] = {}
    prevalence: dict[str, tuple[float, float]] = {}
    if policy is not None:
        decided = [policy.decide(one).action for one in (reference, live)]
        for action in ACTIONS:
            before, after = (one.count(action) / max(1, len(one)) for one in decided)
            shares[action] = before, after
        for label, rule in policy.labels.items():
            estimated = shifted_prevalence(rule.map(live.column(label)), rule.prevalence)
            prevalence[label] = rule.prevalence, estimated
    return Drift(
        scores={label: shift(reference.column(label), live.column(label)) for label in labels},
        lengths=None if texts is None else shift(*(np.array([*map(len, one)]) for one in texts)),
        actions=shares,
        prevalence=prevalence,
    )


def shift(reference: Real[ndarray, " N"], live: Real[ndarray, " M"]) -> Shift:
    """Compare two samples of a number.

    Raises:
        ValueError: a sample is empty.
    """
    from scipy.stats import ks_2samp

    test = ks_2samp(reference, live)
    return Shift(
        stability=stability_index(reference, live), distance=float(test.statistic), p=float(test.pvalue)
    )


def stability_index(reference: Real[ndarray, " N"], live: Real[ndarray, " M"]) -> float:
    """Population stability index over ten bins of equal mass in the reference; 0 for equal shares."""
    # Quantiles of few different values coincide, and would make empty bins.
    # Without the two ends, so that live numbers beyond the reference fall into the outer bins.
    cuts = np.unique(np.quantile(reference, np.linspace(0, 1, BINS + 1)[1:-1]))
    # Half an example per bin, so that an empty one does not make the index infinite.
    counts = [
        np.bincount(np.searchsorted(cuts, one, side="right"), minlength=len(cuts) + 1) + 0.5
        for one in (reference, live)
    ]
    expected, actual = (one / one.sum() for one in counts)
    # The sum of both Kullback-Leibler divergences, so it is the same in either direction.
    return float(np.sum((actual - expected) * np.log(actual / expected)))


def shifted_prevalence(probabilities: Float[ndarray, " N"], prevalence: float, *, steps: int = 1000) -> float:
    """Share of positives among unlabeled examples, by expectation maximization (Saerens et al., 2002).

    Args:
        probabilities: calibrated where the share of positives is `prevalence`.
    """
    share = prevalence
    for _ in range(steps):
        # Bayes: the odds of each example change by the odds of the classes.
        # Never a division by 0: a rule has at least one example of each class.
        positive = probabilities * (share / prevalence)
        negative = (1 - probabilities) * ((1 - share) / (1 - prevalence))
        before, share = share, float(np.mean(positive / (positive + negative)))
        if abs(share - before) < 1e-9:
            break
    return share
