"""Fits a cascade on labeled examples: one half finds candidates, the other proves which keep the promise.

Bands that were chosen on examples look better there than they are, so a bound computed on the same ones would
promise too much. Therefore the first half finds the cheapest cascade for 0, 1, 2, ... misses. In this order,
which the second half has not seen, the candidates are accepted while their Clopper-Pearson bounds on the
second half are within the limits; the first failure ends the search (fixed-sequence testing of a Pareto
front; Laufer-Goldenshluger et al., Efficiently Controlling Multiple Risks with Pareto Testing, 2023).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from functools import partial

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from diptych import __version__
from diptych.calibrate.cascade import Cascade, Routed, Stage, Unit
from diptych.calibrate.cascade_report import (
    Candidate,
    CascadeReport,
    measured,
    measured_at,
    shares_of,
)
from diptych.calibrate.cascade_search import MOST, Bands, allowed_by, cheapest, last_alone
from diptych.calibrate.fit import FEWEST
from diptych.calibrate.policy import DevNode
from diptych.calibrate.promises import needed, promise_below, upper_bound
from diptych.calibrate.settings import Settings
from diptych.errors import ConfigError
from diptych.evaluate import Estimate
from diptych.evaluate.results import estimate
from diptych.metrics.uncertainty import class_rows, resampled_sums

SLACK = 1.5  # candidates have up to so many times the misses that the limit allows; more are never proven
LEVELS = 32  # numbers of misses that are tried, at most
SHARES = (1.0, 0.7, 0.4)  # of the promised wrong blocks


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A member with its scores of the labeled examples.

    Args:
        cost: of asking it about one example.
    """

    name: str
    scores: Float[ndarray, " N"]
    cost: float
    model: str | None = None


def fit_cascade(
    members: Sequence[Member],
    truth: Bool[ndarray, " N"],
    *,
    unit: Unit,
    positive: str,
    dev: DevNode,
    max_miss: float = 0.05,
    max_wrong_block: float | None = None,
    delta: float = 0.1,
    samples: int = 2000,
    seed: int = 0,
) -> CascadeReport:
    """Find the cheapest cascade that keeps a promise about misses.

    Args:
        members: two to four; they are asked in the order of their costs.
        truth: True for positive examples.
        max_miss: promised largest share of positive examples that are allowed.
        max_wrong_block: promised largest share of others that are blocked. None promises nothing, and allows
            as many wrong blocks as the dear member has if it misses half of what it may.
        delta: largest probability that a promise does not hold.
        samples: number of bootstrap resamples per interval.
        seed: of the halves and the resamples.

    Raises:
        ConfigError: a class has fewer than 30 examples in each half, a member has equal scores, a setting is
            impossible, or no cascade keeps the promise.
    """
    # The same rules as for a policy.
    Settings(max_miss=max_miss, max_wrong_block=max_wrong_block, delta=delta, samples=samples)
    members, notes = _ordered(members, truth)
    scores, costs = np.stack([one.scores for one in members]), np.array([one.cost for one in members])
    first, second = _halves(truth, seed)
    found = _candidates(
        scores[:, first], truth[first], costs, max_miss=max_miss, most=max_wrong_block, delta=delta
    )
    made = partial(
        Cascade,
        unit=unit,
        positive=positive,
        dev=dev,
        max_miss=max_miss,
        max_wrong_block=max_wrong_block,
        delta=delta,
        made=date.today().isoformat(),
        version=__version__,
    )
    proof, labels = scores[:, second], truth[second]
    chosen, tried = _proven(found, made, members, proof, labels)
    if chosen is None:
        raise _unkept(tried, labels, max_miss=max_miss, most=max_wrong_block, delta=delta)
    return _report(chosen, members, proof, labels, tried, notes, samples=samples, seed=seed)


def _proven(
    found: Sequence[tuple[int, Bands]],
    made: Callable[..., Cascade],
    members: Sequence[Member],
    proof: Float[ndarray, "K N"],
    truth: Bool[ndarray, " N"],
) -> tuple[Cascade | None, list[Candidate]]:
    """The cheapest of the candidates before the first that breaks a promise, and all that were tried."""
    tried: list[Candidate] = []
    chosen: Cascade | None = None
    least = np.inf
    for level, bands in found:
        cascade = made(stages=_stages(members, bands))
        tried.append(_tried(cascade, _routed(cascade, members, proof), truth, level))
        if not tried[-1].kept:
            break
        # All that are accepted keep the promises together, so the cheapest may be taken.
        if bands.cost <= least:
            chosen, least = cascade, bands.cost
    return chosen, tried


def _ordered(members: Sequence[Member], truth: Bool[ndarray, " N"]) -> tuple[list[Member], list[str]]:
    """The members by their cost, without those that cannot save anything."""
    if not 2 <= len(members) <= MOST:
        raise ConfigError(f"there are {len(members)} members; a cascade has 2 to {MOST}.")
    positives = int(np.count_nonzero(truth))
    if min(positives, len(truth) - positives) < 2 * FEWEST:
        raise ConfigError(
            f"{positives} of {len(truth)} examples are positive; a cascade needs at least {2 * FEWEST} "
            "positive and as many negative ones: half of them to find it, half to prove it. Label more."
        )
    for one in members:
        if np.ptp(one.scores) == 0:
            raise ConfigError(
                f"{one.name}: all scores are {one.scores[0]:g}; there is nothing to tell examples apart. "
                "Leave this member out."
            )
    # Stable: of equally dear members, the last of the file is the one that decides.
    ordered = sorted(members, key=lambda one: one.cost)
    dear = ordered[-1]
    if dear.cost == 0:
        raise ConfigError("all members cost 0, so there is nothing to save; give their costs.")
    kept = [one for one in ordered[:-1] if one.cost < dear.cost]
    notes = [
        f"{one.name} costs as much as {dear.name}, so asking it first saves nothing; it is left out"
        for one in ordered[:-1]
        if one not in kept
    ]
    if not kept:
        raise ConfigError(f"{notes[0]}. A cascade needs a member that costs less.")
    return [*kept, dear], notes


def _halves(truth: Bool[ndarray, " N"], seed: int) -> tuple[Int[ndarray, " _"], Int[ndarray, " _"]]:
    """Rows of two halves with equal shares of both classes."""
    generator = np.random.default_rng(seed)
    drawn = [generator.permutation(rows) for rows in class_rows(truth)]
    parts = [(rows[: len(rows) // 2], rows[len(rows) // 2 :]) for rows in drawn]
    first, second = (np.sort(np.concatenate(half)) for half in zip(*parts, strict=True))
    return first, second


def _candidates(
    scores: Float[ndarray, "K N"],
    truth: Bool[ndarray, " N"],
    costs: Float[ndarray, " K"],
    *,
    max_miss: float,
    most: float | None,
    delta: float,
) -> list[tuple[int, Bands]]:
    """Numbers of misses and the cheapest cascades for them, from the safest to the boldest."""
    positives = int(np.count_nonzero(truth))
    # Not all of the positives: the threshold is a positive example that is not missed.
    top = min(int(np.ceil(SLACK * max_miss * positives)), positives - 1)
    levels = np.unique(np.round(np.linspace(0, top, LEVELS)).astype(int)).tolist()
    alone = [(level, _alone(scores, truth, costs, level)) for level in levels]
    if most is not None:
        # 0.29 * 100 is a little below 29 in floating point, and one wrong block would be lost.
        limit = int(most * np.count_nonzero(~truth) + 1e-9)
        # Fewer wrong blocks than promised, too: what is at the limit here is often beyond it elsewhere.
        cascades = [
            one
            for share in SHARES
            for one in cheapest(scores, truth, costs, wrong=int(limit * share), levels=levels).items()
        ]
        # Safest first, by both promises.
        return sorted(
            [*alone, *cascades], key=lambda one: _risk(one[1], scores, truth, max_miss=max_miss, most=most)
        )
    share = promise_below(scores[-1][truth], limit=max_miss, delta=delta).share
    # A cascade with the wrong blocks that the dear member has at the limit of its misses would be at the
    # limit, too, and fail every other proof. Half of the misses are left to the members before it.
    strict = last_alone(scores[-1], truth, round(share * positives) // 2)
    wrong = int(np.count_nonzero(scores[-1][~truth] >= strict))
    found = cheapest(scores, truth, costs, wrong=wrong, levels=levels)
    # With fewer misses than any cascade has: the dear member alone. It begins the sequence, so that a cascade
    # that is a little too bold does not end the search with nothing.
    safe = [one for one in alone if one[0] < min(found, default=positives)] or alone[:1]
    return [*safe, *found.items()]


def _alone(
    scores: Float[ndarray, "K N"], truth: Bool[ndarray, " N"], costs: Float[ndarray, " K"], misses: int
) -> Bands:
    """The dear member alone, with so many misses."""
    at = last_alone(scores[-1], truth, misses)
    ends = (at, float(np.nextafter(at, -np.inf)))
    return Bands(asked=(len(scores) - 1,), bands=(ends,), cost=float(costs[-1]) * len(truth))


def _risk(
    bands: Bands, scores: Float[ndarray, "K N"], truth: Bool[ndarray, " N"], *, max_miss: float, most: float
) -> float:
    """How close bands come to the nearer of two limits: the larger p-value of the promises here."""
    from scipy.stats import binom

    allowed = allowed_by(bands, scores)
    return max(
        # Probability of so few errors, or fewer, if their true share were exactly the limit.
        float(binom.cdf(np.count_nonzero(hits), np.count_nonzero(rows), limit))
        for hits, rows, limit in ((allowed & truth, truth, max_miss), (~allowed & ~truth, ~truth, most))
    )


def _stages(members: Sequence[Member], bands: Bands) -> tuple[Stage, ...]:
    stages: list[Stage] = []
    for number, (low, high) in zip(bands.asked, bands.bands, strict=True):
        stages.append(
            Stage(
                name=members[number].name,
                model=members[number].model,
                cost=members[number].cost,
                allow=low if np.isfinite(low) else None,
                block=high if np.isfinite(high) else None,
            )
        )
        if stages[-1].decides:  # nothing is left for the members after it
            break
    return tuple(stages)


def _routed(cascade: Cascade, members: Sequence[Member], scores: Float[ndarray, "K N"]) -> Routed:
    rows = {one.name: row for one, row in zip(members, scores, strict=True)}
    ids = [str(number) for number in range(scores.shape[1])]
    return cascade.decide(np.stack([rows[one.name] for one in cascade.stages]), ids)


def _tried(cascade: Cascade, routed: Routed, truth: Bool[ndarray, " N"], level: int) -> Candidate:
    def bound(hits: Bool[ndarray, " N"], rows: Bool[ndarray, " N"]) -> float:
        # Both promises at delta: a candidate that breaks either is accepted with at most this probability.
        count = np.array([np.count_nonzero(hits & rows)])
        return float(upper_bound(count, int(np.count_nonzero(rows)), delta=cascade.delta)[0])

    missed, most = bound(routed.allowed, truth), cascade.max_wrong_block
    return Candidate(
        level=level,
        asked=tuple(one.name for one in cascade.stages),
        cost=float(routed.cost.mean()),
        missed=float(routed.allowed[truth].mean()),
        bound=missed,
        wrongly_blocked=float((~routed.allowed[~truth]).mean()),
        kept=missed <= cascade.max_miss and (most is None or bound(~routed.allowed, ~truth) <= most),
    )


def _unkept(
    tried: Sequence[Candidate],
    truth: Bool[ndarray, " N"],
    *,
    max_miss: float,
    most: float | None,
    delta: float,
) -> ConfigError:
    # `truth` is the second half; what it lacks must be labeled twice, once for each half.
    need = needed(max_miss, delta) - int(np.count_nonzero(truth))
    asked = f"misses at most {max_miss:.1%}" + (
        "" if most is None else f" and wrong blocks at most {most:.1%}"
    )
    if need > 0:
        return ConfigError(
            f"no cascade can keep {asked}: half of the positive examples prove it, and {need} more are "
            f"missing there. Label {2 * need} more positive examples, or promise less."
        )
    if not tried:
        return ConfigError(f"no cascade of these members has {asked} on the labeled examples. Promise less.")
    best = tried[0]
    return ConfigError(
        f"no cascade keeps {asked}: the strictest misses {best.missed:.1%} (bound {best.bound:.1%}) and "
        f"wrongly blocks {best.wrongly_blocked:.1%} of the examples that prove it. Promise less."
    )


def _report(
    cascade: Cascade,
    members: Sequence[Member],
    scores: Float[ndarray, "K N"],
    truth: Bool[ndarray, " N"],
    tried: Sequence[Candidate],
    notes: list[str],
    *,
    samples: int,
    seed: int,
) -> CascadeReport:
    routed = _routed(cascade, members, scores)
    result = measured(routed, truth, samples=samples, seed=seed)
    cost = result.cost
    dear, asked = members[-1], [one.name for one in cascade.stages]
    # The dear member costs the same for each example, so the intervals are those of the cascade.
    saved = Estimate(
        value=1 - cost.value / dear.cost, low=1 - cost.high / dear.cost, high=1 - cost.low / dear.cost
    )
    alone = {}
    allowed = np.zeros_like(truth)
    for one, row in zip(members, scores, strict=True):
        own = promise_below(row[truth], limit=cascade.max_miss, delta=cascade.delta).threshold
        fixed = Estimate(value=one.cost, low=one.cost, high=one.cost)
        allowed = np.zeros_like(truth) if own is None else row < own
        alone[one.name] = measured_at(allowed, truth, fixed)
    # Paired, and the last of the loop is the dear member: both decide on the same examples.
    more = (allowed[~truth].astype(float) - routed.allowed[~truth])[:, None]
    every = [np.arange(len(more))]
    varied = resampled_sums(more, every, samples=samples, seed=seed)[:, 0] / len(more)
    if asked == [dear.name]:
        notes.append(f"no cascade that keeps the promise is cheaper than {dear.name} alone")
    else:
        notes += [
            f"{one.name} is never asked: it would save nothing" for one in members if one.name not in asked
        ]
    return CascadeReport(
        cascade=cascade,
        alone=alone,
        result=result,
        saved=saved,
        more_wrong=estimate(float(more.mean()), varied),
        shares=shares_of(cascade, routed),
        candidates=tuple(tried),
        examples=len(truth),
        positives=int(np.count_nonzero(truth)),
        notes=tuple(notes),
    )
