import numpy as np
import pytest

from diptych.errors import FormatError
from diptych.metrics import box_overlap, measure_boxes
from diptych.predictions import Predictions


def test_overlap_is_intersection_over_union_row_by_row():
    boxes = np.array([[0.0, 0, 2, 2], [0, 0, 2, 2], [0, 0, 1, 1], [3, 3, 3, 3]])
    gold = np.array([[1.0, 0, 3, 2], [0, 0, 2, 2], [5, 5, 6, 6], [3, 3, 3, 3]])
    assert box_overlap(boxes, gold) == pytest.approx([1 / 3, 1, 0, 0])


def test_accuracy_counts_boxes_that_overlap_by_half():
    boxes = np.array([[0.0, 0, 10, 10], [0, 0, 10, 5], [0, 0, 10, 4], [0, 0, 1, 1]])
    given = Predictions(ids=tuple("abcd"), boxes=boxes)
    gold = {key: [0, 0, 10, 10] for key in "abc"} | {"d": None}
    measured = measure_boxes(given, gold)
    assert measured == {"accuracy": pytest.approx(2 / 3), "mean_iou": pytest.approx(1.9 / 3)}
    assert measure_boxes(given, gold, threshold=0.9)["accuracy"] == pytest.approx(1 / 3)
    assert measure_boxes(given, dict.fromkeys("abcd")) == {}
    with pytest.raises(FormatError, match=" x1 y1 x2 y2 "):
        measure_boxes(given, gold | {"d": "left"})
    with pytest.raises(FormatError, match="boxes"):
        measure_boxes(Predictions(ids=tuple("abcd")), gold)
