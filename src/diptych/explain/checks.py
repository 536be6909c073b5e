"""Whether explanations can be believed: removal curves, and what is left of them without the weights.

Removal: what counts most is hidden first (deletion) or shown first (insertion; Petsiuk and others, 2018).
Sanity: with shuffled weights, an explanation must become another one (Adebayo and others, 2018,
https://arxiv.org/abs/1810.03292), or it explains the input and not the model.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import nn

from diptych.explain.evidence import Evidence
from diptych.explain.shapley import shapley
from diptych.explain.variants import Variants, Varied, probability
from diptych.predict import Predictor

SHARES = np.linspace(0, 1, 11)  # of the players that are hidden or shown; texts have different lengths
ORDERS = 3  # random orders to compare with
STAGES = ("head", "upper half", "all")
WEIGHTED = (nn.Linear, nn.Embedding, nn.Conv1d, nn.Conv2d)
METHODS = ("Shapley values", "attention relevance")
CHANCE = "random order"


@dataclass(frozen=True, slots=True, kw_only=True)
class Removal:
    """Probability of the explained class while more and more is hidden, or shown.

    Args:
        deletion: with these `SHARES` hidden, what counts most first.
        insertion: with these `SHARES` shown, what counts most first.
    """

    deletion: Float[ndarray, " 11"]
    insertion: Float[ndarray, " 11"]

    @property
    def areas(self) -> tuple[float, float]:
        """Areas under both curves, in [0, 1]."""
        return float(np.trapezoid(self.deletion, SHARES)), float(np.trapezoid(self.insertion, SHARES))


def removal(variants: Varied, why: Evidence, *, seed: int = 0) -> dict[str, Removal]:
    """Return the curves of each method, and the means of random orders, by name.

    Hidden is hidden as for the Shapley values, which favors them; the other tests do not share that.
    """
    generator = np.random.default_rng([seed, len(why.players)])
    rankings = {METHODS[0]: [why.contributions.values]}
    if why.relevance is not None:
        rankings[METHODS[1]] = [why.relevance]
    rankings[CHANCE] = [*generator.random((ORDERS, len(why.players)))]
    # Hidden in turn, for all rankings in one call: sorted by length, batches have less padding.
    steps = len(why.players) + 1
    hidden = np.concatenate([_steps(one) for some in rankings.values() for one in some])
    shown = np.concatenate([~hidden, hidden])
    values = np.vectorize(probability, otypes=[float])(variants.shown(shown)).reshape(2, -1, steps)
    curves = np.stack([[_at_shares(one) for one in some] for some in values])
    found, first = {}, 0
    for name, some in rankings.items():
        deletion, insertion = curves[:, first : first + len(some)].mean(1)
        found[name] = Removal(deletion=deletion, insertion=insertion)
        first += len(some)
    return found


def _steps(ranking: Float[ndarray, " n"]) -> ndarray:
    """Row k: which players are among the first k, the largest first."""
    place = np.empty(len(ranking), int)
    place[np.argsort(-ranking, kind="stable")] = np.arange(len(ranking))
    steps: ndarray = place < np.arange(len(ranking) + 1)[:, None]
    return steps


def _at_shares(values: Float[ndarray, " S"]) -> Float[ndarray, " 11"]:
    # Of no players there is one value, and np.interp has no second point.
    return np.interp(SHARES, np.linspace(0, 1, len(values)), values) if len(values) > 1 else values.repeat(11)


@contextmanager
def shuffled(predictor: Predictor, stage: str, *, seed: int = 0) -> Iterator[None]:
    """Shuffle the numbers of each weight of a model while the block runs, from the head downwards.

    Args:
        stage: `head`, `upper half` (and the second half of the model's layers), or `all`.
    """
    own = {id(one) for one in predictor.model.modules()}
    layers = [one for one in predictor.model.modules() if isinstance(one, WEIGHTED)]
    kept_layers = {"head": len(layers), "upper half": len(layers) // 2, "all": 0}[stage]
    head = [
        one
        for one in getattr(predictor.task, "modules", list)()
        if id(one) not in own and isinstance(one, WEIGHTED)
    ]
    # Tied weights once: shuffled twice, they would still be shuffled, but restored to the wrong numbers.
    weights = {
        id(weight): weight
        for one in (*head, *layers[kept_layers:])
        for weight in one.parameters(recurse=False)
    }
    before = [(weight, weight.detach().clone()) for weight in weights.values()]
    generator = torch.Generator().manual_seed(seed)
    try:
        with torch.no_grad():
            for weight, old in before:
                order = torch.randperm(old.numel(), generator=generator).to(old.device)
                weight.copy_(old.flatten()[order].view_as(old))
        yield
    finally:
        with torch.no_grad():
            for weight, old in before:
                weight.copy_(old)


def sanity(variants: Variants, why: Evidence, *, seed: int = 0) -> dict[str, dict[str, float]]:
    """Return Spearman's rank correlation with the explanation by shuffled weights, by method and stage.

    Of Shapley values the signed ones are ranked. It is nan where all places are equal.
    """
    found: dict[str, dict[str, float]] = {METHODS[0]: {}}
    if why.relevance is not None:
        found[METHODS[1]] = {}
    for stage in STAGES:
        with shuffled(variants.predictor, stage, seed=seed):
            # The same class is explained, whatever such a model would answer.
            values = shapley(
                variants.shown,
                len(why.players),
                permutations=why.budget.permutations,
                seed=why.budget.seed,
            ).values
            looked = variants.relevance() if why.relevance is not None else None
        found[METHODS[0]][stage] = rank_correlation(why.contributions.values, values)
        if why.relevance is not None and looked is not None:
            found[METHODS[1]][stage] = rank_correlation(why.relevance, looked)
    return found


def rank_correlation(one: Float[ndarray, " n"], other: Float[ndarray, " n"]) -> float:
    """Return Spearman's rank correlation; nan if all values of one side are equal."""
    first, second = _ranks(one), _ranks(other)
    if len(first) < 2 or not np.ptp(first) or not np.ptp(second):
        return float("nan")
    return float(np.corrcoef(first, second)[0, 1])


def _ranks(values: Sequence[float] | ndarray) -> Float[ndarray, " n"]:
    _, which, counts = np.unique(np.asarray(values), return_inverse=True, return_counts=True)
    # Ties share the mean of their places.
    ranks: Float[ndarray, " n"] = (np.cumsum(counts) - (counts - 1) / 2)[which]
    return ranks
