"""Silhouettes of objects from polygons, as VL-BERT draws them."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Float32
from numpy import ndarray

NEAR = 1e-12  # distance below which a cell lies on a corner
BLOCK = 1024  # sides of a polygon that are in memory at a time


def silhouette(
    polygons: Sequence[Float[ndarray, "_ 2"]], box: Float[ndarray, " 4"], *, cells: int
) -> Float32[ndarray, "s s"]:
    """Draw the polygons of one object on a grid of `cells` x `cells` over its box: 1 inside, 0 outside.

    A cell is inside if its upper left corner is inside of a polygon, or on its border, as scikit-image's
    `draw.polygon` defines it. Corners outside of the box move to its border.

    Args:
        polygons: corners x y in the pixels of the box.
        box: x1 y1 x2 y2; its last pixel belongs to it.
    """
    scale = cells / (box[2:] - box[:2] + 1)
    drawn = np.zeros((cells, cells), bool)
    y, x = np.mgrid[:cells, :cells].astype(float)
    for corners in polygons:
        drawn |= _inside(((corners - box[:2]) * scale).clip(0, cells - 1), x, y)
    return drawn.astype(np.float32)


def _inside(
    corners: Float[ndarray, "P 2"], x: Float[ndarray, "s s"], y: Float[ndarray, "s s"]
) -> Bool[ndarray, "s s"]:
    """Mask of the points inside of a polygon, or on its border."""
    # Rays to the right and to the left of a point cross the border an odd number of times if it is inside. On
    # the border, the two numbers differ.
    odd = np.zeros((3, *x.shape), bool)  # a corner at the point, crossings to the right, to the left
    before = np.roll(corners, 1, axis=0)
    for start in range(0, len(corners), BLOCK):
        block = slice(start, start + BLOCK)
        a, b = (corners[block, axis, None, None] - at for axis, at in enumerate((x, y)))
        c, d = (before[block, axis, None, None] - at for axis, at in enumerate((x, y)))
        side = np.sign(a * d - c * b) * np.sign(d - b)  # where the border crosses the line through the point
        odd[0] |= ((abs(a) < NEAR) & (abs(b) < NEAR)).any(0)
        odd[1] ^= np.logical_xor.reduce(((b > 0) != (d > 0)) & (side > 0))
        odd[2] ^= np.logical_xor.reduce(((b < 0) != (d < 0)) & (side < 0))
    return np.asarray(odd.any(0))
