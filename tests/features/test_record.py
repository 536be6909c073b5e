import numpy as np
import pytest

from diptych.errors import FormatError
from diptych.features.record import Widths, record_of, regions_of

BOXES = np.array([[0, 0, 10, 10], [5, 5, 20, 20]], np.float32)
RECORD = {"img_w": 40, "img_h": 30, "boxes": BOXES, "features": np.ones((2, 8), np.float32)}
WIDTHS = Widths(8)


def test_a_record_holds_the_names_of_a_layout_in_their_order(regions):
    record = record_of("7", regions(2), "feature_path bbox image_width num_boxes attr_id cls_prob features")
    assert list(record) == ["feature_path", "bbox", "image_width", "num_boxes", "attr_id", "features"]
    assert (record["feature_path"], record["image_width"], record["num_boxes"]) == ("7", 320, 2)


@pytest.mark.parametrize("value", [40, 40.0, "40", b"40.0", np.int64(40), np.array(40), np.array([40])])
def test_sizes_may_be_written_in_many_ways(value):
    assert regions_of(RECORD | {"img_w": value}, WIDTHS)[0].size == (40, 30)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"img_w": 10**400}, "img_w is .*; expected a whole number"),
        ({"img_w": [40, 40]}, "img_w is .*; expected a whole number"),
        ({"img_w": None}, r"it has no width \(expected one of img_w, image_w, image_width\)"),
        ({"features": None}, "it has no features"),
        ({"objects_id": np.array([0.5, 1])}, "objects_id holds numbers that are not whole"),
        ({"objects_id": np.array([np.nan, 1])}, "objects_id holds numbers that are not whole"),
        ({"features": np.array([["a"] * 8] * 2)}, "features holds <U1 values"),
        ({"cls_prob": np.ones((2, 3, 1))}, r"cls_prob has the shape \(2, 3, 1\); expected a row per box"),
        ({"cls_prob": np.ones((9, 3))}, "the counts disagree: boxes 2, features 2, cls_prob 9"),
    ],
)
def test_what_a_record_lacks_is_named(changes, message):
    with pytest.raises(FormatError, match=message):
        regions_of(RECORD | changes, WIDTHS)


def test_numbers_too_large_for_single_precision_are_refused():
    regions, _ = regions_of(RECORD | {"features": np.full((2, 8), 1e300)}, WIDTHS)
    with pytest.raises(FormatError, match="NaN or infinite features"):
        regions.verify()


def test_indices_may_be_whole_floats_and_half_precision_is_kept():
    record = RECORD | {"objects": np.array([3.0, 4.0]), "features": np.ones((2, 8), np.float16)}
    regions, surplus = regions_of(record, WIDTHS)
    assert regions.labels.tolist() == [3, 4]
    assert regions.labels.dtype == np.int64
    assert regions.features.dtype == np.float16
    assert not surplus


def test_normalized_boxes_are_scaled_to_the_size_that_is_there():
    record = {"norm_bb": np.array([[0.25, 0.5, 0.75, 1, 0.5, 0.5]]), "features": np.ones((1, 8))}
    assert regions_of(record, WIDTHS)[0].boxes.tolist() == [[256, 512, 768, 1024]]
    with pytest.raises(FormatError, match="it has no height"):
        regions_of(record | {"img_w": 400}, WIDTHS)
