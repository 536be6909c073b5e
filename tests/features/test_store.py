import json
import multiprocessing
import pickle
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from torch.utils.data import DataLoader, Dataset

from diptych.errors import ConfigError, FormatError, MissingFeatures
from diptych.features import FeatureStore, write_store
from diptych.types import FeatureMeta

SHARD = 800  # bytes; a few images each


@pytest.fixture
def store(tmp_path, items, meta):
    return write_store(tmp_path / "store", items(40), meta, shard_bytes=SHARD)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_a_store_returns_what_was_written(tmp_path, items, meta, same, dtype):
    written = items(25, classes=3)
    store = write_store(tmp_path / "store", written, replace(meta, dtype=dtype), shard_bytes=SHARD)
    assert len(store) == 25
    for key, expected in written:
        features, soft = expected.features.astype(dtype), expected.probabilities.astype(dtype)
        same(store[key], replace(expected, features=features, probabilities=soft))
        assert store[key].features.dtype == dtype


def test_fields_that_were_not_written_are_none(tmp_path, regions, meta):
    bare = replace(regions(3), labels=None, scores=None, attributes=None, attribute_scores=None)
    got = write_store(tmp_path / "store", [("a", bare)], meta)["a"]
    assert got.labels is got.scores is got.attributes is got.attribute_scores is got.probabilities is None


def test_keys_and_counts_keep_the_order_of_writing(tmp_path, items, meta):
    written = items(12)[::-1]
    store = write_store(tmp_path / "store", written, meta)
    assert store.keys() == tuple(store) == tuple(key for key, _ in written)
    assert store.counts().tolist() == [len(regions) for _, regions in written]
    assert [store.count(key) for key in store] == store.counts().tolist()


def test_counting_maps_no_features(tmp_path, items, meta):
    write_store(tmp_path / "store", items(5), meta)
    store = FeatureStore(tmp_path / "store")
    assert store.count("00003") == 3
    assert store.counts().sum() == 10
    maps = Path("/proc/self/maps").read_text()
    assert str(tmp_path / "store" / "part-00000.arrow") not in maps
    store["00003"]
    assert str(tmp_path / "store" / "part-00000.arrow") in Path("/proc/self/maps").read_text()


def test_integer_ids_match_however_they_are_padded(store):
    for key in ("00007", "7", "007", 7):
        assert key in store
        np.testing.assert_array_equal(store[key].features, store["00007"].features)
        assert store.count(key) == 2
    assert "0x7" not in store
    assert "seven" not in store
    assert 4000 not in store


def test_an_exact_key_wins_and_an_ambiguous_one_matches_nothing(tmp_path, regions, meta):
    written = [("7", regions(1)), ("07", regions(2)), ("0", regions(3))]
    store = write_store(tmp_path / "store", written, meta)
    assert (store.count("7"), store.count("07"), store.count("000")) == (1, 2, 3)
    assert "007" not in store


def test_an_unknown_key_names_itself_and_the_store(store):
    with pytest.raises(MissingFeatures, match=r"^1 .*/store: cat\.png"):
        store["cat.png"]
    with pytest.raises(MissingFeatures, match=r"cat\.png"):
        store.count("cat.png")


class Sums(Dataset):
    def __init__(self, store: FeatureStore) -> None:
        self.store, self.keys = store, store.keys()

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, index: int) -> float:
        return float(self.store[self.keys[index]].features.sum(dtype=np.float64))


def test_a_store_reads_the_same_in_forked_workers(store):
    data = Sums(store)
    here = [data[index] for index in range(len(data))]  # mapped before the fork on purpose
    loader = DataLoader(data, batch_size=None, num_workers=2, multiprocessing_context="fork")
    assert [float(value) for value in loader] == here


def test_a_store_reads_the_same_in_a_spawned_process(store):
    store["00004"]
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        there = pool.map(store.__getitem__, ["00004", "00039"])
    np.testing.assert_array_equal(there[0].features, store["00004"].features)
    np.testing.assert_array_equal(there[1].boxes, store["00039"].boxes)


def test_a_pickled_store_is_a_path(store):
    store["00004"]
    dumped = pickle.dumps(store)
    assert len(dumped) < 500
    assert pickle.loads(dumped).meta == store.meta


def test_the_store_carries_provenance(store, meta):
    assert store.meta.detector == "world"
    assert store.meta.classes == ("cat", "dog")
    assert (store.meta.count, store.meta.box_rule) == (40, "0:4")
    assert re.fullmatch("[0-9a-f]{64}", store.meta.checksum)


def test_features_of_another_detector_or_width_are_refused(store):
    with pytest.raises(ConfigError, match=r"detector 'world'.*'vgattr'"):
        store.meta.require_like(FeatureMeta(feature_dim=8, detector="vgattr"), where=store.path)
    with pytest.raises(ConfigError, match=r"8 .*2048"):
        store.meta.require_like(FeatureMeta(feature_dim=2048, detector="world"), where=store.path)


def test_verify_finds_a_flipped_byte(store):
    store.verify()
    shard = store.path / "part-00000.arrow"
    data = bytearray(shard.read_bytes())
    data[data.index(store["00003"].features.tobytes()) + 5] ^= 1
    shard.write_bytes(data)
    with pytest.raises(FormatError, match=r"part-00000\.arrow: .*'00003'"):
        FeatureStore(store.path).verify()


def test_verify_finds_a_shard_of_another_store(tmp_path, items, meta):
    store = write_store(tmp_path / "store", items(2, boxes=3), meta)
    other = write_store(tmp_path / "other", items(4, boxes=3)[2:], meta)
    shutil.copy(other.path / "part-00000.arrow", store.path)
    with pytest.raises(FormatError, match=f"{store.path}: "):
        FeatureStore(store.path).verify()


def cut(file: Path) -> None:
    data = file.read_bytes()
    file.write_bytes(data[: len(data) // 2])


def test_a_cut_shard_does_not_open(store):
    cut(store.path / "part-00002.arrow")
    with pytest.raises(FormatError, match=r"part-00002\.arrow: .*[\d,]+ bytes.*[\d,]+ bytes"):
        FeatureStore(store.path)


def test_a_missing_shard_does_not_open(store):
    (store.path / "part-00001.arrow").unlink()
    with pytest.raises(FormatError, match=r"part-00001\.arrow: "):
        FeatureStore(store.path)


def test_a_cut_or_missing_index_does_not_open(store):
    cut(store.path / "index.arrow")
    with pytest.raises(FormatError, match=r"index\.arrow: "):
        FeatureStore(store.path)
    (store.path / "index.arrow").unlink()
    with pytest.raises(FormatError, match=r"store .*: index\.arrow"):
        FeatureStore(store.path)


def test_a_shard_damaged_after_opening_is_a_format_error(store):
    fresh = FeatureStore(store.path)
    shard = store.path / "part-00000.arrow"
    shard.write_bytes(bytes(shard.stat().st_size))
    with pytest.raises(FormatError, match=r"part-00000\.arrow: "):
        fresh["00001"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "x .*diptych extract"),
        (lambda path: path.write_text("00001\t300"), "x .*a file.*diptych import"),
        (Path.mkdir, r"index\.arrow"),
        (lambda path: path.with_name("x.partial").mkdir(), r"x\.partial.*resume=true"),
    ],
)
def test_what_is_no_store_says_why(tmp_path, make, message):
    make(tmp_path / "x")
    with pytest.raises(FormatError, match=message):
        FeatureStore(tmp_path / "x")


def test_an_arrow_file_of_another_program_is_refused(tmp_path):
    table = pa.table({"key": ["a"]})
    with pa.OSFile(str(tmp_path / "index.arrow"), "wb") as file, pa.ipc.new_file(file, table.schema) as out:
        out.write_table(table)
    with pytest.raises(FormatError, match=r"index\.arrow: .*'unknown'.*'diptych features 1'"):
        FeatureStore(tmp_path)


@pytest.mark.parametrize("name", ["key", "shard", "batch", "row", "count"])
def test_a_row_of_the_index_without_a_value_is_refused(tmp_path, items, meta, name):
    index = write_store(tmp_path / "store", items(3), meta).path / "index.arrow"
    table = pa.ipc.open_file(index.read_bytes()).read_all()
    place, field = table.schema.get_field_index(name), table.schema.field(name)
    values = [*table.column(name).to_pylist()[:-1], None]
    table = table.set_column(place, pa.field(name, field.type), pa.array(values, field.type))
    with pa.OSFile(str(index), "wb") as file, pa.ipc.new_file(file, table.schema) as arrow:
        arrow.write_table(table)
    with pytest.raises(FormatError, match=name):
        FeatureStore(tmp_path / "store")


def test_opening_and_reading_does_not_load_pandas(tmp_path, items, meta):
    write_store(tmp_path / "store", items(3, boxes=2), meta)
    program = (
        "import sys; from diptych.features import FeatureStore\n"
        f"store = FeatureStore({str(tmp_path / 'store')!r})\n"
        "assert '2' in store and store.count('2') == 2 and store['00001'].features.sum()\n"
        "assert 'pandas' not in sys.modules and 'pydantic' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)


@pytest.mark.parametrize(
    ("stored", "asked", "found"),
    [
        (["img/00001.png", "img/00002.png"], "00001", True),
        (["img/00001.png", "img/00002.png"], "1", True),
        (["some/memes/a.JPEG"], "a", True),
        (["a.png"], "a", True),
        (["a"], "a.png", True),
        (["00001"], "1.jpg", True),
        (["one/1.png", "two/1.png"], "1", False),
        (["one/1.png", "1"], "01", False),
        (["one/1"], "two/1", False),
        (["a.b"], "a", False),
        ([".png"], "", False),
    ],
)
def test_a_key_finds_the_picture_that_is_stored_by_its_path(tmp_path, regions, meta, stored, asked, found):
    store = write_store(tmp_path / "store", [(key, regions(n + 1)) for n, key in enumerate(stored)], meta)
    assert (asked in store) is found
    if found:
        assert store.count(asked) == len(store[asked]) == 1
    for number, key in enumerate(stored):
        assert store.count(key) == number + 1
    assert store.keys() == tuple(stored)


@pytest.fixture
def describe(tmp_path, items, meta):
    """Writes a store whose description is changed."""

    def make(change):
        write_store(tmp_path / "store", items(3), meta)
        index = tmp_path / "store" / "index.arrow"
        with pa.memory_map(str(index)) as file, pa.ipc.open_file(file) as reader:
            table = reader.read_all()
        about = change(json.loads(table.schema.metadata[b"diptych"]))
        table = table.replace_schema_metadata(
            {"diptych": about if isinstance(about, str) else json.dumps(about)}
        )
        with pa.OSFile(str(index), "wb") as file, pa.ipc.new_file(file, table.schema) as arrow:
            arrow.write_table(table)
        return tmp_path / "store"

    return make


@pytest.mark.parametrize(
    "about",
    [
        "[" * 100_000,
        "[]",
        "5",
        "{",
        {"shards": None},
        {"shards": ["a"]},
        {"shards": {"../a": 5}},
        {"shards": {"a": "5"}},
    ],
)
def test_a_description_that_is_none_is_named(describe, about):
    path = describe(lambda old: old | about if isinstance(about, dict) else about)
    with pytest.raises(FormatError, match=str(path)):
        FeatureStore(path)


@pytest.mark.parametrize(
    "change",
    [
        {"feature_dim": "8"},
        {"feature_dim": None},
        {"classes": [1, 2]},
        {"dtype": 5},
        {"detector": ["x"]},
        {"more": 1},
    ],
)
def test_a_description_of_wrong_types_is_named(describe, change):
    path = describe(lambda old: old | {"meta": old["meta"] | change})
    with pytest.raises(FormatError, match=r"index\.arrow: "):
        FeatureStore(path)
