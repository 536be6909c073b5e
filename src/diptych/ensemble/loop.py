"""Vilio's rounds over blends of blends, and what every fitted blend is made of."""

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
ROUNDS, KEPT = 2, 5  # of Vilio's loop; columns that survive into the second
BLENDS = ("(mean)", "(mean square)", "(mean rank)", "(simplex)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One round of a fit.

    Args:
        aurocs: of each column on dev.
        dropped: columns with the lowest AUROC, which this round does without.
        weights: of the others; they sum to one.
        auroc: of their weighted mean on dev.
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
    """The weighted mean with the weights that a search finds; scores of every split.

    Args:
        columns: by split; `names` are those of the rows.
    """
    weights = normalized(search(columns[dev], truth).weights)
    scores = {split: weighted_mean(values, weights) for split, values in columns.items()}
    found = Round(
        aurocs={name: auroc(truth, row) for name, row in zip(names, columns[dev], strict=True)},
        dropped=(),
        weights=dict(zip(names, weights.tolist(), strict=True)),
        auroc=auroc(truth, scores[dev]),
    )
    return scores, (found,)


def two_round_loop(
    columns: Columns,
    truth: Bool[ndarray, " N"],
    *,
    dev: str,
    names: Sequence[str],
    arithmetic: Arithmetic = OURS,
    steps: int = STEPS,
) -> tuple[Scores, tuple[Round, ...]]:
    """Vilio's loop over blends of blends (`fit_blend` says what it does); scores of every split.

    The original also ends when the AUROC changes by at most 1e-4, which between 0 and the first round it
    never does.

    Args:
        columns: by split; `names` are those of the rows.
        steps: of each simplex search.
    """
    search = partial(simplex_search, steps=steps, area=arithmetic.area)
    current, labels = dict(columns), list(names)
    rounds: list[Round] = []
    while True:
        areas = [auroc(truth, row) for row in current[dev]]
        worst = sorted(range(len(areas)), key=areas.__getitem__)  # the first of equal ones is worse
        out = worst[: max(0, len(areas) - KEPT)] if rounds else []
        keep = sorted(set(worst) - set(out))
        current = {split: values[keep] for split, values in current.items()}
        kept = [labels[row] for row in keep]
        scores, [found] = one_search(current, truth, dev=dev, names=kept, search=search)
        rounds.append(
            replace(
                found,
                aurocs=dict(zip(labels, areas, strict=True)),
                dropped=tuple(labels[row] for row in out),
            )
        )
        if len(rounds) == ROUNDS:
            return scores, tuple(rounds)
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


def normalized(found: Float[ndarray, " K"]) -> Float[ndarray, " K"]:
    """Weights that sum to one; equal ones where the search found that nothing beats chance."""
    return found / found.sum() if found.sum() > 0 else np.full(len(found), 1 / len(found))


def weighted_mean(columns: Float[ndarray, "K N"], weights: Float[ndarray, " K"]) -> Float[ndarray, " N"]:
    """Added column by column, so that equal rows keep equal sums."""
    return np.asarray((weights[:, None] * columns).sum(axis=0))


def ranks_among(scores: Float[ndarray, " N"], reference: Float[ndarray, " M"]) -> Float[ndarray, " N"]:
    """Rank of each score among the reference, from 1 to M, in the middle of equal ones."""
    among = np.sort(reference)
    middle = (among.searchsorted(scores) + among.searchsorted(scores, side="right") + 1) / 2
    return np.asarray(middle.clip(1, len(among)))


def _averages(
    columns: Float[ndarray, "K N"], reference: Float[ndarray, "K M"]
) -> tuple[Float[ndarray, " N"], Float[ndarray, " N"], Float[ndarray, " N"]]:
    """Mean and mean square of scores scaled to [0, 1], and mean rank; scale and ranks of the reference."""
    equal = np.full(len(columns), 1 / len(columns))
    low, high = reference.min(axis=1, keepdims=True), reference.max(axis=1, keepdims=True)
    span = np.where(high > low, high - low, 1)
    scaled = ((columns - low) / span).clip(0, 1)
    ranks = np.stack([ranks_among(row, among) for row, among in zip(columns, reference, strict=True)])
    mean_rank = (equal[:, None] * ranks / reference.shape[1]).sum(axis=0)  # rounded in this order in Vilio
    return weighted_mean(scaled, equal), weighted_mean(scaled**2, equal), mean_rank
