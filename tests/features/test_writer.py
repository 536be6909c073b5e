import os
import signal
import subprocess
import sys
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

from diptych.errors import ConfigError, DiptychError, FormatError
from diptych.features import FeatureStore, PartWriter, StoreWriter, join_parts, write_store, writer
from diptych.types import FeatureMeta

SHARD = 800  # bytes; a few images each


def test_the_same_images_give_the_same_bytes(tmp_path, items, meta, contents):
    first = write_store(tmp_path / "a", items(30), meta, shard_bytes=SHARD)
    second = write_store(tmp_path / "b", items(30), meta, shard_bytes=SHARD)
    assert contents(first.path) == contents(second.path)
    assert len(contents(first.path)) > 3


def test_the_checksum_tells_content_and_not_shards(tmp_path, items, meta):
    written = items(30)
    whole = write_store(tmp_path / "a", written, meta).meta
    parts = write_store(tmp_path / "b", written, meta, shard_bytes=SHARD).meta
    other_order = write_store(tmp_path / "c", written[::-1], meta).meta
    other_key = write_store(tmp_path / "d", [("x", written[0][1]), *written[1:]], meta).meta
    assert whole == parts
    assert len({whole.checksum, other_order.checksum, other_key.checksum}) == 3


def test_the_box_rule_is_observed_unless_given(tmp_path, items, meta):
    assert write_store(tmp_path / "a", items(3, boxes=2), meta).meta.box_rule == "2"
    given = replace(meta, box_rule="10:100")
    assert write_store(tmp_path / "b", items(3, boxes=2), given).meta.box_rule == "10:100"


def test_a_store_may_be_empty(tmp_path, meta):
    store = write_store(tmp_path / "store", [], meta)
    assert (len(store), store.keys(), store.counts().tolist()) == (0, (), [])
    store.verify()


def test_the_caller_may_reuse_its_arrays(tmp_path, regions, meta):
    given = regions(3)
    expected = given.features.copy()
    with StoreWriter(tmp_path / "store", meta) as out:
        out.add("a", given)
        given.features[:] = 0
    np.testing.assert_array_equal(FeatureStore(tmp_path / "store")["a"].features, expected)


def test_images_reach_the_disk_while_writing(tmp_path, items, meta):
    with StoreWriter(tmp_path / "store", meta, shard_bytes=SHARD) as out:
        for number, (key, regions) in enumerate(items(100)):
            out.add(key, regions)
            if number == 50:
                assert len(list((tmp_path / "store.partial").glob("part-*.arrow"))) > 5
        assert not (tmp_path / "store").exists()
    assert not (tmp_path / "store.partial").exists()


def test_memory_is_bounded_by_the_batch_and_not_by_the_store(tmp_path, regions, meta, monkeypatch):
    monkeypatch.setattr(writer, "BATCH_BYTES", 1 << 16)
    one = regions(20, width=500)
    tracemalloc.start()
    with StoreWriter(tmp_path / "store", replace(meta, feature_dim=500)) as out:
        for number in range(200):
            out.add(str(number), one)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (tmp_path / "store" / "part-00000.arrow").stat().st_size > 200 * one.features.nbytes
    assert peak < 20 * one.features.nbytes


def test_a_shard_may_hold_many_batches(tmp_path, items, meta, same, contents, monkeypatch):
    monkeypatch.setattr(writer, "BATCH_BYTES", 300)
    written = items(60)
    store = write_store(tmp_path / "store", written, meta, shard_bytes=5_000)
    for key, regions in written:
        same(store[key], regions)
    store.verify()
    interrupted(tmp_path / "again", written, meta, shard_bytes=5_000)
    again = write_store(tmp_path / "again", written, meta, shard_bytes=5_000, resume=True)
    assert contents(again.path) == contents(store.path)


def nan(regions):
    regions.features[1, 2] = np.nan
    return regions


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (nan, "image 'bad': region 1 .*NaN"),
        (lambda regions: replace(regions, boxes=regions.boxes[:, ::-1]), "image 'bad': box 0 .*invert"),
        (lambda regions: replace(regions, boxes=regions.boxes + 500), "image 'bad': box 0 .*320 x 26"),
        (
            lambda regions: replace(regions, features=regions.features[:, :5]),
            "image 'bad': .* 5 .* 8",
        ),
        (
            lambda regions: replace(regions, labels=None),
            r"boxes\[4\], features\[8\], scores, .*boxes\[4\], features\[8\], labels",
        ),
        (
            lambda regions: replace(regions, features=regions.features * np.float32(1e6)),
            "features .*float16",
        ),
        (lambda regions: replace(regions, size=(2**31, 300)), r"\(2147483648, 300\)"),
    ],
)
def test_bad_regions_are_named_and_the_writer_goes_on(tmp_path, regions, meta, spoil, message):
    with StoreWriter(tmp_path / "store", replace(meta, dtype="float16")) as out:
        out.add("first", regions(2))
        with pytest.raises(FormatError, match=message):
            out.add("bad", spoil(regions(3)))
        out.add("last", regions(4))
    assert FeatureStore(tmp_path / "store").keys() == ("first", "last")


def test_a_key_is_written_once(tmp_path, regions, meta):
    with StoreWriter(tmp_path / "store", meta) as out:
        out.add("00625", regions(1))
        with pytest.raises(FormatError, match="image '00625'"):
            out.add("00625", regions(1))


@pytest.mark.parametrize("change", [{"dtype": "float64"}, {"feature_dim": 0}])
def test_impossible_settings_are_refused(tmp_path, meta, change):
    with pytest.raises(ConfigError, match="at least 1 and 'float16' or 'float32'"):
        write_store(tmp_path / "store", [], replace(meta, **change))
    with pytest.raises(ConfigError, match=r"shard_bytes .*0"):
        write_store(tmp_path / "store", [], meta, shard_bytes=0)


def test_an_existing_store_is_kept_unless_asked(tmp_path, items, meta):
    path = tmp_path / "store"
    write_store(path, items(3), meta)
    with pytest.raises(ConfigError, match=str(path)):
        write_store(path, items(5), meta)
    assert len(FeatureStore(path)) == 3
    assert len(write_store(path, items(5), meta, overwrite=True)) == 5
    assert [file.name for file in tmp_path.iterdir()] == ["store"]


def test_a_failed_overwrite_keeps_the_old_store(tmp_path, items, meta):
    path = tmp_path / "store"
    write_store(path, items(3), meta)
    with pytest.raises(FormatError, match="image '00000'"):
        write_store(path, items(4) * 2, meta, overwrite=True)
    assert len(FeatureStore(path)) == 3


def test_overwriting_replaces_stores_and_nothing_else(tmp_path, items, meta):
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(ConfigError, match=str(tmp_path)):
        write_store(tmp_path, items(2), meta, overwrite=True)
    with pytest.raises(ConfigError, match=r"thesis.tex"):
        write_store(tmp_path / "thesis.tex", items(2), meta, overwrite=True)
    assert (tmp_path / "thesis.tex").read_text() == "mine"


def until_interrupt(written):
    yield from written
    raise KeyboardInterrupt


def interrupted(path, written, meta, *, shard_bytes=SHARD):
    with pytest.raises(KeyboardInterrupt):
        write_store(path, until_interrupt(written), meta, shard_bytes=shard_bytes)


def test_an_interrupted_store_goes_on_where_it_was(tmp_path, items, meta, contents):
    written = items(40)
    interrupted(tmp_path / "store", written[:33], meta)
    kept = contents(tmp_path / "store.partial")
    assert kept
    assert all(name.startswith("part-") for name in kept)
    with pytest.raises(FormatError, match=r"store.partial .*resume=true"):
        FeatureStore(tmp_path / "store.partial")

    with StoreWriter(tmp_path / "store", meta, shard_bytes=SHARD, resume=True) as out:
        assert out.done == {key for key, _ in written[: len(out.done)]}
        assert 10 < len(out.done) < 33
        for key, regions in written:
            if key not in out.done:
                out.add(key, regions)
    straight = write_store(tmp_path / "straight", written, meta, shard_bytes=SHARD)
    assert contents(tmp_path / "store") == contents(straight.path)


def test_what_was_interrupted_is_neither_lost_nor_mixed(tmp_path, items, meta):
    written = items(40)
    interrupted(tmp_path / "store", written[:30], meta)
    with pytest.raises(ConfigError, match=r"store\.partial .*resume=true.*overwrite=true"):
        write_store(tmp_path / "store", written, meta)
    with pytest.raises(ConfigError, match=r"part-00000\.arrow .*'world'.*'vgattr'.*overwrite=true"):
        write_store(tmp_path / "store", written, replace(meta, detector="vgattr"), resume=True)
    with (
        StoreWriter(tmp_path / "store", meta, resume=True) as out,
        pytest.raises(FormatError, match="'00000'"),
    ):
        out.add(*written[0])


def test_overwrite_begins_again(tmp_path, items, meta):
    interrupted(tmp_path / "store", items(40), meta)
    other = replace(meta, detector="vgattr")
    assert len(write_store(tmp_path / "store", items(2), other, overwrite=True)) == 2


def test_resume_without_anything_to_resume_begins(tmp_path, items, meta):
    assert len(write_store(tmp_path / "store", items(4), meta, resume=True)) == 4


def test_nothing_is_left_when_no_shard_was_finished(tmp_path, items, meta):
    interrupted(tmp_path / "store", items(20), meta, shard_bytes=1 << 20)
    assert list(tmp_path.iterdir()) == []


def test_two_writers_do_not_share_a_place(tmp_path, items, meta):
    with StoreWriter(tmp_path / "store", meta) as out:
        out.add(*items(1)[0])
        with pytest.raises(ConfigError, match="another process"):
            write_store(tmp_path / "store", items(2), meta, resume=True)
    assert len(FeatureStore(tmp_path / "store")) == 1


WRITE = """
import resource, sys
import numpy as np
from diptych.errors import DiptychError
from diptych.features import StoreWriter
from diptych.types import FeatureMeta, Regions

path, limit = sys.argv[1], int(sys.argv[2])
if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
boxes = np.array([[1, 2, 3, 4]], np.float32)
try:
    with StoreWriter(path, FeatureMeta(feature_dim=1000), shard_bytes=50_000) as out:
        for number in range(200 if limit else 10**9):
            features = np.full((1, 1000), number, np.float32)
            out.add(str(number), Regions(features=features, boxes=boxes, size=(9, 9)))
            if number == 60:
                print("running", flush=True)
except DiptychError as error:
    sys.exit(str(error))
"""


@pytest.mark.slow
def test_a_killed_writer_leaves_no_store_but_its_finished_shards(tmp_path):
    path = tmp_path / "store"
    with subprocess.Popen(
        [sys.executable, "-c", WRITE, str(path), "0"], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "running\n"
        os.kill(process.pid, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    with pytest.raises(FormatError, match=r"store\.partial.*resume=true"):
        FeatureStore(path)

    with StoreWriter(path, FeatureMeta(feature_dim=1000), shard_bytes=50_000, resume=True) as out:
        done = len(out.done)
        assert done >= 60 - 13  # a shard has 13 images
        assert out.done == {str(number) for number in range(done)}
    store = FeatureStore(path)
    store.verify()
    assert [store[key].features[0, 0] for key in store] == list(range(done))


@pytest.mark.slow
def test_a_full_disk_is_one_line_and_no_store(tmp_path):
    path = tmp_path / "store"
    done = subprocess.run(
        [sys.executable, "-c", WRITE, str(path), "20000"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.splitlines() == [f"cannot write the feature store {path}: File too large."]
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_fills_up_later_keeps_finished_shards(tmp_path, items, meta, monkeypatch):
    written = items(40)
    full = OSError(28, "No space left on device")

    def write(self, batch):
        if self.path.name == "part-00002.arrow":
            raise full
        original(self, batch)

    original = writer.ShardFile.write
    monkeypatch.setattr(writer.ShardFile, "write", write)
    with pytest.raises(DiptychError, match=r"No space left on device.*partial; resume=true"):
        write_store(tmp_path / "store", written, meta, shard_bytes=SHARD)
    assert sorted(file.name for file in (tmp_path / "store.partial").iterdir()) == [
        "part-00000.arrow",
        "part-00001.arrow",
    ]
    monkeypatch.undo()
    assert len(write_store(tmp_path / "store", written, meta, shard_bytes=SHARD, resume=True)) == 40


def test_a_writer_that_failed_does_not_finish(tmp_path, items, meta, monkeypatch):
    def full(self, batch):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writer.ShardFile, "write", full)
    failing = StoreWriter(tmp_path / "store", meta, shard_bytes=1).__enter__()
    for key, regions in items(3)[1:]:
        with pytest.raises(DiptychError, match="No space left"):
            failing.add(key, regions)
    with pytest.raises(DiptychError, match="No space left"):
        failing.__exit__(None, None, None)
    assert list(tmp_path.iterdir()) == []


def test_shards_written_apart_make_the_same_store_in_any_order(tmp_path, items, meta, contents):
    written = items(10)
    for folder, order in (("a", (0, 1, 2)), ("b", (2, 0, 1))):
        for number in order:
            with PartWriter(tmp_path / folder / "store", number, meta) as part:
                for key, regions in [written[:4], [], written[4:]][number]:
                    part.append(key, regions.size, part.arrays(regions))
        store = join_parts(tmp_path / folder / "store", images=10)
        assert list(store) == [key for key, _ in written]
        store.verify()
    assert store.meta.checksum == write_store(tmp_path / "store", written, meta).meta.checksum
    assert contents(tmp_path / "a/store") == contents(tmp_path / "b/store")


def test_shards_of_too_few_images_make_no_store(tmp_path, items, meta):
    with PartWriter(tmp_path / "store", 0, meta) as part:
        for key, regions in items(3):
            part.append(key, regions.size, part.arrays(regions))
    with pytest.raises(FormatError, match=r" 3 .* 4"):
        join_parts(tmp_path / "store", images=4)
    assert not (tmp_path / "store").exists()


def test_a_shard_that_fails_leaves_nothing(tmp_path, items, meta):
    part = PartWriter(tmp_path / "store", 0, meta)
    for key, regions in items(3):
        part.append(key, regions.size, part.arrays(regions))
    part.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
    assert not any(path.is_file() for path in tmp_path.rglob("*"))
