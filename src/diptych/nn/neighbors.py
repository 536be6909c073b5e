"""Exact search for the nearest of stored vectors, and decisions by their labels."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from diptych.errors import ConfigError

WEIGHTINGS = ("mean", "arithmetic")


def nearest_cases(
    queries: Float[Tensor, "Q D"],
    cases: Float[Tensor, "N D"],
    count: int,
    *,
    among: Bool[Tensor, "Q N"] | None = None,
    unit: bool = True,
) -> tuple[Float[Tensor, "Q k"], Int[Tensor, "Q k"]]:
    """Find the cases with the largest cosine (or product, without `unit`) by one matrix product.

    Args:
        count: cases wanted for each query. With fewer of them, k is smaller.
        among: cases that a query may find; None means all.
        unit: divide all vectors by their length first.

    Returns:
        Similarities, best first, and the rows of the cases. Where `among` leaves fewer than k, the rest has
        the similarity minus infinity and the row -1.
    """
    if unit:
        queries, cases = F.normalize(queries, dim=-1), F.normalize(cases, dim=-1)
    scores = queries @ cases.T
    if among is not None:
        scores = scores.masked_fill(~among, -torch.inf)
    best, rows = scores.topk(min(count, len(cases)), dim=1)
    # `topk` promises no order of equal scores; the case that was stored first wins.
    rows, order = rows.sort(dim=1)
    best, order = best.gather(1, order).sort(dim=1, descending=True, stable=True)
    return best, rows.gather(1, order).masked_fill(best == -torch.inf, -1)


def votes(
    similarities: Float[Tensor, "Q k"],
    positive: Bool[Tensor, "Q k"],
    *,
    weighting: str = "arithmetic",
    by: str = "similarity",
    least: float = -1.0,
) -> Float[Tensor, "Q k"]:
    """Contribution of each neighbor to a decision; their sum is the score of a query.

    With `by="similarity"` the score is in [-1, 1] and positive from 0; with `by="labels"` it is in [0, 1] and
    positive from 0.5. Contributions add up, so each says how much its case decided.

    Args:
        similarities: cosines, best first, as `nearest_cases` returns them.
        positive: whether the case has the positive label.
        weighting: `mean` weighs all neighbors alike, `arithmetic` with k, k - 1, ..., 1.
        least: neighbors that are less similar have no vote.
    """
    if weighting not in WEIGHTINGS or by not in ("similarity", "labels"):
        raise ConfigError(
            f"the vote is {weighting!r} by {by!r}; expected one of {', '.join(WEIGHTINGS)} by 'similarity' "
            "or 'labels'."
        )
    count = similarities.shape[1]
    # Of three neighbors: 3 2 1.
    weights = torch.arange(count, 0, -1, device=similarities.device, dtype=similarities.dtype)
    weights = (weights if weighting == "arithmetic" else torch.ones_like(weights)).expand_as(similarities)
    weights = weights * (similarities >= least)
    signs = positive.to(similarities.dtype)
    # What was not found has minus infinity, and a weight of 0 would make it NaN.
    # 2 s - 1 is 1 or -1: a similar case of the other label speaks against.
    values = signs if by == "labels" else similarities.clamp(min=-1) * (2 * signs - 1)
    # A query without neighbors gets 0: nothing speaks for either side.
    return weights * values / weights.sum(1, keepdim=True).clamp(min=1e-12)
