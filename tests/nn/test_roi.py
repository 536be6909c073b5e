import math
import types

import pytest
import torch

from diptych.nn import roi
from diptych.nn.roi import anchors, clip_boxes, decode_boxes, has_area, nms, roi_align, roi_pool


@pytest.fixture(autouse=True)
def own_operators(monkeypatch):
    """Without torchvision, whether or not it works here."""
    monkeypatch.setattr(roi, "torchvision_ops", lambda: None)


def random_boxes(count, generator, *, width=170.0, height=120.0):
    corners = torch.rand(count, 2, 2, generator=generator) * torch.tensor([width, height])
    return torch.cat([corners.amin(1), corners.amax(1)], 1)


def overlap(one, other):
    wide = min(one[2], other[2]) - max(one[0], other[0])
    high = min(one[3], other[3]) - max(one[1], other[1])
    both = max(wide, 0) * max(high, 0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return both / (sum(areas) - both) if sum(areas) - both else 0.0


def greedy(boxes, scores, threshold, groups=None):
    """The textbook: take the best, throw away what it overlaps, again."""
    rows, kept = sorted(range(len(scores)), key=lambda row: -scores[row].item()), []
    values = boxes.double().tolist()
    for row in rows:
        rivals = [other for other in kept if groups is None or groups[other] == groups[row]]
        if all(overlap(values[row], values[other]) <= threshold for other in rivals):
            kept.append(row)
    return kept


@pytest.mark.parametrize("threshold", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("count", [1, 2, 256, 257, 700])
def test_nms_is_greedy(count, threshold):
    generator = torch.Generator().manual_seed(count)
    boxes, scores = random_boxes(count, generator), torch.rand(count, generator=generator)
    expected = greedy(boxes, scores, threshold)
    assert nms(boxes, scores, threshold).tolist() == expected
    assert nms(boxes, scores, threshold, limit=5).tolist() == expected[:5]


def test_nms_takes_equal_scores_in_order_and_keeps_chains():
    # Each box overlaps the next by 0.6; only every other one may stay.
    boxes = torch.tensor([[4.0 * n, 0, 4.0 * n + 16, 10] for n in range(300)])
    assert nms(boxes, torch.ones(300), 0.5).tolist() == list(range(0, 300, 2))
    assert nms(boxes, torch.arange(300.0), 0.5).tolist() == list(range(299, 0, -2))


def test_nms_keeps_groups_apart():
    generator = torch.Generator().manual_seed(1)
    boxes, scores = random_boxes(400, generator), torch.rand(400, generator=generator)
    groups = torch.randint(3, (400,), generator=generator)
    assert nms(boxes, scores, 0.3, groups=groups).tolist() == greedy(boxes, scores, 0.3, groups.tolist())


def test_nms_of_nothing_and_of_empty_boxes():
    assert nms(torch.zeros(0, 4), torch.zeros(0), 0.5).tolist() == []
    empty = torch.tensor([[3.0, 3, 3, 3]] * 3)
    assert nms(empty, torch.tensor([0.1, 0.3, 0.2]), 0.5).tolist() == [1, 2, 0]


def c_round(value):
    return math.copysign(math.floor(abs(value) + 0.5), value)


def pool_by_hand(features, box, size, scale):
    """RoIPool as its paper says, one bin after the other."""
    result = torch.zeros(len(features), size, size)
    left, top, right, bottom = (int(c_round(side * scale)) for side in box.tolist())
    wide, high = (torch.tensor(max(length, 1)) / size for length in (right - left + 1, bottom - top + 1))
    for row in range(size):
        for column in range(size):
            y1, y2 = (row * high).floor() + top, ((row + 1) * high).ceil() + top
            x1, x2 = (column * wide).floor() + left, ((column + 1) * wide).ceil() + left
            y1, y2 = (int(y.clamp(0, features.shape[1])) for y in (y1, y2))
            x1, x2 = (int(x.clamp(0, features.shape[2])) for x in (x1, x2))
            if y2 > y1 and x2 > x1:
                result[:, row, column] = features[:, y1:y2, x1:x2].amax((1, 2))
    return result


BOXES = torch.tensor(
    [
        [0, 0, 160, 112],
        [24, 40, 72, 88],  # halves of cells
        [-80, -60, 30, 40],
        [400, 300, 500, 400],  # outside
        [-500, -500, 900, 900],
        [50, 50, 50, 50],
        [90, 60, 40, 20],  # inverted
        [3.7, 5.1, 9.2, 100.3],
    ]
)


@pytest.mark.parametrize("size", [1, 3, 7])
def test_roi_pool_is_the_largest_value_of_every_bin(size):
    generator = torch.Generator().manual_seed(2)
    features = torch.randn(4, 8, 11, generator=generator)
    boxes = torch.cat([BOXES, random_boxes(30, generator)])
    expected = torch.stack([pool_by_hand(features, box, size, 1 / 16) for box in boxes])
    assert torch.equal(roi_pool(features, boxes, size=size, scale=1 / 16), expected)


def sample(features, y, x):
    """Bilinear, as torchvision documents it."""
    depth, height, width = features.shape
    if y < -1 or y > height or x < -1 or x > width:
        return torch.zeros(depth, dtype=features.dtype)
    y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
    top, left = int(y), int(x)
    bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
    down, over = y - top, x - left
    upper = features[:, top, left] * (1 - over) + features[:, top, right] * over
    lower = features[:, bottom, left] * (1 - over) + features[:, bottom, right] * over
    return upper * (1 - down) + lower * down


def align_by_hand(features, box, size, scale, samples, aligned):
    left, top, right, bottom = (side * scale - (0.5 if aligned else 0) for side in box.tolist())
    wide, high = right - left, bottom - top
    if not aligned:
        wide, high = max(wide, 1), max(high, 1)
    down, over = (samples or math.ceil(length / size) for length in (high, wide))
    result = torch.zeros(len(features), size, size, dtype=features.dtype)
    for row in range(size):
        for column in range(size):
            for j in range(down):
                for i in range(over):
                    y = top + row * high / size + (j + 0.5) * high / size / down
                    x = left + column * wide / size + (i + 0.5) * wide / size / over
                    result[:, row, column] += sample(features, y, x) / (down * over)
    return result


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("samples", [0, 1, 2])
def test_roi_align_is_the_mean_of_its_samples(samples, aligned):
    generator = torch.Generator().manual_seed(3)
    features = torch.randn(3, 8, 11, generator=generator, dtype=torch.double)
    boxes = torch.cat([BOXES, random_boxes(8, generator)]).double()
    options = {"size": 3, "scale": 1 / 16, "samples": samples, "aligned": aligned}
    expected = torch.stack([align_by_hand(features, box, **options) for box in boxes])
    torch.testing.assert_close(roi_align(features, boxes, **options), expected)


@pytest.mark.parametrize("operator", [roi_pool, roi_align])
def test_pooling_has_exact_gradients(operator):
    generator = torch.Generator().manual_seed(4)
    features = torch.randn(2, 5, 6, generator=generator, dtype=torch.double, requires_grad=True)
    boxes = random_boxes(3, generator, width=90, height=70).double()
    assert torch.autograd.gradcheck(lambda maps: operator(maps, boxes, size=2, scale=1 / 16), features)


@pytest.mark.parametrize("operator", [roi_pool, roi_align])
def test_pooling_does_not_depend_on_its_chunks(operator, monkeypatch):
    generator = torch.Generator().manual_seed(5)
    features, boxes = torch.randn(4, 8, 11, generator=generator), random_boxes(50, generator)
    together = operator(features, boxes, size=3, scale=1 / 16)
    monkeypatch.setattr(roi, "CHUNK", 1)
    torch.testing.assert_close(operator(features, boxes, size=3, scale=1 / 16), together)
    assert together.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("operator", [roi_pool, roi_align])
def test_pooling_of_no_boxes_and_in_half_precision(operator):
    features = torch.randn(4, 8, 11, generator=torch.Generator().manual_seed(6))
    assert operator(features, torch.zeros(0, 4), size=3, scale=1 / 16).shape == (0, 4, 3, 3)
    rough = operator(features.bfloat16(), BOXES, size=3, scale=1 / 16)
    assert rough.dtype == torch.bfloat16
    exact = operator(features, BOXES, size=3, scale=1 / 16)
    torch.testing.assert_close(rough.float(), exact, atol=0.03, rtol=0.03)


def test_anchors_surround_their_cell():
    boxes = anchors(2, 3, sizes=(32, 64), ratios=(0.5, 1, 2), stride=16).reshape(2, 3, 2, 3, 4)
    width, height = boxes[..., 2] - boxes[..., 0], boxes[..., 3] - boxes[..., 1]
    sizes, ratios = torch.tensor([32.0, 64.0])[:, None], torch.tensor([0.5, 1.0, 2.0])
    torch.testing.assert_close(width * height, (sizes**2).expand(2, 3, 2, 3))
    torch.testing.assert_close(height / width, ratios.expand(2, 3, 2, 3))
    centers = (boxes[..., :2] + boxes[..., 2:]) / 2
    torch.testing.assert_close(centers[1, 2], torch.tensor([32.0, 16.0]).expand(2, 3, 2))


def test_deltas_move_and_stretch():
    boxes = torch.tensor([[10.0, 20, 30, 60]])
    assert torch.equal(decode_boxes(boxes, torch.zeros(1, 8)), boxes.repeat(1, 2))
    moved = decode_boxes(boxes, torch.tensor([[1.0, -1, 0, math.log(2)]]), weights=(10, 10, 1, 1))
    torch.testing.assert_close(moved, torch.tensor([[12.0, -4, 32, 76]]))
    huge = decode_boxes(boxes, torch.tensor([[0.0, 0, 99, 99]]))
    torch.testing.assert_close(huge[0, 2:] - huge[0, :2], torch.tensor([20.0, 40]) * 62.5)


def test_clipping_may_leave_nothing():
    boxes = clip_boxes(torch.tensor([[-5.0, 10, 300, 90], [250, 10, 300, 90], [5, 7, 9, 8]]), (200, 80))
    assert boxes.tolist() == [[0, 10, 200, 80], [200, 10, 200, 80], [5, 7, 9, 8]]
    assert has_area(boxes).tolist() == [True, False, True]


class StandIn(types.SimpleNamespace):
    """In place of torchvision: counts who asks, and answers as agreed."""

    def __init__(self, kept=(0,)):
        super().__init__(calls=[], kept=kept)

    def nms(self, boxes, scores, threshold):
        self.calls.append("nms")
        return torch.tensor(self.kept)

    def roi_pool(self, features, boxes, size, scale):
        self.calls.append(("roi_pool", features.dtype, len(boxes), size, scale))
        return features.new_ones(len(boxes[0]), features.shape[1], size, size)

    def roi_align(self, features, boxes, size, scale, samples, aligned):
        self.calls.append(("roi_align", features.dtype, len(boxes), size, scale, samples, aligned))
        return features.new_ones(len(boxes[0]), features.shape[1], size, size)


def test_kernels_of_torchvision_do_the_work_where_they_exist(monkeypatch):
    kernels = StandIn(kept=(2, 0, 1))
    monkeypatch.setattr(roi, "torchvision_ops", lambda: kernels)
    boxes, features = BOXES[:3], torch.randn(2, 5, 6).bfloat16()
    assert nms(boxes, torch.rand(3), 0.5, limit=2).tolist() == [2, 0]
    assert roi_pool(features, boxes, size=3, scale=0.5).dtype == torch.bfloat16
    assert roi_align(features, boxes, size=3, scale=0.5, samples=2, aligned=False).shape == (3, 2, 3, 3)
    assert kernels.calls == [
        "nms",
        ("roi_pool", torch.float32, 1, 3, 0.5),
        ("roi_align", torch.float32, 1, 3, 0.5, 2, False),
    ]
    nms(boxes, torch.rand(3), 0.5, groups=torch.zeros(3, dtype=torch.int64))
    assert len(kernels.calls) == 3, "torchvision knows no groups"


@pytest.mark.parametrize(("kept", "used"), [((0,), True), ((), False)])
def test_torchvision_must_pass_a_probe(monkeypatch, kept, used):
    monkeypatch.undo()
    kernels = StandIn(kept=kept)
    monkeypatch.setattr(roi, "import_module", lambda name: {"torchvision.ops": kernels}[name])
    roi.torchvision_ops.cache_clear()
    assert (roi.torchvision_ops() is kernels) is used
    roi.torchvision_ops.cache_clear()


def test_a_torchvision_that_does_not_load_is_none(monkeypatch):
    monkeypatch.undo()

    def broken(name):
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr(roi, "import_module", broken)
    roi.torchvision_ops.cache_clear()
    assert roi.torchvision_ops() is None
    roi.torchvision_ops.cache_clear()
