"""Weights of members that fit labeled rows best."""

import heapq
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

STEPS = 3000  # evaluations of Vilio's search
EXPLORATION = 0.01


class SearchResult(NamedTuple):
    """What a search found.

    Args:
        weights: not negative; they need not sum to one, and all are 0 where no blend beats chance.
        auroc: of the weighted sum on the rows of the search.
        evaluation: number of the first evaluation that reached it, from 1.
    """

    weights: Float[ndarray, " K"]
    auroc: float
    evaluation: int


def area_under(truth: Bool[ndarray, " N"]) -> Callable[[Float[ndarray, " N"]], float]:
    """AUROC for fixed rows: exact, ties counting half, many times faster than one call of scikit-learn."""
    pairs = 2 * int(truth.sum()) * int((~truth).sum())

    def area(scores: ndarray) -> float:
        positives, negatives = np.sort(scores[truth]), np.sort(scores[~truth])
        beaten = negatives.searchsorted(positives) + negatives.searchsorted(positives, side="right")
        return int(beaten.sum()) / pairs

    return area


def simplex_search(
    columns: Float[ndarray, "K N"],
    truth: Bool[ndarray, " N"],
    *,
    steps: int = STEPS,
    exploration: float = EXPLORATION,
    area: Callable[[ndarray], Callable[[ndarray], float]] = area_under,
) -> SearchResult:
    """The weights in [0, 1] that Vilio's search finds (chrisstroemel/Simple), deterministic.

    It divides the simplex of the origin and the K unit vectors. First come the corners; then always the part
    that promises most, by the values of its corners and its size, is tried in one inner point and divided
    there into K + 1 parts. A value of 1 ends the search, which nothing can beat.

    Args:
        columns: scores of the members; they are not scaled.
        steps: number of evaluations.
        exploration: weight of the size of a part.
        area: from the truth to the function of scores that is maximized.
    """
    measure, corners = area(truth), len(columns) + 1
    points = np.zeros((max(steps, corners), corners))  # a place in the first K columns, its value in the last
    points[1:corners, :-1] = np.eye(corners - 1)
    queue: list[tuple[float, _Part]] = []
    best, low, high = 0, math.inf, -math.inf
    for step in range(steps):
        part = None
        if step >= corners:
            if not queue:
                break
            part = _promising(queue, high - low)
            points[step] = part.probe
        # added row by row, as equal rows must keep equal sums; a matrix product does not promise that
        value = points[step, -1] = measure((points[step, :-1, None] * columns).sum(axis=0))
        low = min(low, value)
        if value > high:
            best, high = step, value
        if high == 1:
            break
        if part is not None:
            indices = np.where(np.eye(corners, dtype=bool), step, part.corners)
            contents = [part.content * share for share in part.shares.tolist()]
        elif step == corners - 1:
            indices, contents = np.arange(corners)[None], [1.0]
        else:
            continue
        for child in _parts(points, indices, contents, high - low, exploration):
            heapq.heappush(queue, child)
    return SearchResult(points[best, :-1].copy(), high, best + 1)


def greedy_search(
    columns: Float[ndarray, "K N"], truth: Bool[ndarray, " N"], *, rounds: int = 50
) -> SearchResult:
    """Forward selection with replacement (Caruana et al., 2004); weights sum to one.

    In every round the member joins, perhaps again, whose addition to the sum is best; the best round counts,
    the earliest of equal ones.
    """
    area, total = area_under(truth), np.zeros(columns.shape[1])
    counts, best = np.zeros(len(columns)), SearchResult(np.zeros(len(columns)), -1.0, 0)
    for number in range(1, rounds + 1):
        values = [area(total + column) for column in columns]
        chosen = int(np.argmax(values))
        total += columns[chosen]
        counts[chosen] += 1
        if values[chosen] > best.auroc:
            best = SearchResult(counts / number, values[chosen], number * len(columns))
    return best


class _Part:
    """A simplex that may be divided, in a heap of (key, part); it has no order of its own."""

    __slots__ = ("content", "corners", "predicted", "probe", "shares", "size", "spread")

    corners: Int[ndarray, " V"]
    probe: Float[ndarray, " V"]
    shares: Float[ndarray, " V"]
    content: float
    predicted: float
    size: float
    spread: float

    def __lt__(self, other: "_Part") -> bool:
        return False

    def key(self, spread: float) -> float:
        """What sorts it, the smallest first, by the range of values seen so far."""
        self.spread = spread
        return -(self.predicted + self.size * spread)


def _promising(queue: list[tuple[float, _Part]], spread: float) -> _Part:
    _, part = heapq.heappop(queue)
    while spread > part.spread:  # its key is of a time when values differed less
        key = part.key(spread)
        if queue and key > queue[0][0]:
            _, part = heapq.heappushpop(queue, (key, part))
    return part


def _parts(
    points: Float[ndarray, "S V"],
    corners: Int[ndarray, "P V"],
    contents: Sequence[float],
    spread: float,
    exploration: float,
) -> list[tuple[float, _Part]]:
    """Parts with these corners, in one go; those too thin to compute with are left out."""
    count = corners.shape[1]
    vertices = points[corners]  # P V K+1
    places = vertices[..., :-1]
    centers = vertices.sum(axis=1) / count
    reach = np.sqrt(np.square(places - centers[:, None, :-1]).sum(axis=2))
    with np.errstate(divide="ignore", invalid="ignore"):
        shares = reach / reach.sum(axis=1, keepdims=True)
        probes = (shares[..., None] * vertices).sum(axis=1)
        near = 1 / np.sqrt(np.square(places - probes[:, None, :-1]).sum(axis=2))
        predicted = (near * vertices[..., -1]).sum(axis=1) / near.sum(axis=1)
    found = []
    for row, content in enumerate(contents):
        if content > 0 and math.isfinite(predicted[row]):
            part = _Part()
            part.corners, part.probe, part.shares = corners[row], probes[row], shares[row]
            part.content, part.predicted = content, float(predicted[row])
            part.size = exploration * math.log(content, count)
            found.append((part.key(spread), part))
    return found
