"""The detector at full size with random weights: its operators, its parts, a whole picture, many box rules.

Beside each the plain way of doing it and, where it works, torchvision. Random weights find nothing, but cost
what trained ones do. A whole picture takes half a minute; with DIPTYCH_BENCH_SCALE=0.1 it has a tenth of the
regions.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import torch
from bench._timing import in_turns
from torch import Tensor, nn

from diptych.data import Picture
from diptych.detect import BoxRule, FasterRcnn, build_detector, faster_rcnn, select
from diptych.nn import roi
from diptych.nn.boxes import iou
from diptych.nn.resnet import ResNet

COUNT = max(20, int(300 * float(os.environ.get("DIPTYCH_BENCH_SCALE", "1"))))
RULES = [BoxRule.parse(text) for text in ("36", "50", "72", "10:100", "100", "20")]
STRIDE = 1 / 16

WHOLE = """
import json, resource, sys, time
import torch
from bench import detect
begin = time.perf_counter()
picture, detector = detect.picture(), detect.full_size(detect.COUNT)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
if sys.argv[1] == "plain":
    detect.make_plain(detector)
with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=sys.argv[1] == "bfloat16"):
    begin = time.perf_counter()
    detector([picture])
    seconds = time.perf_counter() - begin
print(json.dumps([seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024]))
"""

Row = tuple[str, ...]


def rows() -> Iterator[Row]:
    """What was measured, ours, the other way, how many times faster ours is."""
    torch.manual_seed(0)
    theirs = roi.torchvision_ops()
    own = roi.torchvision_ops
    try:
        roi.torchvision_ops = lambda: None  # type: ignore[assignment]
        with torch.inference_mode():
            for name, ours, plain, kernel in operators(theirs):
                yield compare(name, ours, plain, "plain torch")
                if kernel is not None:
                    yield compare(name, ours, kernel, "torchvision")
            yield from parts()
            yield six_rules()
            yield shares()
    finally:
        roi.torchvision_ops = own  # type: ignore[assignment]
    yield from whole()


def compare(name: str, ours: Callable[[], Any], other: Callable[[], Any], what: str) -> Row:
    fast, slow = in_turns(ours, other, most=5)
    return name, f"{1e3 * fast:.1f} ms", f"{what} {1e3 * slow:.1f} ms", f"{slow / fast:.1f}x"


def operators(
    theirs: Any,
) -> Iterator[tuple[str, Callable[[], Any], Callable[[], Any], Callable[[], Any] | None]]:
    many = random_boxes(6000, side=200)
    scores = torch.rand(6000)
    yield (
        "NMS, 300 of 6000 boxes",
        lambda: roi.nms(many, scores, 0.7, limit=300),
        lambda: nms_of_a_matrix(many, scores, 0.7)[:300],
        theirs and (lambda: theirs.nms(many, scores, 0.7)[:300]),
    )
    first, boxes = torch.randn(1024, 38, 63), random_boxes(COUNT, side=600)
    features = first[None].contiguous(memory_format=torch.channels_last)[0]  # as the body leaves it
    options = {"size": 14, "scale": STRIDE}
    shape = f"{COUNT} x 1024 x 14 x 14 from 38 x 63"
    yield (
        f"RoIPool, {shape}",
        lambda: roi.roi_pool(features, boxes, **options),
        lambda: pool_bin_by_bin(first, boxes),
        theirs and (lambda: theirs.roi_pool(first[None], [boxes], 14, STRIDE)),
    )
    yield (
        f"RoIAlign, 2 x 2 samples, {shape}",
        lambda: roi.roi_align(features, boxes, samples=2, **options),
        lambda: align_by_grid_sample(first, boxes, samples=2),
        theirs and (lambda: theirs.roi_align(first[None], [boxes], 14, STRIDE, 2, True)),
    )


def parts() -> Iterator[Row]:
    """Body and head, beside the same with channels first, as the originals compute them."""
    network = full_size(COUNT).resnet
    pixels = torch.randn(1, 3, 600, 800)
    yield compare(
        "body, 600 x 800", lambda: network.body(pixels), lambda: body_first(network, pixels), "channels first"
    )
    regions = torch.randn(16, 1024, 14, 14)
    last = regions.contiguous(memory_format=torch.channels_last)
    yield compare(
        "head, 16 regions", lambda: network.layer4(last), lambda: network.layer4(regions), "channels first"
    )

    def half() -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return network.layer4(last)

    yield compare("head, 16 regions, bf16", half, lambda: network.layer4(last), "fp32")


def six_rules() -> Row:
    """Six box rules from one pass, and from a pass each, as the originals' scripts do it."""
    detector, shown = full_size(min(COUNT, 50)), picture()
    fast, slow = in_turns(
        lambda: select(detector([shown])[0], RULES),
        lambda: [select(detector([shown])[0], [rule]) for rule in RULES],
        least=1,
        most=1,
        warm=False,
    )
    return (
        f"{len(RULES)} box rules, {min(COUNT, 50)} proposals",
        f"one pass {fast:.1f} s",
        f"a pass each {slow:.1f} s",
        f"{slow / fast:.1f}x",
    )


def shares() -> Row:
    """Where the time of a picture goes: processor time, which other programs change least."""
    detector, shown, spent = (
        full_size(COUNT),
        picture(),
        dict.fromkeys(("body", "RoIPool", "last stage"), 0.0),
    )

    def timed(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def inner(*arguments: Any, **more: Any) -> Any:
            start = time.process_time()
            try:
                return call(*arguments, **more)
            finally:
                spent[name] += time.process_time() - start

        return inner

    network = detector.resnet
    network.body = timed("body", network.body)  # type: ignore[method-assign]
    network.layer4.forward = timed("last stage", network.layer4.forward)  # type: ignore[method-assign]
    with mock.patch.object(faster_rcnn, "roi_pool", timed("RoIPool", faster_rcnn.roi_pool)):
        start = time.process_time()
        detector([shown])
        total = time.process_time() - start
    parts = ", ".join(f"{name} {seconds / total:.0%}" for name, seconds in spent.items())
    return (
        f"where the time of a picture goes, 600 x 800, {COUNT} proposals",
        f"{total:.1f} s of processor time",
        f"{parts}, all else {1 - sum(spent.values()) / total:.0%}",
        "",
    )


def whole() -> Iterator[Row]:
    plain, resident = fresh("plain")
    for dtype in ("float32", "bfloat16"):
        seconds, ours = fresh(dtype)
        yield (
            f"whole picture, 600 x 800, {COUNT} proposals, {dtype}, peak memory of the process",
            f"{1 / seconds:.3f} images/s, {ours / 1e9:.2f} GB",
            f"plain torch {1 / plain:.3f} images/s, {resident / 1e9:.2f} GB",
            f"{plain / seconds:.1f}x",
        )


def fresh(way: str) -> tuple[float, float]:
    """Seconds and peak resident bytes of one picture in a process of its own."""
    done = subprocess.run([sys.executable, "-c", WHOLE, way], check=True, capture_output=True, text=True)
    seconds, resident = json.loads(done.stdout)
    return seconds, resident


def full_size(proposals: int) -> FasterRcnn:
    """`vgattr` with random weights."""
    torch.manual_seed(0)
    return build_detector("vgattr", proposals=proposals)


def picture() -> Picture:
    generator = torch.Generator().manual_seed(0)
    return Picture(pixels=100 * torch.randn(3, 600, 800, generator=generator), size=(640, 480))


def random_boxes(count: int, *, side: float) -> Tensor:
    corner = torch.rand(count, 2) * torch.tensor([1000.0, 600.0])
    far = corner + torch.rand(count, 2) * side
    return torch.cat([corner, far.minimum(torch.tensor([1000.0, 600.0]))], 1)


def make_plain(detector: FasterRcnn) -> None:
    """Plain operators, channels first, all regions through the head at once."""
    faster_rcnn.nms = lambda boxes, scores, threshold, limit: nms_of_a_matrix(boxes, scores, threshold)[
        :limit
    ]
    faster_rcnn.roi_pool = lambda features, boxes, **_: pool_bin_by_bin(features, boxes)
    faster_rcnn.HEAD_CHUNK = 10**6
    network = detector.resnet
    network.body = lambda pixels: body_first(network, pixels)  # type: ignore[method-assign]
    head = network.layer4.forward
    network.layer4.forward = lambda x: head(x.contiguous())  # type: ignore[method-assign]


def body_first(network: ResNet, pixels: Tensor) -> Tensor:
    x = network.pool(network.bn1(network.conv1(pixels)).relu())
    maps: Tensor = network.layer3(network.layer2(network.layer1(x)))
    return maps


def nms_of_a_matrix(boxes: Tensor, scores: Tensor, threshold: float) -> Tensor:
    """All overlaps at once, then one box after the other."""
    order = scores.argsort(descending=True, stable=True)
    over = iou(boxes[order], boxes[order]) > threshold
    alive = torch.ones(len(order), dtype=torch.bool)
    for row in range(len(order)):
        if alive[row]:
            alive[row + 1 :] &= ~over[row, row + 1 :]
    return order[alive]


def pool_bin_by_bin(features: Tensor, boxes: Tensor) -> Tensor:
    """The largest value of every bin, one slice of the map after the other."""
    depth, height, width = features.shape
    tops, bottoms = (side.tolist() for side in roi._bins(boxes[:, 1] / 16, boxes[:, 3] / 16, 14, height))
    lefts, rights = (side.tolist() for side in roi._bins(boxes[:, 0] / 16, boxes[:, 2] / 16, 14, width))
    result = features.new_zeros(len(boxes), depth, 14, 14)
    for row in range(len(boxes)):
        for y in range(14):
            for x in range(14):
                cells = features[:, tops[row][y] : bottoms[row][y], lefts[row][x] : rights[row][x]]
                if cells.numel():
                    result[row, :, y, x] = cells.amax((1, 2))
    return result


def align_by_grid_sample(features: Tensor, boxes: Tensor, *, samples: int) -> Tensor:
    """A grid of samples per box through `grid_sample`, then averages."""
    height, width = features.shape[1:]
    at = (torch.arange(14 * samples) + 0.5) / (14 * samples)
    result = []
    for left, top, right, bottom in (boxes / 16 - 0.5).tolist():
        x, y = left + at * (right - left), top + at * (bottom - top)
        grid = torch.stack(
            torch.meshgrid(2 * x / (width - 1) - 1, 2 * y / (height - 1) - 1, indexing="xy"), -1
        )
        sampled = nn.functional.grid_sample(
            features[None], grid[None], padding_mode="border", align_corners=True
        )
        result.append(nn.functional.avg_pool2d(sampled, samples))
    return torch.cat(result)
