"""What was measured of a cascade, beside its members alone."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool
from numpy import ndarray

from diptych.calibrate.cascade import Cascade, Routed
from diptych.calibrate.slices import rate
from diptych.evaluate import Estimate
from diptych.evaluate.results import estimate, plain_dict
from diptych.metrics.uncertainty import class_rows, resampled_sums


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A candidate, measured on the second half.

    Args:
        level: misses that it was allowed on the first half.
        cost: per example.
        missed: share of positives allowed, and `bound`, the upper bound of that for new examples.
        wrongly_blocked: share of others blocked.
        kept: whether all promises hold.
    """

    level: int
    asked: tuple[str, ...]
    cost: float
    missed: float
    bound: float
    wrongly_blocked: float
    kept: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What one way to decide costs and does, with 95 % intervals.

    Args:
        cost: per example.
        missed: share of positives allowed; `wrongly_blocked`, of others blocked.
    """

    cost: Estimate
    missed: Estimate
    wrongly_blocked: Estimate


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """How many of all examples reach a member, and what it does with them; shares of all examples."""

    name: str
    asked: float
    allowed: float
    blocked: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CascadeReport:
    """A cascade, and its measures on the half that proved it.

    Args:
        alone: each member alone, with the same promise about misses; the dear one is the last.
        result: the cascade.
        saved: share of the dear member's cost that the cascade saves.
        more_wrong: share of negatives that the cascade blocks and the dear member alone would not, minus the
            share that it saves from being blocked.
        shares: of the members that are asked.
        candidates: in the order in which they were tried.
        examples: number of examples of the second half; `positives`, of the positive ones among them.
        notes: what a reader should know.
    """

    cascade: Cascade
    alone: dict[str, Measured]
    result: Measured
    saved: Estimate
    more_wrong: Estimate
    shares: tuple[Share, ...]
    candidates: tuple[Candidate, ...]
    examples: int
    positives: int
    notes: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return JSON values; undefined measures are None."""
        return plain_dict(asdict(self) | {"cascade": self.cascade.as_dict()})


def shares_of(cascade: Cascade, routed: Routed) -> tuple[Share, ...]:
    """What each member of a cascade does, as shares of all examples."""
    return tuple(
        Share(
            name=one.name,
            # Whoever is decided by a later member was asked about by all before it.
            asked=float(np.mean(routed.stage >= number)),
            allowed=float(np.mean((routed.stage == number) & routed.allowed)),
            blocked=float(np.mean((routed.stage == number) & ~routed.allowed)),
        )
        for number, one in enumerate(cascade.stages)
    )


def measured(routed: Routed, truth: Bool[ndarray, " N"], *, samples: int, seed: int = 0) -> Measured:
    """Cost and errors of decisions on labeled examples."""
    # Within each class, as the halves were drawn: positives and negatives cost differently, so letting their
    # shares vary would widen the interval. Rates need no resampling: Wilson's interval has a formula.
    drawn = resampled_sums(routed.cost[:, None], class_rows(truth), samples=samples, seed=seed)[:, 0]
    return measured_at(routed.allowed, truth, estimate(float(routed.cost.mean()), drawn / len(truth)))


def measured_at(allowed: Bool[ndarray, " N"], truth: Bool[ndarray, " N"], cost: Estimate) -> Measured:
    """Errors of decisions on labeled examples, at a known cost."""
    return Measured(cost=cost, missed=rate(allowed, truth), wrongly_blocked=rate(~allowed, ~truth))
