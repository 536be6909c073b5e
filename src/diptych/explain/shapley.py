"""Shapley values: how much each word and region adds to a decision, averaged over orders of showing them.

Unlike attention, they have a sign and sum to the whole difference that the evidence makes. How much of them
lies on the text is MM-SHAP (Parcalabescu and Frank, 2023, https://arxiv.org/abs/2212.08158).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

# From coalitions, True where a player is shown, to the value of each.
Value = Callable[[Bool[ndarray, "S n"]], Float[ndarray, " S"]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shapley:
    """Shapley values of n players.

    Args:
        errors: standard errors of `values` over the permutations; 0 if all coalitions were evaluated.
        permutations: number of orders; 0 if all coalitions were evaluated.
        evaluations: number of different coalitions whose value was computed.
    """

    values: Float[ndarray, " n"]
    errors: Float[ndarray, " n"]
    permutations: int
    evaluations: int


def draw_orders(players: int, permutations: int, *, seed: int = 0) -> Int[ndarray, "P n"]:
    """Draw orders of the players; equal seeds give equal orders."""
    generator = np.random.default_rng([seed, players])
    return np.stack([generator.permutation(players) for _ in range(permutations)])


def sampled_shapley(value: Value, orders: Int[ndarray, "P n"]) -> Shapley:
    """Estimate Shapley values by antithetic permutations, as MM-SHAP does.

    The players of each order are added to nothing, and taken away in the same order from everything. Both
    differences of a player are averaged, which is exact for interactions of up to two players. The values
    always sum to the difference between showing all players and none.
    """
    count, players = orders.shape
    added = np.zeros((count, players + 1, players), bool)
    for row, order in enumerate(orders):
        for place, player in enumerate(order):
            added[row, place + 1 :, player] = True
    # Taken away in the same order: what is shown is what was not yet added.
    coalitions, which = np.unique(
        np.concatenate([added, ~added]).reshape(-1, players), axis=0, return_inverse=True
    )
    values = value(coalitions)[which.reshape(2, count, players + 1)]
    steps = np.diff(values, axis=2)
    # Taking away a player changes the value by minus its contribution.
    steps[1] *= -1
    # The difference at place k of an order is that of its k-th player.
    pairs = np.zeros((count, players))
    np.put_along_axis(pairs, orders, steps.mean(0), axis=1)
    spread = pairs.std(0, ddof=1) / np.sqrt(count) if count > 1 else np.full(players, np.nan)
    return Shapley(values=pairs.mean(0), errors=spread, permutations=count, evaluations=len(coalitions))


def exact_shapley(value: Value, players: int) -> Shapley:
    """Compute Shapley values from all `2 ** players` coalitions."""
    numbers = np.arange(1 << players)
    coalitions = (numbers[:, None] >> np.arange(players) & 1).astype(bool)
    values, sizes = value(coalitions), coalitions.sum(1)
    # By size of the coalition a player joins: s! (n - s - 1)! / n!, as a product to stay in range.
    # The first, of joining nobody, is 1 / n, and each further one s / (n - s) times that before it: of three
    # players 1/3 1/6 1/3.
    weights = np.ones(max(players, 1)) / max(players, 1)
    for size in range(1, players):
        weights[size] = weights[size - 1] * size / (players - size)
    found = np.zeros(players)
    for player in range(players):
        without = ~coalitions[:, player]
        # A coalition's number has a bit for each member, so this one is the same with the player.
        gains = values[numbers[without] | 1 << player] - values[without]
        found[player] = gains @ weights[sizes[without]]
    return Shapley(values=found, errors=np.zeros(players), permutations=0, evaluations=len(coalitions))


def shapley(value: Value, players: int, *, permutations: int = 10, seed: int = 0) -> Shapley:
    """Estimate Shapley values, or compute them exactly where that takes no more evaluations."""
    # Sampling evaluates two ends of n + 1 coalitions per order; 30 keeps the power a small number.
    if 1 << min(players, 30) <= 2 * permutations * max(players, 1):
        return exact_shapley(value, players)
    return sampled_shapley(value, draw_orders(players, permutations, seed=seed))


def text_share(values: Float[ndarray, " n"], text: Bool[ndarray, " n"]) -> float | None:
    """Return MM-SHAP's T-SHAP, the share of the text in all absolute values; None if all are 0."""
    sizes = np.abs(values)
    return float(sizes[text].sum() / sizes.sum()) if sizes.sum() else None
