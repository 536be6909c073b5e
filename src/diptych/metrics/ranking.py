"""Measures of ranking: multiple choice and retrieval."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Real
from numpy import ndarray

from diptych.metrics.classification import accuracy, auroc, labeled
from diptych.metrics.uncertainty import row_interval
from diptych.predictions import Predictions

LINES = 1024  # rows or columns of a table of scores that are in memory at a time
Ties = Literal["last", "order"]


class Interval(NamedTuple):
    """A measure with the ends of its confidence interval."""

    value: float
    low: float
    high: float


def best_ranks(
    scores: Real[ndarray, "Q C"], right: Bool[ndarray, "Q C"], *, ties: Ties = "last"
) -> Int[ndarray, " Q"]:
    """Rank, from 1, of each query's best right candidate.

    Other right candidates do not count. A query without a right candidate has the rank C + 1.

    Args:
        ties: `last` puts wrong candidates with an equal score first. `order` puts those of them first that
            have a smaller number, as MM-BERT does.
    """
    best = np.where(right, scores, -np.inf).max(1, keepdims=True)
    # Wrong candidates with an equal score count as better: a model that scores all alike must not look
    # perfect.
    ahead = ~right & (scores >= best)
    if ties == "order":
        first = (right & (scores == best)).argmax(1)
        ahead &= (scores > best) | (np.arange(scores.shape[1]) < first[:, None])
    ranks: ndarray = np.where(right.any(1), ahead.sum(1) + 1, scores.shape[1] + 1)
    return ranks


def grid_ranks(
    scores: Real[ndarray, "N M"], owners: Int[ndarray, " M"], *, ties: Ties = "last"
) -> tuple[Int[ndarray, " N"], Int[ndarray, " M"]]:
    """Ranks of the right candidates in a table of N images by M texts, in both directions.

    The table may be mapped from a file: `LINES` of its rows or columns are in memory at a time.

    Args:
        scores: larger is better; nan means that the pair was not scored and ranks behind all others.
        owners: number of the image to which each text belongs. Every image has at least one text.

    Returns:
        For each image the rank of its best text among all texts, and for each text the rank of its image.
    """
    by_row = [
        best_ranks(block, owners == np.arange(start, start + len(block))[:, None], ties=ties)
        for start, block in line_blocks(scores)
    ]
    by_column = [
        best_ranks(block, owners[start : start + len(block), None] == np.arange(len(scores)), ties=ties)
        for start, block in line_blocks(scores.T)
    ]
    return np.concatenate(by_row), np.concatenate(by_column)


def line_blocks(scores: Real[ndarray, "N M"]) -> Iterator[tuple[int, Real[ndarray, "B M"]]]:
    """Yield `LINES` rows at a time with the number of the first; nan becomes minus infinity."""
    for start in range(0, len(scores), LINES):
        block = np.array(scores[start : start + LINES])
        block[np.isnan(block)] = -np.inf
        yield start, block


def measure_ranks(
    ranks: Int[ndarray, " Q"],
    units: Int[ndarray, " Q"],
    *,
    at: Sequence[int] = (1, 5, 10),
    level: float = 0.95,
    samples: int = 2000,
    seed: int = 0,
) -> dict[str, Interval]:
    """Recall at k, median and mean rank of the right candidates, with bootstrap intervals.

    Args:
        ranks: rank of the best right candidate of each query, from 1.
        units: number of the image to which each query belongs, from 0. All queries of an image are resampled
            together, because five captions of one image are not independent.
        at: values of k.
    """
    order, counts = np.argsort(units, kind="stable"), np.bincount(units)
    # Units 0 0 1 have the places 0 1 0.
    places = np.arange(len(units)) - np.repeat(np.cumsum(counts) - counts, counts)
    # One row per image and one column per query; images with fewer queries are filled up with nan.
    table = np.full((len(counts), max(counts)), np.nan)
    table[units[order], places] = ranks[order]
    table = table[counts > 0]
    whole = not np.isnan(table).any()
    mean, median = (np.mean, np.median) if whole else (np.nanmean, np.nanmedian)
    hits = {f"recall@{k}": np.where(np.isnan(table), np.nan, table <= k) for k in at}
    measures = {name: partial(_over_units, values, mean) for name, values in hits.items()}
    measures |= {
        "median_rank": partial(_over_units, table, median),
        "mean_rank": partial(_over_units, table, mean),
    }
    rows = np.arange(len(table))
    return {
        name: Interval(
            float(measure(rows[None, None])[0, 0]),
            *row_interval(measure, [rows], level=level, samples=samples, seed=seed),
        )
        for name, measure in measures.items()
    }


def _over_units(
    values: Float[ndarray, "U K"], average: Callable[..., Any], rows: Int[ndarray, "S M U"]
) -> Float[ndarray, "S M"]:
    """A `RowMeasure`: an average over all queries of the units in `rows`."""
    return np.asarray(average(values[rows], axis=(-2, -1)))


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
