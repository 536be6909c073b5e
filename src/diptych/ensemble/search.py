"""Searches for the weights of members that maximize a measure on labeled rows."""

import heapq
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

STEPS = 3000  # number of evaluations in Vilio's search
EXPLORATION = 0.01  # weight of a part's size against its predicted value


class SearchResult(NamedTuple):
    """Result of a search.

    Args:
        weights: non-negative; they need not sum to one, and are all 0 if no blend beats chance.
        auroc: AUROC of the weighted sum, on the rows of the search.
        evaluation: number of the first evaluation that reached it, counted from 1.
    """

    weights: Float[ndarray, " K"]
    auroc: float
    evaluation: int


def area_under(truth: Bool[ndarray, " N"]) -> Callable[[Float[ndarray, " N"]], float]:
    """Return the AUROC as a function of scores; exact, with ties counted half.

    Many times faster than scikit-learn's `roc_auc_score`, which checks its input in every call.
    """
    pairs = 2 * int(truth.sum()) * int((~truth).sum())

    def area(scores: ndarray) -> float:
        positives, negatives = np.sort(scores[truth]), np.sort(scores[~truth])
        # twice the wins, plus once the ties: integers, so there is no rounding
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
    """Find weights in [0, 1] with Vilio's search (chrisstroemel/Simple); deterministic.

    The search divides the simplex of the origin and the K unit vectors. It first evaluates the corners. Then
    it repeatedly takes the part with the highest expected value, from the values at its corners and its size,
    evaluates an inner point and divides the part there into K + 1 parts. It stops early at a value of 1, the
    maximum.

    Args:
        columns: scores of the members; they are not scaled.
        steps: maximum number of evaluations.
        exploration: weight of the size of a part; larger values explore more.
        area: function that takes the labels and returns the function of scores to maximize.
    """
    measure, corners = area(truth), len(columns) + 1
    points = np.zeros((max(steps, corners), corners))  # weights in the first K columns, value in the last
    points[1:corners, :-1] = np.eye(corners - 1)
    queue: list[tuple[float, _Part]] = []
    # `low` and `high` only widen, which `_promising` relies on.
    best, low, high = 0, math.inf, -math.inf
    for step in range(steps):
        part = None
        if step >= corners:
            if not queue:
                break
            part = _promising(queue, high - low)
            points[step] = part.probe
        # A sum and not a matrix product: BLAS may round equal rows differently, which creates false order.
        value = points[step, -1] = measure((points[step, :-1, None] * columns).sum(axis=0))
        low = min(low, value)
        # Strictly: of equal values, the first evaluation wins, as in the original.
        if value > high:
            best, high = step, value
        if high == 1:
            break
        if part is not None:
            # K+1 K+1: row i is a child with the parent's corners, corner i replaced by the new point
            indices = np.where(np.eye(corners, dtype=bool), step, part.corners)
            contents = [part.content * share for share in part.shares.tolist()]
        elif step == corners - 1:  # all corners have values: the whole simplex is the first part
            indices, contents = np.arange(corners)[None], [1.0]
        else:
            continue
        for child in _parts(points, indices, contents, high - low, exploration):
            heapq.heappush(queue, child)
    return SearchResult(points[best, :-1].copy(), high, best + 1)


def greedy_search(
    columns: Float[ndarray, "K N"], truth: Bool[ndarray, " N"], *, rounds: int = 50
) -> SearchResult:
    """Find weights by forward selection with replacement (Caruana et al., 2004); they sum to one.

    Each round adds the member that improves the sum most; a member may be added several times. The result is
    the best round, the earliest of equal ones.
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
    """A simplex that the search may divide.

    Attributes:
        corners: rows of its corners in `points`.
        probe: inner point where it is evaluated and divided.
        shares: fractions of its content that its children get.
        content: volume relative to the whole simplex.
        predicted: interpolated value at `probe`.
        size: at most 0, lower for smaller parts; added to `predicted` in units of `spread`.
        spread: range of all values when the key was computed.
    """

    __slots__ = ("content", "corners", "predicted", "probe", "shares", "size", "spread")

    corners: Int[ndarray, " V"]
    probe: Float[ndarray, " V"]
    shares: Float[ndarray, " V"]
    content: float
    predicted: float
    size: float
    spread: float

    def __lt__(self, other: "_Part") -> bool:
        return False  # equal keys in the heap compare parts, which have no order of their own

    def key(self, spread: float) -> float:
        """Return the sort key for a range of values; the smallest key is divided first."""
        self.spread = spread
        return -(self.predicted + self.size * spread)


def _promising(queue: list[tuple[float, _Part]], spread: float) -> _Part:
    _, part = heapq.heappop(queue)
    # Keys depend on the range of values, which only grows. Instead of sorting the whole heap anew, update the
    # key of the first part until the first one is up to date.
    while spread > part.spread:
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
    """Return the parts with these corners, computed together; degenerate parts are left out."""
    count = corners.shape[1]
    vertices = points[corners]  # P V K+1
    places = vertices[..., :-1]
    centers = vertices.sum(axis=1) / count  # P K+1
    reach = np.sqrt(np.square(places - centers[:, None, :-1]).sum(axis=2))
    with np.errstate(divide="ignore", invalid="ignore"):  # degenerate parts give nan, and are left out below
        # near corners get less weight, which moves the probe from the center toward far corners
        shares = reach / reach.sum(axis=1, keepdims=True)
        probes = (shares[..., None] * vertices).sum(axis=1)
        near = 1 / np.sqrt(np.square(places - probes[:, None, :-1]).sum(axis=2))  # weights: inverse distances
        predicted = (near * vertices[..., -1]).sum(axis=1) / near.sum(axis=1)
    parts = []
    for row, content in enumerate(contents):
        if content > 0 and math.isfinite(predicted[row]):
            part = _Part()
            part.corners, part.probe, part.shares = corners[row], probes[row], shares[row]
            part.content, part.predicted = content, float(predicted[row])
            # logarithm to base K + 1: with equal shares, minus the number of divisions down to this part
            part.size = exploration * math.log(content, count)
            parts.append((part.key(spread), part))
    return parts
