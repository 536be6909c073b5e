"""Bands of scores that go to people: by cost, and by the number of reviews that people can do."""

from dataclasses import dataclass
from pathlib import Path
from typing import NotRequired

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray
from typing_extensions import TypedDict

from diptych.documents import closed, read_yaml
from diptych.errors import ConfigError

Band = tuple[float | None, float | None]
"""Scores below the first are allowed, scores above the second are blocked; None means that none is."""

# Thresholds below and above all probabilities: everything is blocked, or everything allowed.
BELOW, ABOVE = float(np.nextafter(0.0, -1.0)), float(np.nextafter(1.0, 2.0))


@closed
class CostNode(TypedDict):
    """Content of a file of costs."""

    miss: float
    wrong_block: float
    review: float
    reviewer_misses: NotRequired[float]
    reviewer_blocks: NotRequired[float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """Costs of one example, in any unit.

    Args:
        miss: of a positive example that is allowed.
        wrong_block: of a negative example that is blocked.
        review: of one look by a person.
        reviewer_misses: probability that a person allows a positive example.
        reviewer_blocks: probability that a person blocks a negative example.

    Raises:
        ConfigError: a cost is not positive and finite (`review` may be 0), or a probability is not in [0, 1).
    """

    miss: float
    wrong_block: float
    review: float
    reviewer_misses: float = 0.0
    reviewer_blocks: float = 0.0

    def __post_init__(self) -> None:
        for name in ("miss", "wrong_block", "review"):
            value = getattr(self, name)
            if not (np.isfinite(value) and (value > 0 or (value == 0 and name == "review"))):
                raise ConfigError(f"costs: {name} is {value}; expected a positive number.")
        for name in ("reviewer_misses", "reviewer_blocks"):
            if not 0 <= (value := getattr(self, name)) < 1:
                raise ConfigError(f"costs: {name} is {value}; expected a probability below 1.")

    @classmethod
    def load(cls, path: Path) -> "Costs":
        """Read a YAML file with the fields of this class.

        Raises:
            FormatError: a field is missing, unknown or no number.
            ConfigError: a value is impossible.
        """
        advice = "Expected miss, wrong_block and review, as numbers."
        node = read_yaml(path, CostNode, advice=advice)
        try:
            return cls(**node)
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from error

    @property
    def single(self) -> float:
        """The probability from which blocking is cheaper than allowing."""
        return self.wrong_block / (self.wrong_block + self.miss)

    @property
    def band(self) -> tuple[float, float]:
        """Calibrated probabilities up to which to allow and from which to block (Chow, 1970).

        Both are `single` if no review pays: a person costs more than the better of the two other actions,
        whatever the probability.
        """
        # With probability p, allowing costs p miss, and a review costs review + p missed + (1 - p) wrong;
        # `allow` is the p at which both are equal. Blocking costs (1 - p) wrong_block; `block` is found
        # likewise.
        wrong, missed = self.reviewer_blocks * self.wrong_block, self.reviewer_misses * self.miss
        allow = (self.review + wrong) / (self.miss - missed + wrong)
        block = 1 - (self.review + missed) / (self.wrong_block - wrong + missed)
        return (allow, block) if allow < block else (self.single, self.single)

    @property
    def review_pays(self) -> bool:
        """Whether a person is the cheapest action for some probability."""
        return self.band[0] < self.band[1]

    def of(
        self, truth: Bool[ndarray, " N"], allowed: Bool[ndarray, " N"], blocked: Bool[ndarray, " N"]
    ) -> Float[ndarray, " N"]:
        """Cost of each example under these actions; what is neither allowed nor blocked is reviewed."""
        people = np.where(truth, self.reviewer_misses * self.miss, self.reviewer_blocks * self.wrong_block)
        cost = np.where(allowed, truth * self.miss, self.review + people)
        return np.asarray(np.where(blocked, ~truth * self.wrong_block, cost))


def actions(scores: Float[ndarray, " N"], band: Band) -> tuple[Bool[ndarray, " N"], Bool[ndarray, " N"]]:
    """Which scores are allowed, and which are blocked."""
    allow, block = band
    allowed = np.zeros(len(scores), bool) if allow is None else scores < allow
    blocked = np.zeros(len(scores), bool) if block is None else scores > block
    return allowed, blocked


def capacity_band(
    scores: Float[ndarray, " N"], truth: Bool[ndarray, " N"], *, share: float, costs: Costs
) -> Band:
    """The band with the least cost of misses and wrong blocks that sends at most a share to people.

    The cost of reviews does not count: the capacity is given. O(N log N).

    Args:
        share: of the examples, in [0, 1].
    """
    order = np.argsort(scores, kind="stable")
    values, positives = scores[order], np.concatenate(([0], np.cumsum(truth[order])))
    count = len(values)
    # Equal scores are treated alike, so a band begins and ends where the score changes.
    # Of the sorted scores 0.1 0.4 0.4 0.9 the edges are 0 1 3 4.
    edges = np.concatenate(([0], np.flatnonzero(np.diff(values)) + 1, [count]))
    # 0.29 * 100 is a little below 29 in floating point, and one review would be lost.
    most = int(np.floor(share * count + 1e-9))
    # More reviews never add misses or wrong blocks: each band is as wide as the capacity allows.
    # The end is the last edge that is at most `most` scores after the start.
    ends = edges[np.searchsorted(edges, edges + most, side="right") - 1]
    negatives_from = (count - positives[-1]) - (ends - positives[ends])
    # A band from edge i to j: positives before i are missed, negatives from j on are wrongly blocked.
    cost = costs.miss * positives[edges] + costs.wrong_block * negatives_from
    best = int(np.argmin(cost))
    start, end = int(edges[best]), int(ends[best])
    return _between(values, start), _between(values, end, high=True)


def _between(values: Float[ndarray, " N"], index: int, *, high: bool = False) -> float | None:
    """A threshold between the sorted values at `index - 1` and `index`."""
    # Nothing beyond the band: no threshold. Everything beyond it: one outside of all probabilities.
    if index == (len(values) if high else 0):
        return None
    if index in (0, len(values)):
        return BELOW if high else ABOVE
    return float((values[index - 1] + values[index]) / 2)
