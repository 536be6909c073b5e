import h5py
import numpy as np
import pytest

from diptych.errors import FormatError
from diptych.features import ReadLog, read_features


@pytest.fixture
def change(original):
    """An HDF5 of VOLTA after some changes."""

    def make(function):
        source = original("volta-hdf5")
        with h5py.File(source, "r+") as file:
            function(file)
        return source

    return make


def test_another_layout_is_named(tmp_path):
    with h5py.File(tmp_path / "other", "w") as file:
        file["image_features"], file["image_bb"] = np.ones((9, 4)), np.ones((9, 4))
    with pytest.raises(FormatError, match="image_bb is a dataset; expected one group per image with"):
        list(read_features(tmp_path / "other"))


def test_an_empty_file_is_named(tmp_path):
    with h5py.File(tmp_path / "empty", "w"):
        pass
    with pytest.raises(FormatError, match="it holds no images"):
        list(read_features(tmp_path / "empty"))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("boxes", None, r"it has no boxes \(expected one of boxes, bbox\)"),
        ("boxes", np.ones((3, 5), "f4"), r"boxes has the shape \(3, 5\); expected rows of 4"),
        ("features", np.ones((3, 2, 2), "f4"), r"features has the shape \(3, 2, 2\)"),
        ("features", np.ones((3, 9), "f4"), r"features has the shape \(3, 9\); expected rows of 8"),
        ("obj_id", np.ones(2), "the counts disagree: obj_id 2"),
        ("img_w", 2.5, r"img_w is '2\.5'; expected a whole number"),
        ("features", np.full((3, 8), np.inf, "f4"), "region 0 has NaN or infinite"),
        ("boxes", ["a", "b", "c"], "boxes holds object values; expected numbers"),
    ],
)
def test_a_bad_group_is_named_or_left_out(change, name, value, message):
    def spoil(file):
        del file["00002"][name]
        if value is not None:
            file["00002"][name] = value

    source = change(spoil)
    with pytest.raises(FormatError, match=f"image '00002': {message}"):
        list(read_features(source))
    log = ReadLog()
    assert len(list(read_features(source, on_error="skip", log=log))) == 6
    assert [fault.id for fault in log.skipped] == ["00002"]


def test_a_link_that_leads_nowhere_is_named(change):
    def spoil(file):
        file["00009"] = h5py.SoftLink("/nothing")

    with pytest.raises(FormatError, match="image '00009': 00009 is a link to another place"):
        list(read_features(change(spoil)))
