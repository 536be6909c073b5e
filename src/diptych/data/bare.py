"""Regions of end-to-end models: boxes inside of the resized picture, without features."""

from dataclasses import replace

import numpy as np
from jaxtyping import Float, Shaped
from numpy import ndarray
from torch import Tensor

from diptych.types import OPTIONAL_REGION_FIELDS, Regions

WHOLE = -1  # label of the whole picture, which is of no class


def boxes_alone(
    regions: Regions, pixels: Float[Tensor, "3 h w"] | None, *, whole_image: bool, mirrored: bool = False
) -> Regions:
    """Drop the features, and clip boxes to the last pixel of the resized picture, as VL-BERT does.

    Args:
        pixels: the resized picture; None of a text without one, which has no regions.
        whole_image: put the box of the whole picture first. It is of no class: its label and attribute are
            -1, its scores and probabilities 0.
        mirrored: exchange left and right.
    """
    if pixels is None:
        return replace(regions, features=np.zeros((0, 0), np.float32))
    size = np.array(regions.size * 2, np.float32)
    # `shape[:0:-1]` of (3, height, width) is (width, height); `last` is in pixels of the original.
    last = size * (1 - 1 / np.array(pixels.shape[:0:-1] * 2, np.float32))
    boxes = regions.boxes.clip(0, last)
    if mirrored:
        regions, boxes = _mirrored(regions), mirrored_boxes(boxes, float(last[0]))
    if not whole_image:
        return replace(regions, features=np.zeros((len(boxes), 0), np.float32), boxes=boxes)
    boxes = np.concatenate([np.concatenate([last[:2] * 0, last[2:]])[None], boxes])
    fields = {name: getattr(regions, name) for name in OPTIONAL_REGION_FIELDS}
    return Regions(
        features=np.zeros((len(boxes), 0), np.float32),
        boxes=boxes,
        size=regions.size,
        # Everything belongs to the whole picture.
        silhouettes=None if regions.silhouettes is None else _headed(regions.silhouettes, 1),
        **{
            name: _headed(value, WHOLE if np.issubdtype(value.dtype, np.integer) else 0)
            for name, value in fields.items()
            if value is not None
        },
    )


def last_column(size: tuple[int, int], pixels: Float[Tensor, "3 h w"]) -> float:
    """Place of the last column of the resized picture, in pixels of the original."""
    return size[0] * (1 - 1 / pixels.shape[2])


def mirrored_boxes(boxes: Float[ndarray, "R 4"], last: float) -> Float[ndarray, "R 4"]:
    """Exchange left and right of boxes x1 y1 x2 y2, so that column 0 becomes `last`, as VL-BERT does."""
    flipped = boxes.copy()
    # The left end becomes the right one.
    flipped[:, [0, 2]] = last - boxes[:, [2, 0]]
    return flipped


def _headed(values: Shaped[ndarray, "R ..."], first: int) -> Shaped[ndarray, "Q ..."]:
    return np.concatenate([np.full_like(values, first, shape=(1, *values.shape[1:])), values])


def _mirrored(regions: Regions) -> Regions:
    shapes = regions.silhouettes
    return regions if shapes is None else replace(regions, silhouettes=shapes[:, :, ::-1])
