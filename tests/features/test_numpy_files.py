import os
import zipfile

import numpy as np
import pytest

from diptych.errors import FormatError
from diptych.features import read_features


class Command:
    def __reduce__(self):
        return os.system, ("touch executed",)


def test_vilbert_keeps_everything_in_one_file(tmp_path, regions, same):
    one = regions(3, classes=4)
    info = {"image_id": 7, "image_width": one.size[0], "image_height": one.size[1], "num_boxes": 3}
    info |= {
        "bbox": one.boxes,
        "features": one.features,
        "objects": one.labels,
        "cls_prob": one.probabilities,
    }
    (tmp_path / "files").mkdir()
    np.save(tmp_path / "files" / "7.npy", info)
    [(key, got)] = read_features(tmp_path / "files")
    assert (key, got.size) == ("7", one.size)
    np.testing.assert_array_equal(got.features, one.features)
    np.testing.assert_array_equal(got.probabilities, one.probabilities)


@pytest.mark.parametrize("name", ["00003.npy", "00003_info.npy"])
def test_a_file_that_wants_to_run_code_is_refused(original, tmp_path, monkeypatch, name):
    source = original("mmf-npy")
    monkeypatch.chdir(tmp_path)
    np.save(source / name, np.array(Command(), object), allow_pickle=True)
    with pytest.raises(FormatError, match=rf"image '00003': {name}: .*system"):
        list(read_features(source))
    assert not (tmp_path / "executed").exists()


def test_an_npz_of_objects_is_refused(original, tmp_path, monkeypatch):
    source = original("uniter-npz")
    monkeypatch.chdir(tmp_path)
    np.savez(source / "00003.npz", features=np.array([Command()], object))
    with pytest.raises(FormatError, match=r"image '00003': 00003\.npz: .*object"):
        list(read_features(source))
    assert not (tmp_path / "executed").exists()


def test_what_is_missing_beside_a_file_is_named(original):
    source = original("mmf-npy")
    np.save(source / "00004_info.npy", np.zeros(3))
    with pytest.raises(FormatError, match=r"image '00004': 00004_info\.npy"):
        list(read_features(source))
    (source / "00002_info.npy").unlink()
    with pytest.raises(FormatError, match=r"image '00002': 00002_info\.npy .*00002\.npy"):
        list(read_features(source))


@pytest.mark.parametrize(
    "keys", [["a_info", "b"], ["a_info"], ["a_info", "a_info_info_info"], ["info", "x_"]]
)
def test_ids_may_end_like_the_second_file(tmp_path, regions, keys):
    (tmp_path / "files").mkdir()
    for key in keys:
        one = regions(3)
        info = {"bbox": one.boxes, "image_width": one.size[0], "image_height": one.size[1]}
        np.save(tmp_path / "files" / f"{key}.npy", one.features)
        np.save(tmp_path / "files" / f"{key}_info.npy", np.array(info, object), allow_pickle=True)
    assert [key for key, _ in read_features(tmp_path / "files")] == sorted(keys)


def test_a_second_file_without_the_first_is_named(original):
    source = original("mmf-npy")
    (source / "00003.npy").unlink()
    with pytest.raises(FormatError, match=r"image '00003_info': .*no features"):
        list(read_features(source))


HEADS = {
    "more than the file": "{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000,), }",
    "negative": "{'descr': '<f4', 'fortran_order': False, 'shape': (-5, 4), }",
    "beyond integers": "{'descr': '<f4', 'fortran_order': False, 'shape': (4294967296, 4294967296), }",
    "code": "{'descr': '<f4', 'fortran_order': False, 'shape': (__import__('os').getpid(),), }",
    "not closed": "{'descr': '<f4', 'fortran_order': False, 'shape': (4,",
    "nested": "(" * 5000 + ")" * 5000,
    "structured": "{'descr': [('a', '<f4', (100000, 100000))], 'fortran_order': False, 'shape': (1,), }",
    "dates": "{'descr': '<m8[s]', 'fortran_order': False, 'shape': (1,), }",
    "void": "{'descr': '|V0', 'fortran_order': False, 'shape': (5,), }",
}


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("form", ["mmf-npy", "uniter-npz"])
def test_headers_are_not_believed(original, form, name):
    source = original(form)
    text = HEADS[name].encode() + b"\n"
    data = b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + b"\0" * 8
    if form == "mmf-npy":
        (source / "00003.npy").write_bytes(data)
    else:
        with zipfile.ZipFile(source / "00003.npz", "w") as archive:
            archive.writestr("features.npy", data)
    with pytest.raises(FormatError, match="image '00003': 00003"):
        list(read_features(source))
    assert len(list(read_features(source, on_error="skip"))) == 6


def test_milvlg_calls_features_x(tmp_path, regions):
    one = regions(4)
    (tmp_path / "files").mkdir()
    arrays = {"x": one.features, "bbox": one.boxes, "num_bbox": 4, "image_w": one.size[0]}
    info = np.array({"objects_id": one.labels}, object)
    np.savez(tmp_path / "files" / "7.npz", image_h=one.size[1], info=info, **arrays)
    [(key, got)] = read_features(tmp_path / "files")
    assert (key, got.size) == ("7", one.size)
    np.testing.assert_array_equal(got.features, one.features)
    np.testing.assert_array_equal(got.boxes, one.boxes)
