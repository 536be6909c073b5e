"""Measures of ranking: multiple choice and retrieval."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Int, Real
from numpy import ndarray

from diptych.metrics.classification import accuracy, auroc, labeled
from diptych.predictions import Predictions


def best_ranks(scores: Real[ndarray, "Q C"], right: Bool[ndarray, "Q C"]) -> Int[ndarray, " Q"]:
    """Rank, from 1, of each query's best right candidate; wrong candidates with an equal score come first.

    Other right candidates do not count. A query without a right candidate has the rank C + 1.
    """
    # Wrong candidates with an equal score count as better: a model that scores all alike must not look
    # perfect.
    best = np.where(right, scores, -np.inf).max(1, keepdims=True)
    rank = (~right & (scores >= best)).sum(1) + 1
    ranks: ndarray = np.where(right.any(1), rank, scores.shape[1] + 1)
    return ranks


def measure_choices(predictions: Predictions, targets: Mapping[str, Any]) -> dict[str, float]:
    """Accuracy of the best-scored pair, and the mean reciprocal rank of the right pair.

    Args:
        targets: index of the right pair by id; None if unknown.

    Raises:
        FormatError: an id has no entry in `targets`.
    """
    predictions = labeled(predictions, targets)
    if not len(predictions) or predictions.scores is None:
        return {}
    right, ranks = choice_ranks(predictions.scores, [targets[key] for key in predictions.ids])
    return {"accuracy": float(np.mean(right)), "mean_reciprocal_rank": float(np.mean(1 / ranks))}


def choice_ranks(
    scores: Real[ndarray, "N P"], targets: Sequence[Any]
) -> tuple[Bool[ndarray, " N"], Int[ndarray, " N"]]:
    """For each example, whether the best-scored pair is the right one, and the rank of the right one."""
    truth = np.array([int(target) for target in targets])
    ranks = best_ranks(scores, np.arange(scores.shape[1]) == truth[:, None])
    # Not `ranks == 1`: a task answers the first of equal scores, which may be the right one.
    right: ndarray = truth == scores.argmax(1)
    return right, ranks


def measure_matches(
    predictions: Predictions, targets: Mapping[str, Any], *, at: Sequence[int] = (1, 5, 10)
) -> dict[str, float]:
    """AUROC and accuracy of pairs; if ids are `image|text`, also recall at k of retrieval in both directions.

    `text_recall@5` is the share of images with a matching text among their 5 best. Pairs without a score rank
    last. Images and texts without a match are skipped.

    Args:
        targets: for each id, 1 if image and text match, else 0; None if unknown.
        at: values of k.

    Raises:
        FormatError: an id has no entry in `targets`.
    """
    predictions = labeled(predictions, targets)
    if not len(predictions):
        return {}
    scores = predictions.column("matches")
    truth = np.array([bool(targets[key]) for key in predictions.ids])
    pairs = {"auroc": auroc(truth, scores), "accuracy": accuracy(truth, scores >= 0.5)}
    keys = [key.split("|") for key in predictions.ids]
    if not truth.any() or any(len(key) != 2 for key in keys):
        return pairs
    names, places = zip(
        *(np.unique(side, return_inverse=True) for side in zip(*keys, strict=True)), strict=True
    )
    # A table of images by texts. Pairs without a score keep minus infinity, so they rank last.
    grid = np.full([len(keys_of_side) for keys_of_side in names], -np.inf)
    right = np.zeros(grid.shape, bool)
    grid[places], right[places] = scores, truth
    recalls: dict[str, float] = {}
    for name, table, matching in (("text", grid, right), ("image", grid.T, right.T)):
        # A text without a matching image cannot be found, and would count as a failure.
        queries = matching.any(1)
        ranks = best_ranks(table[queries], matching[queries])
        recalls |= {f"{name}_recall@{k}": float(np.mean(ranks <= k)) for k in at}
    return recalls | pairs
