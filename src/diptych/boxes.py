"""Other ways to write boxes than x1 y1 x2 y2 in pixels, and how one sees them."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float
from numpy import ndarray

Boxes = Float[ndarray, "R 4"]

CONVENTIONS: dict[str, tuple[str, Callable[[ndarray], ndarray]]] = {  # what they are, and the way to ours
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
    """A sentence about what boxes that are wrong as they stand may have been meant as, or nothing."""
    for name, (columns, rebuild) in CONVENTIONS.items():
        other = rebuild(np.asarray(boxes, np.float64))
        low, high = other[:, :2], other[:, 2:]
        if (low >= -1).all() and (low <= high).all() and (high <= np.array(size) + 1).all():
            return f" As {columns} all would lie inside: {ADVICE}{name}."
    return ""


def doubts(boxes: Boxes, size: tuple[int, int]) -> tuple[str, ...]:
    """Names in `DOUBTS` of what is possible but nobody can have meant."""
    if not len(boxes):
        return ()
    scaled = boxes.max() <= 1.01 and min(size) > 2
    flat = (boxes[:, :2] >= boxes[:, 2:]).any()
    return tuple(name for name, found in (("scaled", scaled), ("flat", flat)) if found)
