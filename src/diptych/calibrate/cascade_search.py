"""The cheapest bands of a cascade for given numbers of misses and wrong blocks on labeled examples.

Optimal thresholds lie at scores: an `allow` may rise to the next positive example without another miss, and a
`block` fall to the next negative one without another wrong block. All combinations of these are tried. If
there are more than the budget allows, each member keeps some of them, most of them where few errors are.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

# So that a search tries some ten million combinations: with one member before the last 128 * 128 bands times
# 256 thresholds, with two (24 * 24) ** 2 * 64, with three (10 * 10) ** 3 * 32.
CANDIDATES = {0: (4096, 4096), 1: (128, 256), 2: (24, 64), 3: (10, 32)}
"""Most thresholds per end of a band, and of the last member, by the number of members before it."""
MOST = 4  # members


@dataclass(frozen=True, slots=True, kw_only=True)
class Bands:
    """A candidate cascade.

    Args:
        asked: numbers of the members that are asked, ascending; the last one decides.
        bands: allow and block of each of them, infinite where there is none.
        cost: of all examples together.
    """

    asked: tuple[int, ...]
    bands: tuple[tuple[float, float], ...]
    cost: float


@dataclass(kw_only=True)
class _Problem:
    """What does not change during a search.

    Args:
        lows: candidates for `allow`, by member; `highs`, for `block`.
        finals: thresholds of the last member.
        best: for each number of misses, the best bands so far.
    """

    scores: Float[ndarray, "K N"]
    truth: Bool[ndarray, " N"]
    costs: Float[ndarray, " K"]
    wrong: int
    levels: Sequence[int]
    best: dict[int, Bands] = field(default_factory=dict)
    lows: list[Float[ndarray, " L"]] = field(default_factory=list)
    highs: list[Float[ndarray, " H"]] = field(default_factory=list)
    finals: Float[ndarray, " F"] = field(default_factory=lambda: np.empty(0))

    def prepare(self, before: int) -> None:
        """Choose the candidates for cascades with so many members before the last."""
        most, last = CANDIDATES[before]
        positives, negatives = self.scores[:, self.truth], self.scores[:, ~self.truth]
        # A little beyond the extreme scores: a member that allows all positives that reach it, or blocks all
        # negatives.
        above, below = (
            np.nextafter(positives.max(axis=1), np.inf),
            np.nextafter(negatives.min(axis=1), -np.inf),
        )
        # Ascending, and first the end that allows nothing, so that a search may stop at the first that is too
        # bold.
        self.lows = [
            np.concatenate(([-np.inf], _thinned(np.append(np.unique(row), end), most)))
            for row, end in zip(positives, above, strict=True)
        ]
        self.highs = [
            np.concatenate(([np.inf], _thinned(np.append(np.unique(row)[::-1], end), most)))
            for row, end in zip(negatives, below, strict=True)
        ]
        self.finals = _thinned(np.unique(positives[-1]), last)


@dataclass(frozen=True, slots=True, kw_only=True)
class _State:
    """What members before have left: rows without a decision, and what was spent."""

    rest: Bool[ndarray, " N"]
    misses: int
    wrong: int
    cost: float
    asked: tuple[int, ...] = ()
    bands: tuple[tuple[float, float], ...] = ()


def cheapest(
    scores: Float[ndarray, "K N"],
    truth: Bool[ndarray, " N"],
    costs: Float[ndarray, " K"],
    *,
    wrong: int,
    levels: Sequence[int],
) -> dict[int, Bands]:
    """Find the cheapest cascade for each number of misses; the last member always decides.

    Args:
        scores: one row per member, in the order in which they are asked.
        truth: of both classes.
        costs: of asking each about one example.
        wrong: largest number of negative examples that are blocked.
        levels: largest numbers of positive examples that are allowed.

    Returns:
        The best by level; levels that no cascade reaches are absent.
    """
    problem = _Problem(scores=scores, truth=truth, costs=costs, wrong=wrong, levels=sorted(levels))
    for count in range(len(scores)):
        problem.prepare(count)
        for chosen in combinations(range(len(scores) - 1), count):
            start = _State(rest=np.ones(len(truth), dtype=bool), misses=0, wrong=0, cost=0.0)
            for state in _walk(problem, start, chosen[:-1]):
                _last_two(problem, state, chosen[-1] if chosen else None)
    return {level: _centered(bands, scores) for level, bands in sorted(problem.best.items())}


def last_alone(scores: Float[ndarray, " N"], truth: Bool[ndarray, " N"], misses: int) -> float:
    """The highest threshold of one member below which so many positive examples score."""
    # Of the positives 0.2 0.5 0.7, two score below the third: the threshold 0.7 misses two.
    return float(np.sort(scores[truth])[misses])


def allowed_by(bands: Bands, scores: Float[ndarray, "K N"]) -> Bool[ndarray, " N"]:
    """Which examples are allowed; the others are blocked."""
    rest, allowed = np.ones(scores.shape[1], dtype=bool), np.zeros(scores.shape[1], dtype=bool)
    for member, (low, high) in zip(bands.asked, bands.bands, strict=True):
        below = scores[member] < low
        allowed |= rest & below
        rest &= ~below & (scores[member] <= high)
    return allowed


def _walk(problem: _Problem, state: _State, members: Sequence[int]) -> Iterator[_State]:
    """Every combination of the bands of these members that keeps within the limits."""
    if not members:
        yield state
        return
    member, *later = members
    row, truth = problem.scores[member], problem.truth
    for low in problem.lows[member]:
        allowed = state.rest & (row < low)
        misses = state.misses + int(np.count_nonzero(allowed & truth))
        if misses > problem.levels[-1]:
            break  # the candidates ascend
        for high in problem.highs[member]:
            blocked = state.rest & (row > high) & ~allowed
            wrong = state.wrong + int(np.count_nonzero(blocked & ~truth))
            # These descend: the next would block more.
            if wrong > problem.wrong:
                break
            yield from _walk(
                problem,
                _State(
                    rest=state.rest & ~allowed & ~blocked,
                    misses=misses,
                    wrong=wrong,
                    cost=state.cost + float(problem.costs[member]) * int(np.count_nonzero(state.rest)),
                    asked=(*state.asked, member),
                    bands=(*state.bands, (float(low), float(high))),
                ),
                later,
            )


def _last_two(problem: _Problem, state: _State, member: int | None) -> None:
    """Try all bands of a member together with all thresholds of the last one, as tables of counts."""
    last = len(problem.scores) - 1
    row = problem.scores[last if member is None else member]
    lows, highs = ([-np.inf], [np.inf]) if member is None else (problem.lows[member], problem.highs[member])
    # One row per candidate: [L, N] and [H, N], and [F, N] for the last member.
    below, upto = row < np.reshape(lows, (-1, 1)), row <= np.reshape(highs, (-1, 1))
    final = problem.scores[last] < problem.finals[:, None]

    def counts(rows: Bool[ndarray, " N"]) -> tuple[ndarray, ndarray, ndarray]:
        """Of these rows: allowed by the member, in its band, and of those below each final threshold."""
        kept = (state.rest & rows).astype(np.float32)
        # Products of 0 and 1: float32 counts exactly up to 2 ** 24 rows, and uses fast multiplication.
        thresholds = (final * kept).T.astype(np.float32)
        low, high = below.astype(np.float32), upto.astype(np.float32)
        # Where block lies below allow, nothing is inside, and the difference is negative.
        inside = np.maximum((high @ kept)[None, :] - (low @ kept)[:, None], 0)
        under = np.maximum((high @ thresholds)[None] - (low @ thresholds)[:, None], 0)
        return low @ kept, inside, under

    # Shapes: allowed by the member [L], in its band [L, H], and of those below a final threshold [L, H, F].
    positives, negatives = counts(problem.truth), counts(~problem.truth)
    misses = state.misses + positives[0][:, None, None] + positives[2]
    # Blocked by the member: the negatives that it neither allows nor hands on.
    outside = np.count_nonzero(state.rest & ~problem.truth) - negatives[0][:, None] - negatives[1]
    wrong = state.wrong + outside[..., None] + negatives[1][..., None] - negatives[2]
    # Of each band, the fewest misses that the last member can reach within the wrong blocks.
    needed = np.where(wrong <= problem.wrong, misses, np.inf)
    fewest = needed.min(axis=2)
    own = 0.0 if member is None else float(problem.costs[member]) * np.count_nonzero(state.rest)
    cost = state.cost + own + float(problem.costs[last]) * (positives[1] + negatives[1])
    for level in problem.levels:
        reached = np.where(fewest <= level, cost, np.inf)
        at = np.unravel_index(int(np.argmin(reached)), reached.shape)
        known = problem.best.get(level)
        if not np.isfinite(reached[at]) or (known is not None and known.cost <= reached[at]):
            continue
        # Fewest misses, then fewest wrong blocks: the promise is about the former.
        ties = np.flatnonzero(needed[at] == fewest[at])
        threshold = float(problem.finals[ties[np.argmin(wrong[at][ties])]])
        asked, bands = state.asked, state.bands
        if member is not None:
            asked, bands = (*asked, member), (*bands, (float(lows[at[0]]), float(highs[at[1]])))
        problem.best[level] = Bands(
            asked=(*asked, last),
            bands=(*bands, (threshold, float(np.nextafter(threshold, -np.inf)))),
            cost=float(reached[at]),
        )


def _centered(bands: Bands, scores: Float[ndarray, "K N"]) -> Bands:
    """The same decisions here, with each threshold in the middle between two scores.

    A threshold at the lowest positive score would miss the next one that is a little lower.
    """
    moved = []
    for member, (low, high) in zip(bands.asked, bands.bands, strict=True):
        empty = high < low
        below, above = scores[member][scores[member] < low], scores[member][scores[member] > high]
        # Between neighboring floats there is no middle: rounding gives one of them, and could turn a
        # decision.
        if np.isfinite(low) and len(below) and below.max() < (middle := (low + below.max()) / 2):
            low = float(middle)
        if np.isfinite(high) and len(above) and (middle := (high + above.min()) / 2) < above.min():
            high = float(middle)
        moved.append((low, float(np.nextafter(low, -np.inf)) if empty else high))
    return replace(bands, bands=tuple(moved))


def _thinned(values: Float[ndarray, " N"], most: int) -> Float[ndarray, " M"]:
    """At most so many of the values, the first and the last among them, and more of the first ones."""
    if len(values) <= most:
        return values
    # Squares are dense near 0: the first tenth of the places covers 1 % of the values, the last one 19 %.
    places = np.linspace(0, 1, most) ** 2 * (len(values) - 1)
    return np.asarray(values[np.unique(np.round(places).astype(int))])
