"""Regions of a feature map: anchors, box coding, non-maximum suppression, RoIPool and RoIAlign.

Boxes are x1 y1 x2 y2 in pixels, without Caffe's "+1" for the last pixel, as in detectron2 and torchvision.
torchvision's kernels are used if they can be loaded. Its wheels work with few builds of torch, so everything
is also implemented in pure torch.
"""

import math
from collections.abc import Sequence
from functools import cache
from importlib import import_module
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from diptych.nn.boxes import iou

NMS_BLOCK = 256  # boxes that are compared with each other at a time
CHUNK = 2**20  # numbers that pooling holds at a time; with many more it leaves a CPU's caches: twice as slow
WEIGHED = 16  # boxes whose sample weights are computed at a time: a huge box has very many samples
LARGEST = math.log(1000 / 16)  # largest log factor by which a delta may stretch a side, as in detectron2


@cache
def torchvision_ops() -> Any:
    """Return `torchvision.ops` if it can be imported and works, else None."""
    try:
        ops = import_module("torchvision.ops")
        # Importing is not enough: a wheel for another torch fails only when a kernel is called.
        kept = ops.nms(torch.tensor([[0.0, 0.0, 1.0, 1.0]]), torch.ones(1), 0.5)
    except Exception:  # a wheel built for another torch may raise anything
        return None
    return ops if kept.tolist() == [0] else None


def anchors(
    height: int, width: int, *, sizes: Sequence[int], ratios: Sequence[int | float], stride: int
) -> Float[Tensor, "A 4"]:
    """Anchor boxes of a map of `height` x `width` cells, ordered by row, column, size, ratio.

    Args:
        sizes: side in pixels of the square with the same area.
        ratios: height over width.
        stride: pixels per cell; the boxes of a cell are centered on its upper left corner.
    """
    cell = []
    for size in sizes:
        for ratio in ratios:
            # w * h = size ** 2 and h / w = ratio.
            w = math.sqrt(size**2 / ratio)
            cell.append((-w / 2, -ratio * w / 2, w / 2, ratio * w / 2))
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    corners = torch.stack([x, y, x, y], -1).reshape(-1, 1, 4) * float(stride)
    return (corners + torch.tensor(cell)).reshape(-1, 4)


def decode_boxes(
    boxes: Float[Tensor, "R 4"],
    deltas: Float[Tensor, "R E"],
    *,
    weights: Sequence[int | float] = (1, 1, 1, 1),
) -> Float[Tensor, "R E"]:
    """Apply deltas `dx dy dw dh` to boxes; every box has E / 4 such deltas.

    Args:
        weights: divisors of the four deltas.
    """
    corner, size = boxes[:, None, :2], boxes[:, None, 2:] - boxes[:, None, :2]
    deltas = deltas.unflatten(1, (-1, 4)) / torch.tensor(weights, device=boxes.device)
    center = deltas[..., :2] * size + (corner + 0.5 * size)
    # The clamp keeps exp() of an untrained network's deltas finite.
    half = 0.5 * (deltas[..., 2:].clamp(max=LARGEST).exp() * size)
    return torch.cat([center - half, center + half], -1).flatten(1)


def clip_boxes(boxes: Float[Tensor, "R 4"], size: tuple[int, int]) -> Float[Tensor, "R 4"]:
    """Clip boxes to a picture of size (width, height)."""
    return boxes.clamp(min=0).minimum(boxes.new_tensor([*size, *size]))


def has_area(boxes: Float[Tensor, "R 4"]) -> Tensor:
    """Mask of the boxes that are not empty."""
    return (boxes[:, 2:] > boxes[:, :2]).all(1)


def nms(
    boxes: Float[Tensor, "R 4"],
    scores: Float[Tensor, " R"],
    threshold: float,
    *,
    groups: Int[Tensor, " R"] | None = None,
    limit: int | None = None,
) -> Int[Tensor, " K"]:
    """Greedy non-maximum suppression: indices of the boxes that survive, best first.

    A box survives if no better survivor overlaps it by more than `threshold` (IoU). Equal scores rank in the
    order of the rows. Boxes without area neither suppress nor are suppressed.

    Args:
        groups: group of each box; boxes of different groups do not suppress each other.
        limit: largest number of boxes to keep.
    """
    ops = torchvision_ops()
    if ops is not None and groups is None:
        kept: Tensor = ops.nms(boxes, scores, threshold)[:limit]
        return kept
    order = scores.argsort(descending=True, stable=True)
    survivors = order[:0]
    # Blocks bound the memory, which is quadratic, and let `limit` stop early.
    for block in order.split(NMS_BLOCK):
        if limit is not None and len(survivors) >= limit:
            break
        block = block[~_overlap(boxes, survivors, block, threshold, groups).any(0)]
        suppresses = _overlap(boxes, block, block, threshold, groups).triu(1).float()
        # A box is suppressed only by boxes that survive themselves. Iterating from "all survive" reaches the
        # unique fixed point after at most as many turns as the longest chain of overlaps has boxes.
        keep, before = torch.ones_like(block, dtype=torch.bool), None
        while before is None or not torch.equal(keep, before):
            keep, before = (keep.float() @ suppresses) == 0, keep
        survivors = torch.cat([survivors, block[keep]])
    return survivors[:limit]


def _overlap(boxes: Tensor, rows: Tensor, others: Tensor, threshold: float, groups: Tensor | None) -> Tensor:
    over = iou(boxes[rows], boxes[others]) > threshold
    return over if groups is None else over & (groups[rows, None] == groups[others])


def roi_pool(
    features: Float[Tensor, "D h w"], boxes: Float[Tensor, "R 4"], *, size: int, scale: float
) -> Float[Tensor, "R D size size"]:
    """RoIPool: the maximum of every bin, with `size` x `size` bins per box; 0 for bins outside the map.

    Boxes are rounded to whole cells, halves away from zero, and include the cells at both borders.

    Args:
        scale: cells per pixel.
    """
    ops = torchvision_ops()
    if ops is not None:
        pooled: Tensor = ops.roi_pool(features[None].float(), [boxes], size, scale).to(features.dtype)
        return pooled
    depth, height, width = features.shape
    tops, bottoms = _bins(boxes[:, 1] * scale, boxes[:, 3] * scale, size, height)
    lefts, rights = _bins(boxes[:, 0] * scale, boxes[:, 2] * scale, size, width)
    empty = (bottoms <= tops)[:, :, None] | (rights <= lefts)[:, None, :]
    # A sparse table: any range is the union of two overlapping ranges whose length is a power of two, and
    # the maxima of those are precomputed. Every bin then needs four look-ups, two per direction.
    down, right = _powers(bottoms - tops), _powers(rights - lefts)
    downs, rightwards = (1 + int(power.max()) if power.numel() else 1 for power in (down, right))
    tables = _running_max(_running_max(features.permute(1, 2, 0).contiguous(), 0, downs), 2, rightwards)
    flat = tables.reshape(-1, depth)
    rows = [down * height + start for start in (tops, bottoms - 2**down)]
    columns = [right * (downs * height * width) + start for start in (lefts, rights - 2**right)]
    # Flat indices of the four corner ranges of each bin. Bins outside the map may have indices out of range;
    # the clamp makes them valid, and the bins are zeroed below.
    places = [
        (row[:, :, None] * width + column[:, None, :]).clamp(0, len(flat) - 1)
        for row in rows
        for column in columns
    ]
    pooled_parts = []
    for part in torch.arange(len(boxes), device=boxes.device).split(_fitting(size**2 * depth)):
        corners = [flat.index_select(0, place[part].flatten()) for place in places]
        best = torch.maximum(torch.maximum(corners[0], corners[1]), torch.maximum(corners[2], corners[3]))
        best = best.masked_fill(empty[part].reshape(-1, 1), 0)
        pooled_parts.append(best.reshape(-1, size, size, depth))
    # The result is in channels-last memory layout, in which convolutions are fastest.
    return torch.cat(pooled_parts).permute(0, 3, 1, 2)


def roi_align(
    features: Float[Tensor, "D h w"],
    boxes: Float[Tensor, "R 4"],
    *,
    size: int,
    scale: float,
    samples: int = 0,
    aligned: bool = True,
) -> Float[Tensor, "R D size size"]:
    """RoIAlign: the average of bilinear samples in every bin, with `size` x `size` bins per box.

    Samples outside the map are 0. Bilinear interpolation is linear in the map and separable in its two
    directions, so it is computed as two matrix products per box.

    Args:
        scale: cells per pixel.
        samples: samples per bin and direction; 0 takes one per cell, rounded up.
        aligned: True puts a cell's value at its center. False puts it at its corner and makes boxes at least
            one cell wide and high.
    """
    ops = torchvision_ops()
    if ops is not None:
        pooled: Tensor = ops.roi_align(features[None].float(), [boxes], size, scale, samples, aligned)
        return pooled.to(features.dtype)
    depth, height, width = features.shape
    # Detached, like torchvision's kernel: gradients flow to the map, never to the boxes.
    boxes = boxes.detach() * scale - (0.5 if aligned else 0)
    least = 0 if aligned else 1
    cells = features.permute(1, 2, 0).reshape(height, width * depth)
    few = _fitting(size * width * depth)
    pooled_parts: list[Tensor] = []
    for part in boxes.split(WEIGHED):
        down = _weights(part[:, 1], part[:, 3], size, height, samples, least).to(features.dtype)
        right = _weights(part[:, 0], part[:, 2], size, width, samples, least).to(features.dtype)
        pooled_parts += [
            rightwards[:, None] @ (downwards @ cells).reshape(-1, size, width, depth)
            for downwards, rightwards in zip(down.split(few), right.split(few), strict=True)
        ]
    return torch.cat(pooled_parts).permute(0, 3, 1, 2)


def _fitting(numbers: int) -> int:
    """How many boxes to pool at a time if each takes `numbers` numbers."""
    return max(1, CHUNK // numbers)


def _bins(
    low: Float[Tensor, " R"], high: Float[Tensor, " R"], size: int, cells: int
) -> tuple[Int[Tensor, "R size"], Int[Tensor, "R size"]]:
    """First cell of every bin, and the cell after its last (exclusive end)."""
    low, high = _round(low), _round(high)
    # Single precision is part of the original's result: a box of 57 cells reads one cell more than in exact
    # arithmetic. Do not compute this in double precision.
    step = ((high - low + 1).clamp(min=1) / size)[:, None]
    number = torch.arange(size, device=low.device, dtype=low.dtype)
    start, end = (number * step).floor() + low[:, None], ((number + 1) * step).ceil() + low[:, None]
    return start.clamp(0, cells).long(), end.clamp(0, cells).long()


def _round(values: Float[Tensor, " R"]) -> Float[Tensor, " R"]:
    """Round halves away from zero, as C does; `torch.round` rounds them to the even neighbor."""
    whole = values.trunc()
    return whole + values.sign() * ((values - whole).abs() >= 0.5)


def _powers(lengths: Int[Tensor, "R size"]) -> Int[Tensor, "R size"]:
    """Exponent of the largest power of two that does not exceed each length."""
    return torch.frexp(lengths.clamp(min=1).float()).exponent.long() - 1


def _running_max(table: Tensor, axis: int, count: int) -> Tensor:
    """Stack `count` tables: the maxima over the next 1, 2, 4, ... entries along an axis."""
    tables = [table]
    # Doubling: the maximum over 2 * k entries is that of two neighboring ranges of k.
    for power in range(count - 1):
        shifted = (torch.arange(table.shape[axis], device=table.device) + 2**power).clamp(
            max=table.shape[axis] - 1
        )
        tables.append(torch.maximum(tables[-1], tables[-1].index_select(axis, shifted)))
    return torch.stack(tables)


def _weights(
    low: Float[Tensor, " R"], high: Float[Tensor, " R"], size: int, cells: int, samples: int, least: int
) -> Float[Tensor, "R size cells"]:
    """Weight of every cell in the average of every bin, along one direction."""
    extent = (high - low).clamp(min=least) if least else high - low
    step = extent / size
    count = torch.full_like(step, samples) if samples else step.ceil()
    sample = torch.arange(max(1, int(count.max())) if len(count) else 1, device=low.device)
    bins = torch.arange(size, device=low.device, dtype=low.dtype)[:, None]
    step, many = step[:, None, None], count[:, None, None]
    at = low[:, None, None] + bins * step + (sample + 0.5) * step / many.clamp(min=1)
    # As in the original kernels, samples up to one cell outside the map read its border.
    real = (sample < many) & (at >= -1) & (at <= cells)
    distance = at.clamp(0, cells - 1)[..., None] - torch.arange(cells, device=low.device)
    shares = (1 - distance.abs()).clamp(min=0) * real[..., None]
    return shares.sum(2) / count.clamp(min=1)[:, None, None]
