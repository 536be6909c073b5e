import numpy as np
import pytest

from diptych.boxes import CONVENTIONS, doubts, other_convention

SIZE = (640, 480)
BOXES = np.array([[10, 20, 200, 300], [400, 100, 620, 470]], np.float32)
WRITTEN = {
    "xywh": np.concatenate([BOXES[:, :2], BOXES[:, 2:] - BOXES[:, :2]], 1),
    "yxyx": BOXES[:, [1, 0, 3, 2]],
}


@pytest.mark.parametrize("name", CONVENTIONS)
def test_every_convention_leads_back_to_ours_and_is_recognized(name):
    np.testing.assert_allclose(CONVENTIONS[name][1](WRITTEN[name]), BOXES)
    assert other_convention(WRITTEN[name], SIZE).endswith(f"boxes={name}.")


def test_nonsense_is_no_convention():
    assert other_convention(np.array([[9000, 1, 2, 3]], np.float32), SIZE) == ""


@pytest.mark.parametrize(
    ("boxes", "found"),
    [
        (BOXES, ()),
        (BOXES[:0], ()),
        (BOXES / np.array(SIZE * 2), ("scaled",)),
        (np.array([[5, 5, 5, 9], [1, 2, 30, 40]]), ("flat",)),
        (np.array([[0, 0, 0, 0]]), ("scaled", "flat")),
    ],
)
def test_what_nobody_can_have_meant_is_told(boxes, found):
    assert doubts(boxes.astype(np.float32), SIZE) == found
