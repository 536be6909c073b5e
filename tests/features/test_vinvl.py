import base64
import json

import numpy as np
import pytest

from diptych.errors import FormatError
from diptych.features import read_features


def features_of(one):
    """Detector features and, after them, the box as fractions of the image."""
    parts = one.boxes / np.array(one.size * 2, np.float32)
    return np.concatenate([one.features, parts, parts[:, 2:] - parts[:, :2]], 1).astype("<f4")


def text(values):
    return base64.b64encode(np.ascontiguousarray(values, "<f4")).decode()


def write(path, rows):
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join("\t".join(map(str, row)) + "\n" for row in rows))
    return path


def objects_of(one, *, features):
    rows = zip(one.boxes.tolist(), one.features, strict=True)
    return [
        {"rect": box, "class": "cat", "conf": 0.5} | ({"feature": text(row)} if features else {})
        for box, row in rows
    ]


@pytest.mark.parametrize("columns", [2, 3])
def test_features_bring_their_boxes(tmp_path, regions, columns):
    images = {str(number): regions(number % 3 + 1, seed=number) for number in range(5)}
    rows = [
        (key, len(one), text(features_of(one)))
        if columns == 3
        else (key, json.dumps({"num_boxes": len(one), "features": text(features_of(one))}))
        for key, one in images.items()
    ]
    for key, got in read_features(write(tmp_path / "feature.tsv", rows)):
        np.testing.assert_array_equal(got.features, images[key].features)
        scale = np.array(images[key].size * 2) / np.array(got.size * 2)
        np.testing.assert_allclose(got.boxes * scale, images[key].boxes, rtol=1e-4)


def test_the_size_of_the_picture_is_taken_where_it_is_there(tmp_path, regions):
    one = regions(3)
    values = {
        "num_boxes": 3,
        "features": text(features_of(one)),
        "image_w": one.size[0],
        "image_h": one.size[1],
    }
    [(_, got)] = read_features(write(tmp_path / "a.tsv", [("7", json.dumps(values))]))
    assert got.size == one.size


def test_predictions_are_read_where_they_know_the_size(tmp_path, regions):
    one = regions(3)
    values = {"image_w": one.size[0], "image_h": one.size[1], "objects": objects_of(one, features=True)}
    [(_, got)] = read_features(write(tmp_path / "predictions.tsv", [("7", json.dumps(values))]))
    np.testing.assert_array_equal(got.features, one.features)
    np.testing.assert_allclose(got.boxes, one.boxes)
    del values["image_w"]
    with pytest.raises(FormatError, match=r"predictions\.tsv: line 1.*feature\.tsv"):
        list(read_features(write(tmp_path / "predictions.tsv", [("7", json.dumps(values))])))


def test_of_a_folder_the_features_are_taken(tmp_path, regions):
    one = regions(2)
    write(tmp_path / "v" / "label.tsv", [("7", json.dumps(objects_of(one, features=False)))])
    write(
        tmp_path / "v" / "predictions.tsv", [("7", json.dumps({"objects": objects_of(one, features=True)}))]
    )
    values = {"num_boxes": 2, "features": text(features_of(one))}
    write(tmp_path / "v" / "feature.tsv", [("7", json.dumps(values))])
    assert [key for key, _ in read_features(tmp_path / "v")] == ["7"]
    with pytest.raises(FormatError, match=r"label\.tsv: line 1.*feature\.tsv"):
        list(read_features(tmp_path / "v" / "label.tsv"))


@pytest.mark.parametrize(
    "values",
    [
        {"num_boxes": 3, "features": text(np.ones((3, 14)))},
        {"num_boxes": 4, "features": text(np.ones((3, 14)))},
        {"num_boxes": -1, "features": ""},
        {"num_boxes": 10**9, "features": ""},
        {"num_boxes": 1, "features": 5},
        {"num_boxes": 1, "features": "#"},
        {"features": [1]},
        {"objects": 5, "feature": 1},
        {"objects": [{"feature": None}], "image_w": 5, "image_h": 5},
        {
            "objects": [{"feature": text(np.ones(2))}, {"feature": text(np.ones(3))}],
            "image_w": 5,
            "image_h": 5,
        },
    ],
)
def test_a_bad_row_is_named(tmp_path, values):
    with pytest.raises(FormatError, match="line 1"):
        list(read_features(write(tmp_path / "a.tsv", [("7", json.dumps(values))])))
