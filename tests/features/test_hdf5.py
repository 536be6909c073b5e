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
    with pytest.raises(FormatError, match=r"image_bb .*features, boxes, img_w and img_h"):
        list(read_features(tmp_path / "other"))


def test_an_empty_file_is_named(tmp_path):
    with h5py.File(tmp_path / "empty", "w"):
        pass
    with pytest.raises(FormatError, match="/empty: "):
        list(read_features(tmp_path / "empty"))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("boxes", None, ".*no boxes .*boxes, bbox"),
        ("boxes", np.ones((3, 5), "f4"), r"boxes .*\(3, 5\).* 4"),
        ("features", np.ones((3, 2, 2), "f4"), r"features .*\(3, 2, 2\)"),
        ("features", np.ones((3, 9), "f4"), r"features .*\(3, 9\).* 8"),
        ("obj_id", np.ones(2), ".*obj_id 2"),
        ("img_w", 2.5, r"img_w .*2\.5"),
        ("features", np.full((3, 8), np.inf, "f4"), "region 0 .*NaN"),
        ("boxes", ["a", "b", "c"], "boxes .*object"),
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

    with pytest.raises(FormatError, match=r"image '00009': 00009 .*link"):
        list(read_features(change(spoil)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda group: group.create_dataset("features", (10**9, 2048), "f4", chunks=(1, 2048)),
            "features .*67,108,864",
        ),
        (
            lambda group: group.create_dataset(
                "features", (1, 8), "f4", chunks=(10**6, 80), maxshape=(None, 80)
            ),
            "features .*67,108,864",
        ),
        (
            lambda group: group.create_dataset(
                "features", data=np.zeros((70_000, 1024), "f4"), chunks=(1000, 1024), compression="gzip"
            ),
            "features .*286,720,000",
        ),
        (lambda group: group.create_dataset("features", (16,), "f4", external=[("a", 0, 64)]), "other files"),
        (
            lambda group: group.__setitem__("features", h5py.SoftLink("/00001/features")),
            "link",
        ),
        (lambda group: group.__setitem__("features", h5py.ExternalLink("a", "/x")), "link"),
        (
            lambda group: group.create_dataset("features", (3,), h5py.vlen_dtype("f4")),
            "features .*object",
        ),
        (lambda group: group.create_virtual_dataset("features", elsewhere()), "other files"),
    ],
)
def test_what_a_file_claims_is_looked_at_before_it_is_read(original, change, message):
    source = original("volta-hdf5")
    with h5py.File(source, "r+") as file:
        del file["00002"]["features"]
        change(file["00002"])
    with pytest.raises(FormatError, match=f"image '00002': .*{message}"):
        list(read_features(source))
    assert len(list(read_features(source, on_error="skip"))) == 6


def elsewhere():
    layout = h5py.VirtualLayout((3, 8), "f4")
    layout[:] = h5py.VirtualSource("other.h5", "x", (3, 8))
    return layout
