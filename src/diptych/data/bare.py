"""Regions of end-to-end models: boxes inside of the resized picture, without features."""

from dataclasses import replace

import numpy as np
from jaxtyping import Float
from torch import Tensor

from diptych.types import Regions

WHOLE = -1  # label of the whole picture, which is of no class


def boxes_alone(regions: Regions, pixels: Float[Tensor, "3 h w"] | None, *, whole_image: bool) -> Regions:
    """Drop the features, and clip boxes to the last pixel of the resized picture, as VL-BERT does.

    Args:
        pixels: the resized picture; None of a text without one, which has no regions.
        whole_image: put the box of the whole picture first. Of the detector's fields, labels alone remain
            then.
    """
    if pixels is None:
        return replace(regions, features=np.zeros((0, 0), np.float32))
    size = np.array(regions.size * 2, np.float32)
    # `shape[:0:-1]` of (3, height, width) is (width, height); `last` is in pixels of the original.
    last = size * (1 - 1 / np.array(pixels.shape[:0:-1] * 2, np.float32))
    boxes = regions.boxes.clip(0, last)
    if not whole_image:
        return replace(regions, features=np.zeros((len(boxes), 0), np.float32), boxes=boxes)
    boxes = np.concatenate([np.concatenate([last[:2] * 0, last[2:]])[None], boxes])
    shapes, labels = regions.silhouettes, regions.labels
    if shapes is not None:  # everything belongs to the whole picture
        shapes = np.concatenate([np.ones_like(shapes, shape=(1, *shapes.shape[1:])), shapes])
    if labels is not None:
        labels = np.concatenate([np.full_like(labels, WHOLE, shape=1), labels])
    bare = np.zeros((len(boxes), 0), np.float32)
    return Regions(features=bare, boxes=boxes, size=regions.size, silhouettes=shapes, labels=labels)
