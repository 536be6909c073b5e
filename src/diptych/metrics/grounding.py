"""Measures of predicted boxes against gold boxes."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from diptych.errors import FormatError
from diptych.metrics.classification import labeled
from diptych.predictions import Predictions


def box_overlap(boxes: Float[ndarray, "N 4"], gold: Float[ndarray, "N 4"]) -> Float[ndarray, " N"]:
    """Intersection over union of boxes x1 y1 x2 y2 in [0, 1], row by row; 0 if both are empty."""
    sides = np.minimum(boxes[:, 2:], gold[:, 2:]) - np.maximum(boxes[:, :2], gold[:, :2])
    # Clipped first: boxes apart in both directions have two negative sides.
    both = sides.clip(min=0).prod(1)
    # Continuous sides, without the + 1 pixel that some originals add.
    either = (boxes[:, 2:] - boxes[:, :2]).prod(1) + (gold[:, 2:] - gold[:, :2]).prod(1) - both
    overlap: ndarray = np.divide(both, either, out=np.zeros_like(both), where=either > 0)
    return overlap


def measure_boxes(
    predictions: Predictions, targets: Mapping[str, Any], *, threshold: float = 0.5
) -> dict[str, float]:
    """Share of boxes that overlap the gold box by at least `threshold`, and the mean overlap.

    Args:
        targets: gold box in pixels by id; None if unknown.

    Raises:
        FormatError: an id has no entry in `targets`.
    """
    predictions = labeled(predictions, targets)
    if not len(predictions):
        return {}
    overlap = box_overlaps(predictions, [targets[key] for key in predictions.ids])
    return {"accuracy": float(np.mean(overlap >= threshold)), "mean_iou": float(overlap.mean())}


def box_overlaps(predictions: Predictions, targets: Sequence[Any]) -> Float[ndarray, " N"]:
    """Intersection over union of each box with its gold box.

    Raises:
        FormatError: the predictions have no boxes, or a target is not a box.
    """
    if predictions.boxes is None:
        raise FormatError("the predictions have no boxes, so their overlap cannot be measured.")
    try:
        gold = np.array(targets, dtype=float).reshape(-1, 4)
    except (ValueError, TypeError) as error:
        raise FormatError(f"a target is not a box x1 y1 x2 y2 in pixels ({error}).") from error
    return box_overlap(predictions.boxes, gold)
