"""Detects boxes that are not x1 y1 x2 y2 in pixels, and suggests the convention they follow."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float
from numpy import ndarray

Boxes = Float[ndarray, "R 4"]

# For each convention: its columns, and the conversion to x1 y1 x2 y2.
CONVENTIONS: dict[str, tuple[str, Callable[[ndarray], ndarray]]] = {
    "xywh": (
        "x y width height",
        lambda boxes: np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1),
    ),
    "yxyx": ("y1 x1 y2 x2", lambda boxes: boxes[:, [1, 0, 3, 2]]),
}
DOUBTS = {
    "scaled": "boxes that all lie within 0..1 and look scaled; expected pixels (import with boxes=scaled)",
    "flat": "boxes without width or height",
}
ADVICE = "import with boxes="


def other_convention(boxes: Boxes, size: tuple[int, int]) -> str:
    """Suggest the convention of boxes that are invalid as x1 y1 x2 y2; an empty string if none fits."""
    for name, (columns, rebuild) in CONVENTIONS.items():
        other = rebuild(np.asarray(boxes, np.float64))
        low, high = other[:, :2], other[:, 2:]
        # One pixel of tolerance, as where boxes are verified: detectors round and clip differently.
        if (low >= -1).all() and (low <= high).all() and (high <= np.array(size) + 1).all():
            return f" As {columns}, all boxes would be inside the image: {ADVICE}{name}."
    return ""


def doubts(boxes: Boxes, size: tuple[int, int]) -> tuple[str, ...]:
    """Names in `DOUBTS` of properties that are valid but probably a mistake."""
    if not len(boxes):
        return ()
    # In a picture of two pixels, boxes within 0..1 are plausible.
    scaled = boxes.max() <= 1.01 and min(size) > 2
    flat = (boxes[:, :2] >= boxes[:, 2:]).any()
    return tuple(name for name, applies in (("scaled", scaled), ("flat", flat)) if applies)
