"""Numeric encodings of boxes that the families use as inputs, and the overlap of boxes.

Boxes are x1 y1 x2 y2, normalized to [0, 1] by the width and height of the image.
"""

import torch
from jaxtyping import Float
from torch import Tensor


def corners_area(boxes: Float[Tensor, "... 4"]) -> Float[Tensor, "... 5"]:
    """`x1 y1 x2 y2 w*h` (ViLBERT, ERNIE-ViL)."""
    width, height = _size(boxes)
    return torch.cat([boxes, width * height], -1)


def corners_size(boxes: Float[Tensor, "... 4"]) -> Float[Tensor, "... 6"]:
    """`x1 y1 x2 y2 w h` (Oscar)."""
    return torch.cat([boxes, *_size(boxes)], -1)


def corners_size_area(boxes: Float[Tensor, "... 4"]) -> Float[Tensor, "... 7"]:
    """`x1 y1 x2 y2 w h w*h` (UNITER)."""
    width, height = _size(boxes)
    return torch.cat([boxes, width, height, width * height], -1)


def iou(boxes: Float[Tensor, "... R 4"], others: Float[Tensor, "... S 4"]) -> Float[Tensor, "... R S"]:
    """Intersection over union of every pair of boxes, in [0, 1]; 0 where both boxes are empty."""
    low = torch.maximum(boxes[..., :, None, :2], others[..., None, :, :2])
    high = torch.minimum(boxes[..., :, None, 2:], others[..., None, :, 2:])
    # Clamped before the product: boxes apart in both directions have two negative sides.
    both = (high - low).clamp(min=0).prod(-1)
    # The overlap is in both areas and must count once.
    either = _area(boxes)[..., :, None] + _area(others)[..., None, :] - both
    # Two boxes without area: 0 / 0 is NaN, which `where` drops.
    return torch.where(either > 0, both / either, 0)


def _size(boxes: Float[Tensor, "... 4"]) -> tuple[Float[Tensor, "... 1"], Float[Tensor, "... 1"]]:
    x1, y1, x2, y2 = boxes.split(1, -1)
    return x2 - x1, y2 - y1


def _area(boxes: Float[Tensor, "... R 4"]) -> Float[Tensor, "... R"]:
    return (boxes[..., 2:] - boxes[..., :2]).prod(-1)
