import base64
from dataclasses import replace

import numpy as np
import pytest

from diptych.errors import FormatError
from diptych.features import import_features, read_features
from diptych.features.fields import Widths, record_of, regions_of

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
        ({"img_w": 10**400}, "img_w .*'10000"),
        ({"img_w": [40, 40]}, r"img_w .*\[40, 40\]"),
        ({"img_w": None}, "width .*img_w, image_w, image_width"),
        ({"features": None}, "no features"),
        ({"objects_id": np.array([0.5, 1])}, "objects_id"),
        ({"objects_id": np.array([np.nan, 1])}, "objects_id"),
        ({"attrs_conf": np.float32(1)}, "attrs_conf 1, boxes 2, features 2"),
        ({"attrs_conf": np.ones((2, 3))}, r"attrs_conf .*\(2, 3\)"),
        ({"objects_id": np.array([np.inf, 1])}, "objects_id"),
        ({"features": np.array([["a"] * 8] * 2)}, "features .*<U1"),
        ({"cls_prob": np.ones((2, 3, 1))}, r"cls_prob .*\(2, 3, 1\)"),
        ({"cls_prob": np.ones((9, 3))}, "boxes 2, features 2, cls_prob 9"),
    ],
)
def test_what_a_record_lacks_is_named(changes, message):
    with pytest.raises(FormatError, match=message):
        regions_of(RECORD | changes, WIDTHS)


def test_numbers_too_large_for_single_precision_are_refused():
    regions, _ = regions_of(RECORD | {"features": np.full((2, 8), 1e300)}, WIDTHS)
    with pytest.raises(FormatError, match=r"region 0 .*NaN"):
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
    with pytest.raises(FormatError, match="height"):
        regions_of(record | {"img_w": 400}, WIDTHS)


def column(kind):
    return lambda one: base64.b64encode(one.features.astype(kind).tobytes()).decode()


@pytest.mark.parametrize("kind", ["<f2", "<f4", "<f8"])
@pytest.mark.parametrize("boxes", [1, 3, 36])
@pytest.mark.parametrize("sparse", [False, True])
def test_the_number_type_of_features_is_seen(tmp_path, regions, row, write_rows, kind, boxes, sparse):
    images = [regions(boxes, width=24, seed=seed) for seed in range(12)]
    if sparse:  # as a network with ReLU leaves them
        images = [replace(one, features=one.features.clip(min=0)) for one in images]
    rows = [row(str(number), one, features=column(kind)(one)) for number, one in enumerate(images)]
    source = write_rows(tmp_path / "a.tsv", rows)
    for width in (None, 24):
        for (_, got), one in zip(read_features(source, feature_dim=width), images, strict=True):
            np.testing.assert_array_equal(got.features, one.features.astype(kind).astype("<f4"))
    report = import_features(source, tmp_path / "store")
    assert report.features == "24 wide, float32" + {"<f2": " (float16 there)", "<f8": " (float64 there)"}.get(
        kind, ""
    )


@pytest.mark.parametrize(
    "values", [np.ones, np.zeros, lambda shape: np.arange(np.prod(shape)).reshape(shape)]
)
def test_plain_float32_is_never_taken_for_another_type(tmp_path, regions, row, write_rows, values):
    images = [replace(regions(3), features=values((3, 24)).astype("<f4")) for _ in range(3)]
    rows = [row(str(number), one) for number, one in enumerate(images)]
    for _, got in read_features(write_rows(tmp_path / "a.tsv", rows)):
        np.testing.assert_array_equal(got.features, images[0].features)


def test_a_width_that_the_bytes_do_not_give_is_named(tmp_path, regions, row, write_rows):
    with pytest.raises(FormatError, match=r"features .*24 .*7"):
        list(read_features(write_rows(tmp_path / "a.tsv", [row("1", regions(3))]), feature_dim=7))


@pytest.mark.parametrize(("boxes", "scores", "labels"), [("<f8", "<f8", "<i4"), ("<f2", "<f2", "<i4")])
def test_other_columns_may_have_other_types_too(tmp_path, regions, row, write_rows, boxes, scores, labels):
    def packed(values, kind):
        return base64.b64encode(values.astype(kind).tobytes()).decode()

    one = regions(3)
    cells = {"boxes": packed(one.boxes, boxes), "objects_conf": packed(one.scores, scores)}
    cells["objects_id"] = packed(one.labels, labels)
    [(_, got)] = read_features(write_rows(tmp_path / "a.tsv", [row("1", one, **cells)]))
    np.testing.assert_allclose(got.boxes, one.boxes, rtol=1e-2)
    np.testing.assert_array_equal(got.labels, one.labels)
    np.testing.assert_allclose(got.scores, one.scores, rtol=1e-2)
