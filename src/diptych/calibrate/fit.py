"""Fits a policy on labeled examples, and measures what it does there."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import date
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from diptych import __version__
from diptych.calibrate.bands import ABOVE, BELOW, Band, Costs, actions, capacity_band
from diptych.calibrate.maps import Map, Method, choose_method, cross_fitted, fit_map
from diptych.calibrate.policy import DevNode, Policy, Rule
from diptych.calibrate.promises import Promise, promise_above, promise_below
from diptych.calibrate.settings import Settings
from diptych.calibrate.slices import Slice, rate, slices_of
from diptych.errors import ConfigError, FormatError
from diptych.evaluate import FORMS, Binary, Estimate, Options
from diptych.evaluate.results import estimate, plain_dict
from diptych.metrics import CalibrationMeasures, ReliabilityBin, auroc, label_matrix, reliability
from diptych.metrics.uncertainty import class_rows, resampled_sums
from diptych.predictions import Predictions

FEWEST = 30  # examples of each class; below, no map and no threshold is more than a guess
FOLDS = 10  # of the calibrated probabilities that are measured
CAPACITIES = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2)
# Without costs, a miss and a wrong block count the same.
EQUAL = Costs(miss=1.0, wrong_block=1.0, review=0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """Misses and wrong blocks of the best band that reviews at most `share`, and their cost per 1,000."""

    share: float
    misses: int
    wrong_blocks: int
    cost: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelReport:
    """What was measured for one label.

    Args:
        candidates: cross-validated log loss of the maps that `auto` compared; empty for a given method.
        before: measures of the model's scores as probabilities.
        after: measures of calibrated probabilities, each from a map that was fitted without the example.
        cox: p-values of perfect calibration, before and after.
        allow: the threshold for the promise about misses; `block`, about wrong blocks.
        rates: at the policy's thresholds: share reviewed, of positives allowed, of negatives blocked.
        costs: cost per 1,000 examples of policies, by name.
        capacities: what is left to misses and wrong blocks if people can review some share.
        curves: reliability before and after.
        slices: the same by group.
        notes: what a reader should know.
    """

    candidates: Mapping[Method, float]
    before: Mapping[str, Estimate]
    after: Mapping[str, Estimate]
    cox: tuple[float, float]
    allow: Promise | None
    block: Promise | None
    rates: Mapping[str, Estimate]
    costs: Mapping[str, Estimate]
    capacities: tuple[Capacity, ...]
    curves: tuple[tuple[ReliabilityBin, ...], tuple[ReliabilityBin, ...]]
    slices: tuple[Slice, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """A policy, and a report for each of its labels."""

    policy: Policy
    reports: Mapping[str, LabelReport] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return JSON values; undefined measures are None."""
        reports = {name: asdict(report) for name, report in self.reports.items()}
        return {"policy": self.policy.as_dict(), "reports": plain_dict(reports)}


def calibrate(
    predictions: Predictions,
    gold: Sequence[Any],
    *,
    dev: DevNode,
    settings: Settings | None = None,
    positive: Sequence[str] = (),
    model: str | None = None,
    groups: Mapping[str, Mapping[str, str]] | None = None,
) -> Calibration:
    """Fit a policy on labeled examples.

    Args:
        predictions: probabilities, one row for each target.
        gold: targets; none is None. See `diptych.evaluate.with_targets`.
        dev: what the policy records about the examples.
        positive: labels that get a rule; by default the second of two classes, or all labels.
        model: identity of the model; by default that of the predictions.
        groups: group of examples by column and id, for slices.

    Raises:
        FormatError: a score is not a probability.
        ConfigError: a label has fewer than 30 examples of a class or equal scores, no label is chosen among
            several classes, or the promises need more reviews than there is capacity.
    """
    settings = settings or Settings()
    if predictions.meta.get("method") == "rank":
        raise ConfigError(
            "the scores are ranks, so the score of an example depends on the others and has no threshold. "
            "Blend with another method."
        )
    rules, reports = {}, {}
    for label, (scores, truth) in _judged(predictions, gold, positive).items():
        _require_enough(label, scores, truth)
        rules[label], reports[label] = _fit_label(
            scores, truth, settings=settings, ids=predictions.ids, groups=groups or {}
        )
    policy = Policy(
        labels=rules,
        model=model or predictions.model,
        dev=dev,
        made=date.today().isoformat(),
        version=__version__,
        delta=settings.delta if any(settings.promised) else None,
        costs=settings.costs,
    )
    return Calibration(policy=policy, reports=reports)


def _judged(
    predictions: Predictions, gold: Sequence[Any], positive: Sequence[str]
) -> dict[str, tuple[Float[ndarray, " N"], Bool[ndarray, " N"]]]:
    """Scores and truth of each label that gets a rule."""
    classes = predictions.classes or ()
    # Files of other programs do not say their form; several labels are then known by the targets.
    if predictions.form == "labels" or (
        predictions.form is None and FORMS["labels"].fits(predictions, gold, Options())
    ):
        truth = label_matrix(gold, classes, predictions.ids) >= 0.5
        return {
            label: (predictions.column(label).astype(np.float64), truth[:, classes.index(label)])
            for label in positive or classes
        }
    if len(classes) > 2 and not positive:
        raise ConfigError(f"which of the classes {classes} is to be found? Name it with --positive.")
    judged = {}
    for label in positive or classes[-1:]:
        one = Binary([predictions], gold, Options(positive=label))
        judged[label] = (one.scores[0].astype(np.float64), one.truth)
    if not judged:
        raise FormatError("the predictions have no scores of classes, so there is nothing to calibrate.")
    return judged


def _require_enough(label: str, scores: Float[ndarray, " N"], truth: Bool[ndarray, " N"]) -> None:
    # Negated, so that nan is outside, too.
    if (outside := ~((scores >= 0) & (scores <= 1))).any():
        raise FormatError(
            f"{label}: score {scores[outside][0]} in row {int(outside.argmax())}; expected probabilities. "
            "Read logits and log-probabilities with --kind."
        )
    positives = int(np.count_nonzero(truth))
    if min(positives, len(truth) - positives) < FEWEST:
        raise ConfigError(
            f"{label}: {positives} of {len(truth)} examples are positive; calibration needs at least "
            f"{FEWEST} positive and {FEWEST} negative examples. Label more, or leave the label out with "
            "--positive."
        )
    if np.ptp(scores) == 0:
        raise ConfigError(f"{label}: all scores are {scores[0]:g}; there is nothing to tell examples apart.")


def _fit_label(
    scores: Float[ndarray, " N"],
    truth: Bool[ndarray, " N"],
    *,
    settings: Settings,
    ids: Sequence[str],
    groups: Mapping[str, Mapping[str, str]],
) -> tuple[Rule, LabelReport]:
    candidates: dict[Method, float] = {}
    method: Method = settings.method  # type: ignore[assignment]
    if settings.method == "auto":
        method, candidates = choose_method(scores, truth)
    fitted = fit_map(method, scores, truth)
    # Where a map was fitted, it looks calibrated whatever it does elsewhere.
    held_out = cross_fitted(method, scores, truth, folds=FOLDS, repeats=1)[0]
    count = sum(limit is not None for limit in settings.promised)
    # A union bound: each of two promises fails with at most half of delta.
    delta = settings.delta / max(count, 1)
    allow = block = None
    if settings.max_miss is not None:
        allow = promise_below(scores[truth], limit=settings.max_miss, delta=delta)
    if settings.max_wrong_block is not None:
        block = promise_above(scores[~truth], limit=settings.max_wrong_block, delta=delta)
    band, notes = _band(scores, truth, fitted, allow=allow, block=block, settings=settings)
    rule = Rule(
        map=fitted,
        allow=band[0],
        block=band[1],
        positives=int(np.count_nonzero(truth)),
        negatives=int(np.count_nonzero(~truth)),
        max_miss=None if allow is None or allow.threshold is None else allow.limit,
        max_wrong_block=None if block is None or block.threshold is None else block.limit,
    )
    if auroc(truth, scores) <= 0.5:
        notes.append("the scores rank the examples no better than chance")
    before, cox_before = _quality(truth, scores, settings)
    after, cox_after = _quality(truth, held_out, settings)
    allowed, blocked = actions(scores, band)
    report = LabelReport(
        candidates=candidates,
        before=before,
        after=after,
        cox=(cox_before, cox_after),
        allow=allow,
        block=block,
        rates=_rates(allowed, blocked, truth),
        costs=_costs(allowed, blocked, truth, probabilities=fitted(scores), settings=settings),
        capacities=_capacities(scores, truth, settings.costs or EQUAL),
        curves=(reliability(truth, scores), reliability(truth, held_out)),
        slices=slices_of(
            scores, truth, fitted(scores), band=band, ids=ids, groups=groups, samples=settings.samples
        ),
        notes=tuple(notes),
    )
    return rule, report


def _band(
    scores: Float[ndarray, " N"],
    truth: Bool[ndarray, " N"],
    fitted: Map,
    *,
    allow: Promise | None,
    block: Promise | None,
    settings: Settings,
) -> tuple[Band, list[str]]:
    """The band of the policy: of least cost or within the capacity, and inside of what is promised."""
    costs, capacity = settings.costs, settings.review_capacity
    promised = None if allow is None else allow.threshold, None if block is None else block.threshold
    notes = []
    low: float | None
    high: float | None
    if costs is not None and not costs.review_pays:
        notes.append(
            f"no review pays at these costs: block from {costs.single:.3f} on and allow the rest"
            + ("; people see only what the promises need" if allow or block else "")
        )
    if costs is not None and capacity is None:
        low, high = (_score_at(fitted, value) for value in costs.band)
        # No probability is above what to block from, or every one is.
        high = None if high == ABOVE else BELOW if high is None else high
    elif capacity is not None and not (allow or block):
        low, high = capacity_band(scores, truth, share=capacity, costs=costs or EQUAL)
    else:
        low, high = promised
    if allow is not None:
        # Only downward, and `block` only upward: more goes to people, and what is promised still holds.
        low = None if promised[0] is None or low is None else min(low, promised[0])
    if block is not None:
        high = None if promised[1] is None or high is None else max(high, promised[1])
    if low is not None and high is not None and low > high:
        # Both promises hold between the two thresholds; the cheaper action decides where to cut.
        even = _score_at(fitted, (costs or EQUAL).single)
        low = high = float(np.clip(low if even is None else even, high, low))
        notes.append("both promises hold at one threshold, so nothing needs to go to people")
    allowed, blocked = actions(scores, (low, high))
    reviewed = 1 - float(np.mean(allowed | blocked))
    if capacity is not None and reviewed > capacity:
        raise ConfigError(
            f"the promises send {reviewed:.1%} of the examples to people, but review_capacity is "
            f"{capacity:.1%}. Promise less, or review more."
        )
    return (low, high), notes


def _score_at(fitted: Map, probability: float) -> float | None:
    """The score up to which the map gives at most a probability; None if it never does."""
    ends = fitted(np.array([0.0, 1.0]))
    if ends[0] > probability:
        return None
    if ends[1] <= probability:
        return ABOVE
    low, high = 0.0, 1.0
    # By search, because an isotonic map has flat parts and no inverse; 60 halvings pass the 53 bits of a
    # float.
    for _ in range(60):  # bisection: the map never falls
        middle = (low + high) / 2
        low, high = (middle, high) if fitted(np.array([middle]))[0] <= probability else (low, middle)
    return high


def _quality(
    truth: Bool[ndarray, " N"], probabilities: Float[ndarray, " N"], settings: Settings
) -> tuple[dict[str, Estimate], float]:
    measures = CalibrationMeasures(truth, probabilities)
    sums = resampled_sums(measures.columns, class_rows(truth), samples=settings.samples, seed=settings.seed)
    resampled, values = measures.of_sums(sums, resampled=True), measures.values()
    found = {name: estimate(values[name], resampled[name]) for name in values}
    return found, measures.cox_test()


def _rates(
    allowed: Bool[ndarray, " N"], blocked: Bool[ndarray, " N"], truth: Bool[ndarray, " N"]
) -> dict[str, Estimate]:
    every = np.ones_like(truth)
    return {
        "reviewed": rate(~allowed & ~blocked, every),
        "missed": rate(allowed, truth),
        "wrongly_blocked": rate(blocked, ~truth),
    }


def _costs(
    allowed: Bool[ndarray, " N"],
    blocked: Bool[ndarray, " N"],
    truth: Bool[ndarray, " N"],
    *,
    probabilities: Float[ndarray, " N"],
    settings: Settings,
) -> dict[str, Estimate]:
    """Cost per 1,000 examples of the policy and of simpler ones."""
    if settings.costs is None:
        return {}
    cost, none, every = settings.costs.of, np.zeros_like(truth), np.ones_like(truth)
    high = probabilities > settings.costs.single
    columns = {
        "everything allowed": cost(truth, every, none),
        "everything reviewed": cost(truth, none, none),
        "one threshold, no review": cost(truth, ~high, high),
        "this policy": cost(truth, allowed, blocked),
    }
    # One matrix, so that all policies are measured on the same resamples.
    matrix = 1000 / len(truth) * np.stack([*columns.values()], axis=1)
    sums = resampled_sums(matrix, class_rows(truth), samples=settings.samples, seed=settings.seed)
    return {
        name: estimate(float(matrix[:, number].sum()), sums[:, number]) for number, name in enumerate(columns)
    }


def _capacities(
    scores: Float[ndarray, " N"], truth: Bool[ndarray, " N"], costs: Costs
) -> tuple[Capacity, ...]:
    found = []
    for share in CAPACITIES:
        allowed, blocked = actions(scores, capacity_band(scores, truth, share=share, costs=costs))
        misses, wrong = int(np.count_nonzero(allowed & truth)), int(np.count_nonzero(blocked & ~truth))
        cost = 1000 / len(truth) * (costs.miss * misses + costs.wrong_block * wrong)
        found.append(Capacity(share=share, misses=misses, wrong_blocks=wrong, cost=cost))
    return tuple(found)
