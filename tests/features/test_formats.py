import re
import sys
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
from tests.features.originals import ORIGINALS

from diptych.cli import export
from diptych.errors import ConfigError, FormatError
from diptych.features import (
    FeatureStore,
    ReadLog,
    StoreWriter,
    export_features,
    import_features,
    read_features,
    write_store,
    write_tsv,
)
from diptych.features.formats import WRITERS


def test_import_export_import_is_the_identity(tmp_path, items, same, row, write_rows):
    source = write_rows(tmp_path / "a.tsv", [row(key, regions) for key, regions in items(30)])
    import_features(source, tmp_path / "first", dtype="float32")
    assert export_features(tmp_path / "first", tmp_path / "b.tsv") == 30
    import_features(tmp_path / "b.tsv", tmp_path / "second", dtype="float32")
    first, second = FeatureStore(tmp_path / "first"), FeatureStore(tmp_path / "second")
    assert (tmp_path / "b.tsv").read_bytes() == source.read_bytes()
    assert first.meta == second.meta
    for key in first:
        same(second[key], first[key])


def test_import_stores_features_with_their_provenance(tmp_path, items, row, write_rows):
    path = write_rows(tmp_path / "a.tsv", [row(key, regions) for key, regions in items(20)])
    steps: list[tuple[int, int]] = []
    report = import_features(
        path,
        tmp_path / "store",
        detector="vgattr",
        classes=("cat",),
        attributes=("red",),
        progress=lambda done, total: steps.append((done, total)),
    )
    store = FeatureStore(tmp_path / "store")
    assert (store.meta.detector, store.meta.classes, store.meta.attributes) == ("vgattr", ("cat",), ("red",))
    assert (store.meta.dtype, store.meta.box_rule, store.meta.feature_dim) == ("float32", "0:4", 8)
    assert (report.images, report.regions, report.boxes) == (20, 40, (0, 2, 4))
    assert report.bytes_in == path.stat().st_size == steps[-1][0] == steps[-1][1]
    assert report.bytes_out == sum(file.stat().st_size for file in store.path.iterdir())
    assert len(steps) == 20
    assert report.lines()[:2] == [
        f"20 images with 40 regions in {store.path}",
        "regions per image: 0 to 4, median 2; features 8 wide, float32",
    ]


def test_import_reports_what_it_left_out(tmp_path, regions, row, write_rows):
    rows = [row(str(number), regions(3, seed=number)) for number in range(10)]
    for values in rows[2:9]:
        values["img_w"] = "wide"
    report = import_features(write_rows(tmp_path / "a.tsv", rows), tmp_path / "store", on_error="skip")
    assert (report.images, [fault.id for fault in report.skipped]) == (3, list("2345678"))
    assert "7 image(s) skipped:" in report.lines()
    assert report.lines()[-1] == "  ..."
    assert sum("expected a whole number" in line for line in report.lines()) == 5


def test_features_too_large_for_float16_are_named_by_line(tmp_path, regions):
    large = replace(regions(3), features=np.full((3, 8), 1e6, np.float32))
    path = tmp_path / "one.tsv"
    write_tsv(path, [("1", regions(3)), ("2", large), ("3", regions(3))])
    with pytest.raises(FormatError, match=r"one\.tsv: line 2, image '2': .*float16"):
        import_features(path, path.with_name("store"), dtype="float16")
    assert not path.with_name("store").exists()
    report = import_features(path, path.with_name("store"), dtype="float16", on_error="skip")
    assert [fault.id for fault in report.skipped] == ["2"]


def test_import_without_a_usable_row_leaves_nothing(tmp_path, regions, row, write_rows):
    rows = [row("1", regions(3), img_h="x")]
    with pytest.raises(FormatError, match=r"a\.tsv: .*line 1, image '1'"):
        import_features(write_rows(tmp_path / "a.tsv", rows), tmp_path / "store", on_error="skip")
    assert [file.name for file in tmp_path.iterdir()] == ["a.tsv"]


def test_an_interrupted_import_goes_on(tmp_path, items, contents, monkeypatch, row, write_rows):
    path = write_rows(tmp_path / "a.tsv", [row(key, regions) for key, regions in items(40)])
    small = {"shard_bytes": 800}
    monkeypatch.setattr(
        "diptych.features.formats.StoreWriter", lambda *args, **rest: StoreWriter(*args, **rest, **small)
    )

    def interrupt(done: int, total: int) -> None:
        if done > total * 0.8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        import_features(path, tmp_path / "store", progress=interrupt)
    report = import_features(path, tmp_path / "store", resume=True)
    assert 15 < report.resumed < report.images == 40
    assert f"40 images ({report.resumed} " in report.lines()[0]
    import_features(path, tmp_path / "straight")
    assert contents(tmp_path / "store") == contents(tmp_path / "straight")


def test_a_half_precision_store_is_exported_in_single_precision(tmp_path, items, meta):
    store = write_store(tmp_path / "store", items(5), replace(meta, dtype="float16"))
    export_features(store, tmp_path / "a.tsv")
    for key, regions in read_features(tmp_path / "a.tsv"):
        np.testing.assert_array_equal(regions.features, store[key].features.astype(np.float32))


KEPT = {  # by the files of the originals; everything else is lost
    "tsv": ("labels", "scores", "attributes", "attribute_scores"),
    "caffe-tsv": (),
    "mmf-lmdb": ("labels", "probabilities"),
    "mmf-npy": ("labels", "probabilities"),
    "vilbert-lmdb": (),
    "vlbert-json": ("probabilities",),
    "vlbert-zip": ("probabilities",),
    "nav13n-json": ("labels", "scores"),
    "volta-hdf5": ("labels", "scores", "attributes", "attribute_scores"),
}
UNITER = ("uniter-lmdb", "uniter-npz", "uniter-compressed")
FIELDS = ("labels", "scores", "attributes", "attribute_scores", "probabilities")


class Broken(SimpleNamespace):
    """Regions whose features are not as many as their boxes, which ours refuse to be."""

    def __len__(self):
        return len(self.boxes)


def test_every_format_is_tested_and_named_by_the_verb():
    assert set(ORIGINALS) == {*KEPT, *UNITER}
    assert set(WRITERS) == set(re.findall(r"^(\S+-\S+|tsv)  ", export.__doc__, re.M))
    assert set(WRITERS) <= set(ORIGINALS)


@pytest.mark.parametrize("name", KEPT)
def test_a_file_of_the_original_is_read_whole(original, items, same, name):
    images = items(7, boxes=3, classes=5)
    got = dict(read_features(original(name, images)))
    assert list(got) == [key for key, _ in images]
    for key, regions in images:
        lost = [field for field in FIELDS if field not in KEPT[name]]
        same(got[key], replace(regions, **dict.fromkeys(lost)))


@pytest.mark.parametrize("name", UNITER)
def test_a_file_of_uniter_is_put_on_a_picture_of_1024_pixels(original, items, name):
    images = items(7, boxes=3, classes=5)
    got = dict(read_features(original(name, images)))
    for key, regions in images:
        normalized = (regions.boxes / np.array(regions.size * 2, np.float32)).astype(np.float16)
        assert got[key].size == (1024, 1024)
        np.testing.assert_array_equal(got[key].boxes / 1024, normalized)
        np.testing.assert_array_equal(got[key].features, regions.features.astype(np.float16))
        np.testing.assert_array_equal(got[key].scores, regions.scores.astype(np.float16))
        np.testing.assert_array_equal(got[key].probabilities, regions.probabilities.astype(np.float16))


@pytest.mark.parametrize("name", [*WRITERS, "uniter-compressed"])
def test_what_was_imported_is_exported_alike(original, contents, tmp_path, name):
    source = original(name)
    import_features(source, tmp_path / "first")
    export_features(tmp_path / "first", tmp_path / "back", format=name.replace("compressed", "npz"))
    if name == "tsv":
        assert contents(tmp_path / "back") == contents(source)
    import_features(tmp_path / "back", tmp_path / "second")
    assert FeatureStore(tmp_path / "second").meta == FeatureStore(tmp_path / "first").meta


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("name", WRITERS)
def test_a_store_goes_through_a_format_and_comes_back(tmp_path, items, meta, contents, name, dtype):
    meta = replace(meta, classes=tuple(map(str, range(1600))), dtype=dtype)
    store = write_store(tmp_path / "store", items(9, classes=5), meta)
    lost = FIELDS[-1:] if name == "tsv" else ()
    kept = [(key, replace(one, **dict.fromkeys(lost))) for key, one in items(9, classes=5)]
    expected = write_store(tmp_path / "expected", kept, store.meta).meta
    steps: list[tuple[int, int]] = []
    assert export_features(store, tmp_path / "a", format=name, progress=lambda *step: steps.append(step)) == 9
    assert steps[-1] == (9, 9)
    about = {"detector": "world", "classes": meta.classes, "dtype": dtype}
    report = import_features(tmp_path / "a", tmp_path / "again", **about)
    assert FeatureStore(tmp_path / "again").meta == expected
    assert report.bytes_in == sum(map(len, contents(tmp_path / "a").values()))


@pytest.mark.parametrize("name", WRITERS)
def test_exports_are_reproducible_and_never_replace_unasked(tmp_path, items, meta, contents, name):
    store = write_store(tmp_path / "store", items(4, boxes=2, classes=5), replace(meta, classes=()))
    export_features(store, tmp_path / "a", format=name)
    with pytest.raises(ConfigError, match=str(tmp_path / "a")):
        export_features(store, tmp_path / "a", format=name)
    export_features(store, tmp_path / "b", format=name)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    export_features(store, tmp_path / "a", format=name, overwrite=True)


@pytest.mark.parametrize("name", [*KEPT, "uniter-npz", "uniter-lmdb"])
def test_a_file_cut_off_is_named_and_no_store_is_left(original, tmp_path, name):
    source = original(name)
    victim = max(source.rglob("*") if source.is_dir() else [source], key=lambda file: file.stat().st_size)
    victim.write_bytes(victim.read_bytes()[: victim.stat().st_size * 3 // 4])
    with pytest.raises(FormatError, match=source.name):
        import_features(source, tmp_path / "store")
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk_leaves_nothing(tmp_path, items, meta, full_disk, name):
    store = write_store(tmp_path / "store", items(40, boxes=4, classes=5, width=8), replace(meta, classes=()))
    with full_disk(400), pytest.raises(OSError, match=r"(?i)space|large"):
        export_features(store, tmp_path / "a", format=name)
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


@pytest.mark.parametrize(
    "name", ["tsv", "mmf-lmdb", "vilbert-lmdb", "vlbert-json", "volta-hdf5", "uniter-npz"]
)
def test_counts_that_disagree_are_named_left_out_or_cut(original, items, same, name):
    images = items(5, boxes=3, classes=5)
    key, regions = images[2]
    longer = np.concatenate([regions.features, regions.features[:1]])
    broken = Broken(**{field: getattr(regions, field) for field in (*FIELDS, "boxes", "size")})
    broken.features = longer
    source = original(name, [*images[:2], (key, broken), *images[3:]])
    with pytest.raises(FormatError, match=rf"image '{key}': .*features 4"):
        list(read_features(source))
    log = ReadLog()
    kept = [key for key, _ in read_features(source, on_error="skip", log=log)]
    assert kept == [key for key, _ in images if key != log.skipped[0].id]
    assert [fault.id for fault in log.skipped] == [key]
    log = ReadLog()
    got = dict(read_features(source, on_error="truncate", log=log))
    assert len(got[key]) == 3
    assert "cut to 3 boxes" in log.truncated[0].reason


def test_what_holds_no_features_is_named(tmp_path, items, meta):
    write_store(tmp_path / "store", items(2), meta)
    (tmp_path / "empty").mkdir()
    np.save(tmp_path / "one", np.zeros(3))
    (tmp_path / "one.json").write_text('{"features": ""}')
    for name, message in (
        ("store", "already a feature store"),
        ("empty", r"\.npy, \.npz, \.json or \.tsv"),
        ("one.npy", "one image"),
        ("one.json", "one image"),
        ("nothing", "No such file"),
    ):
        with pytest.raises(FormatError, match=rf"{re.escape(name)}: .*{message}"):
            list(read_features(tmp_path / name))


@pytest.mark.parametrize("name", WRITERS)
def test_a_folder_of_other_things_is_never_replaced(tmp_path, items, meta, contents, name):
    store = write_store(tmp_path / "store", items(2, boxes=2), meta)
    (tmp_path / "mine" / "below").mkdir(parents=True)
    (tmp_path / "mine" / "notes.json").write_text('{"features": ""}' if name == "mmf-lmdb" else "{}")
    if name == "mmf-lmdb":
        export_features(store, tmp_path / "mine" / "db", format=name)
    for number in range(2):  # first strange data, then strange files too
        before = contents(tmp_path / "mine")
        with pytest.raises(ConfigError, match=str(tmp_path / "mine")):
            export_features(store, tmp_path / "mine", format=name, overwrite=True)
        assert contents(tmp_path / "mine") == before
        (tmp_path / "mine" / "below" / f"{number}.png").touch()


def test_an_unknown_format_is_named(tmp_path, items, meta):
    store = write_store(tmp_path / "store", items(2), meta)
    with pytest.raises(ConfigError, match=r"'mmf-lmbd'.*'mmf-lmdb'"):
        export_features(store, tmp_path / "a", format="mmf-lmbd")


@pytest.mark.parametrize("key", ["../up", "/root", "a//b", "a/../b"])
def test_no_id_leads_out_of_the_folder(tmp_path, regions, meta, key):
    store = write_store(tmp_path / "store", [(key, regions(2))], meta)
    with pytest.raises(FormatError, match=re.escape(repr(key))):
        export_features(store, tmp_path / "a", format="uniter-npz")
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


@pytest.mark.parametrize("name", WRITERS)
def test_ids_with_folders_come_back(tmp_path, items, meta, name):
    nested = [(f"train/{key}.a", regions) for key, regions in items(3)]
    store = write_store(tmp_path / "store", nested, meta)
    if name == "volta-hdf5":
        with pytest.raises(FormatError, match=r"'train/00000.a'"):
            export_features(store, tmp_path / "a", format=name)
    else:
        export_features(store, tmp_path / "a", format=name)
        assert [key for key, _ in read_features(tmp_path / "a")] == [key for key, _ in nested]


@pytest.mark.parametrize(
    ("name", "package"), [("mmf-lmdb", "lmdb"), ("uniter-lmdb", "msgpack"), ("volta-hdf5", "h5py")]
)
def test_a_missing_package_is_named_with_its_extra(
    original, tmp_path, items, meta, monkeypatch, name, package
):
    source = original(name)
    store = write_store(tmp_path / "store", items(2), meta)
    monkeypatch.setitem(sys.modules, package, None)
    message = rf'{package} .*pip install "diptych\[{name.partition("-")[2]}\]"'
    if package != "lmdb":  # which writes only; see `features/pages.py`
        with pytest.raises(ConfigError, match=message):
            list(read_features(source))
    if name in WRITERS:
        with pytest.raises(ConfigError, match=message):
            export_features(store, tmp_path / "a", format=name)


def test_an_interrupted_import_of_other_formats_goes_on(original, items, contents, tmp_path, monkeypatch):
    source = original("mmf-lmdb", items(40, boxes=3, classes=5))
    small = partial(StoreWriter, shard_bytes=800)
    monkeypatch.setattr("diptych.features.formats.StoreWriter", small)

    def interrupt(done: int, total: int) -> None:
        assert total == 40
        if done > 30:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        import_features(source, tmp_path / "store", progress=interrupt)
    assert 15 < import_features(source, tmp_path / "store", resume=True).resumed < 40
    import_features(source, tmp_path / "straight")
    assert contents(tmp_path / "store") == contents(tmp_path / "straight")
