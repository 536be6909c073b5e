from dataclasses import replace

import numpy as np
import pytest

from diptych.errors import FormatError
from diptych.features import import_features, read_features


def written_as(policy, one):
    if policy == "scaled":
        return one.boxes / np.array(one.size * 2, np.float32)
    if policy == "yxyx":
        return one.boxes[:, [1, 0, 3, 2]]
    return np.concatenate([one.boxes[:, :2], one.boxes[:, 2:] - one.boxes[:, :2]], 1)


@pytest.fixture
def odd_boxes(tmp_path, regions, row, write_rows):
    def make(policy, count=20):
        corner = np.array(
            [[260, 100, 310, 200]], np.float32
        )  # beyond the height, narrower than it lies right
        images = [
            replace(regions(1, seed=seed), boxes=corner + seed / 9, size=(330, 240)) for seed in range(count)
        ]
        rows = [
            row(str(number), replace(one, boxes=written_as(policy, one))) for number, one in enumerate(images)
        ]
        return write_rows(tmp_path / "a.tsv", rows), images

    return make


@pytest.mark.parametrize("policy", ["scaled", "xywh", "yxyx"])
def test_boxes_of_another_convention_are_read_on_request(odd_boxes, policy):
    source, images = odd_boxes(policy)
    for (_, got), one in zip(read_features(source, boxes=policy), images, strict=True):
        np.testing.assert_allclose(got.boxes, one.boxes, atol=1e-3)


@pytest.mark.parametrize("policy", ["xywh", "yxyx"])
@pytest.mark.parametrize("boxes", ["check", "clip"])
def test_boxes_of_another_convention_are_refused_with_their_number(odd_boxes, policy, boxes):
    source, _ = odd_boxes(policy)
    with pytest.raises(FormatError, match=rf"boxes={policy}\..* 20 .*20"):
        list(read_features(source, boxes=boxes))


def test_scaled_boxes_are_counted(odd_boxes, tmp_path):
    report = import_features(odd_boxes("scaled")[0], tmp_path / "store")
    [line] = [line for line in report.lines() if line.startswith("warning")]
    assert line.startswith("warning: 20 of 20 images")
    assert import_features(odd_boxes("scaled")[0], tmp_path / "right", boxes="scaled").doubts == {}


def test_flat_boxes_are_counted(tmp_path, regions, row, write_rows):
    images = [regions(2, seed=seed) for seed in range(5)]
    images[3].boxes[1, 2] = images[3].boxes[1, 0]
    source = write_rows(tmp_path / "a.tsv", [row(str(n), one) for n, one in enumerate(images)])
    report = import_features(source, tmp_path / "store")
    assert "warning: 1 of 5 images have boxes without width or height" in report.lines()
