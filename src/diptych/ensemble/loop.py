"""Vilio's two-round loop over blends of blends, and the building blocks of fitted blends."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from diptych.ensemble.arithmetic import OURS, Arithmetic, Scores
from diptych.ensemble.search import STEPS, SearchResult, simplex_search
from diptych.metrics import auroc

Columns = Mapping[str, Float[ndarray, "K _"]]
ROUNDS, KEPT = 2, 5  # of Vilio's loop: rounds, and columns that the second round keeps
BLENDS = ("(mean)", "(mean square)", "(mean rank)", "(simplex)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One round of a fit.

    Args:
        aurocs: AUROC on dev by column.
        dropped: columns with the lowest AUROC, which this round does not use.
        weights: weights of the other columns; they sum to one. Those of `stack` are coefficients of log-odds.
        auroc: AUROC on dev of the result.
    """

    aurocs: dict[str, float]
    dropped: tuple[str, ...]
    weights: dict[str, float]
    auroc: float


def one_search(
    columns: Columns,
    truth: Bool[ndarray, " N"],
    *,
    dev: str,
    names: Sequence[str],
    search: Callable[[ndarray, ndarray], SearchResult],
) -> tuple[Scores, tuple[Round, ...]]:
    """Compute the weighted mean of the columns with the weights of a search; returns scores by split.

    Args:
        columns: scores by split, one row per member.
        names: names of the members.
    """
    weights = normalized(search(columns[dev], truth).weights)
    scores = {split: weighted_mean(values, weights) for split, values in columns.items()}
    result = Round(
        aurocs={name: auroc(truth, row) for name, row in zip(names, columns[dev], strict=True)},
        dropped=(),
        weights=dict(zip(names, weights.tolist(), strict=True)),
        auroc=auroc(truth, scores[dev]),
    )
    return scores, (result,)


def two_round_loop(
    columns: Columns,
    truth: Bool[ndarray, " N"],
    *,
    dev: str,
    names: Sequence[str],
    arithmetic: Arithmetic = OURS,
    steps: int = STEPS,
) -> tuple[Scores, tuple[Round, ...]]:
    """Run Vilio's loop over blends of blends, as `fit_blend` describes; returns scores by split.

    The original also stops if the AUROC changes by at most 1e-4. It compares the first round with 0, so with
    two rounds this never happens.

    Args:
        columns: scores by split, one row per member.
        names: names of the members.
        steps: number of evaluations of each simplex search.
    """
    search = partial(simplex_search, steps=steps, area=arithmetic.area)
    current, labels = dict(columns), list(names)
    rounds: list[Round] = []
    while True:
        areas = [auroc(truth, row) for row in current[dev]]
        worst = sorted(range(len(areas)), key=areas.__getitem__)  # stable: of equal columns, drops the first
        out = worst[: max(0, len(areas) - KEPT)] if rounds else []
        # In the order of the columns: sums of floats depend on it.
        keep = sorted(set(worst) - set(out))
        current = {split: values[keep] for split, values in current.items()}
        kept = [labels[row] for row in keep]
        scores, [result] = one_search(current, truth, dev=dev, names=kept, search=search)
        rounds.append(
            replace(
                result,
                aurocs=dict(zip(labels, areas, strict=True)),
                dropped=tuple(labels[row] for row in out),
            )
        )
        if len(rounds) == ROUNDS:
            return scores, tuple(rounds)
        # all members again, not only those kept, and the blends of this round
        current = {
            split: np.stack(
                (
                    *columns[split],
                    *_averages(values, arithmetic.reference(values, current[dev])),
                    scores[split],
                )
            )
            for split, values in current.items()
        }
        labels = [*names, *BLENDS]


def apply_rounds(
    columns: Float[ndarray, "K N"],
    dev: Float[ndarray, "K M"],
    rounds: Sequence[Round],
    *,
    names: Sequence[str],
) -> Float[ndarray, " N"]:
    """Score new rows by the rounds of a fit of `two_round_loop` or `one_search`, without any search.

    Args:
        columns: scores of the new rows, one row per member.
        dev: scores of the rows of the fit, which define scales and ranks.
        names: names of the members.
    """
    first, *more = rounds
    scores = _weighted(dict(zip(names, columns, strict=True)), first)
    for later in more:
        blends = (*_averages(columns, dev), scores)
        named = dict(zip((*names, *BLENDS), (*columns, *blends), strict=True))
        scores = _weighted(named, later)
    return scores


def _weighted(columns: Mapping[str, ndarray], fitted: Round) -> Float[ndarray, " N"]:
    # A round lists the columns that it kept, in their order.
    kept = np.stack([columns[name] for name in fitted.weights])
    return weighted_mean(kept, np.array([*fitted.weights.values()]))


def normalized(weights: Float[ndarray, " K"]) -> Float[ndarray, " K"]:
    """Scale weights to sum to one; if all are 0 (no blend beats chance), return equal weights."""
    # The origin is one of the search's corners, so all weights may be 0.
    return weights / weights.sum() if weights.sum() > 0 else np.full(len(weights), 1 / len(weights))


def weighted_mean(columns: Float[ndarray, "K N"], weights: Float[ndarray, " K"]) -> Float[ndarray, " N"]:
    """Return the weighted sum of the columns."""
    # not `weights @ columns`: BLAS may add rows in different orders, so that equal rows get different sums
    return np.asarray((weights[:, None] * columns).sum(axis=0))


def ranks_among(scores: Float[ndarray, " N"], reference: Float[ndarray, " M"]) -> Float[ndarray, " N"]:
    """Return the rank of each score among the reference, from 1 to M; ties get their mean rank."""
    among = np.sort(reference)
    # mean of the first and last rank of equal scores, counted from 1
    middle = (among.searchsorted(scores) + among.searchsorted(scores, side="right") + 1) / 2
    return np.asarray(middle.clip(1, len(among)))


def _averages(
    columns: Float[ndarray, "K N"], reference: Float[ndarray, "K M"]
) -> tuple[Float[ndarray, " N"], Float[ndarray, " N"], Float[ndarray, " N"]]:
    """Return mean and mean square of scores scaled to [0, 1] by the reference, and mean rank among it."""
    equal = np.full(len(columns), 1 / len(columns))
    low, high = reference.min(axis=1, keepdims=True), reference.max(axis=1, keepdims=True)
    span = np.where(high > low, high - low, 1)  # constant columns become 0 instead of nan
    scaled = ((columns - low) / span).clip(0, 1)
    ranks = np.stack([ranks_among(row, among) for row, among in zip(columns, reference, strict=True)])
    # the order of operations is Vilio's, to get the same rounding
    mean_rank = (equal[:, None] * ranks / reference.shape[1]).sum(axis=0)
    return weighted_mean(scaled, equal), weighted_mean(scaled**2, equal), mean_rank
