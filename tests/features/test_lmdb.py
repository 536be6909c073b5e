import pickle

import lmdb
import msgpack
import numpy as np
import pytest

from diptych.errors import FormatError
from diptych.features import ReadLog, export_features, read_features, write_store


@pytest.fixture
def put(tmp_path):
    """Writes an LMDB of these keys and values."""

    def make(**values):
        path = tmp_path / "db"
        with (
            lmdb.open(str(path), map_size=1 << 26) as environment,
            environment.begin(write=True) as transaction,
        ):
            for key, value in values.items():
                transaction.put(key.encode(), value)
        return path

    return make


def item(one, **changes):
    values = {"features": one.features, "image_height": one.size[1], "image_width": one.size[0]}
    return pickle.dumps(values | {"num_boxes": 3, "objects": one.labels, "bbox": one.boxes} | changes)


def test_an_environment_may_be_a_folder_a_file_or_lie_one_folder_below(original, items, tmp_path):
    images = items(4, boxes=3, classes=5)
    source = original("mmf-lmdb", images)
    expected = [key for key, _ in images]
    for path in (source, source / "data.mdb"):
        assert [key for key, _ in read_features(path)] == expected
    (tmp_path / "above").mkdir()
    source.rename(tmp_path / "above" / "inside")
    assert [key for key, _ in read_features(tmp_path / "above")] == expected


def test_reading_leaves_the_folder_as_it_is(original, contents):
    source = original("mmf-lmdb")
    before = contents(source)
    list(read_features(source))
    assert contents(source) == before


def test_volta_keeps_arrays_and_numpy_scalars_under_its_own_names(put, regions, same):
    one = regions(3)
    values = {"features": one.features, "boxes": one.boxes, "obj_id": one.labels, "obj_conf": one.scores}
    values |= {"attr_id": one.attributes, "attr_conf": one.attribute_scores, "img_id": "7"}
    values |= {"img_w": np.int64(one.size[0]), "img_h": np.int64(one.size[1])}
    source = put(**{"7": pickle.dumps(values), "keys": pickle.dumps([b"7"])})
    [(key, got)] = read_features(source)
    assert key == "7"
    same(got, one)


def test_mmf_counts_only_confident_boxes(put, regions):
    source = put(**{"7": item(regions(3), num_boxes=2), "keys": pickle.dumps([b"7"])})
    assert [len(got) for _, got in read_features(source)] == [3]


def test_the_order_is_that_of_the_list_of_keys(put, regions):
    values = {name: item(regions(3)) for name in "abc"}
    source = put(**values, keys=pickle.dumps([b"b", "c", b"a"]))
    assert [key for key, _ in read_features(source)] == ["b", "c", "a"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "`keys`.*`__keys__`"),
        ({"keys": b"no pickle"}, r"data\.mdb: "),
        ({"keys": pickle.dumps(5)}, "`keys` .*int"),
        ({"__keys__": pickle.dumps(["7"])}, "`__keys__`"),
        ({"keys": pickle.dumps([])}, "image '7': .*1 records"),
        ({"keys": pickle.dumps(["8"])}, "image '8': .*list of keys"),
        ({"7": pickle.dumps([1]), "keys": pickle.dumps(["7"])}, "image '7': .*list"),
        ({"7": pickle.dumps(print), "keys": pickle.dumps(["7"])}, "image '7': .*print"),
        (
            {"7": pickle.dumps({"features": np.ones((3, 8))}), "keys": pickle.dumps(["7"])},
            "image '7': .*boxes, bbox.*features",
        ),
        ({"7": b"\x93", "__keys__": b'["7"]'}, "image '7': .*msgpack"),
        ({"7": b"PK\x03\x04", "__keys__": b'["7"]'}, "image '7': .*NPZ"),
    ],
)
def test_what_an_lmdb_lacks_is_named(put, regions, changes, message):
    source = put(**{"7": item(regions(3)), **changes})
    with pytest.raises(FormatError, match=message):
        list(read_features(source))


def test_a_key_that_is_listed_twice_is_named_or_left_out(put, regions):
    source = put(**{"7": item(regions(3)), "keys": pickle.dumps(["7", "7"])})
    with pytest.raises(FormatError, match=r"image '7': .*second"):
        list(read_features(source))
    log = ReadLog()
    assert len(list(read_features(source, on_error="skip", log=log))) == 1
    assert str(log.skipped[0]).startswith("image '7': ")


def test_pickled_objects_inside_msgpack_are_refused(put):
    array = {b"nd": True, b"type": "|O", b"kind": b"O", b"shape": [1], b"data": pickle.dumps(print)}
    source = put(**{"7": msgpack.packb({"features": array}), "__keys__": b'["7"]'})
    with pytest.raises(FormatError, match=r"'\|O'"):
        list(read_features(source))


def test_ids_that_lmdb_cannot_keep_are_named(tmp_path, regions, meta):
    for number, (key, value) in enumerate([("x" * 512, "511"), ("keys", "'keys'")]):
        store = write_store(tmp_path / f"s{number}", [(key, regions(2))], meta)
        with pytest.raises(FormatError, match=value):
            export_features(store, tmp_path / "out", format="mmf-lmdb")
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["keys", "__keys__"])
def test_records_that_are_not_listed_are_named(put, regions, name):
    listed = pickle.dumps(["7"]) if name == "keys" else b'["7"]'
    source = put(**{key: item(regions(3)) for key in "789"}, **{name: listed})
    log = ReadLog()
    list(read_features(source, on_error="skip", log=log, feature_dim=8))
    skipped = [fault for fault in log.skipped if "2 records" in fault.reason]
    assert [fault.id for fault in skipped] == ["8", "9"]


def test_records_on_damaged_pages_are_left_out(put, regions):
    keys = [f"{number:03d}" for number in range(60)]
    source = put(**{key: item(regions(3)) for key in keys}, keys=pickle.dumps(keys))
    data = bytearray((source / "data.mdb").read_bytes())
    place = next(page for page in range(2, 99) if b"030" in data[page * 4096 : (page + 1) * 4096])
    data[place * 4096 : (place + 1) * 4096] = bytes(4096)
    (source / "data.mdb").write_bytes(data)
    with pytest.raises(FormatError, match=rf"page {place}:"):
        list(read_features(source))
    log = ReadLog()
    read = [key for key, _ in read_features(source, on_error="skip", log=log)]
    assert sorted(read + [fault.id for fault in log.skipped]) == keys
    assert "030" not in read
    assert len(read) > 40
