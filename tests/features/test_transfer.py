from dataclasses import replace

import numpy as np
import pytest

from diptych.errors import FormatError
from diptych.features import (
    FeatureStore,
    StoreWriter,
    export_tsv,
    import_tsv,
    read_tsv,
    write_store,
    write_tsv,
)


def test_import_export_import_is_the_identity(tmp_path, items, same, row, write_rows):
    source = write_rows(tmp_path / "a.tsv", [row(key, regions) for key, regions in items(30)])
    import_tsv(source, tmp_path / "first", dtype="float32")
    assert export_tsv(tmp_path / "first", tmp_path / "b.tsv") == 30
    import_tsv(tmp_path / "b.tsv", tmp_path / "second", dtype="float32")
    first, second = FeatureStore(tmp_path / "first"), FeatureStore(tmp_path / "second")
    assert (tmp_path / "b.tsv").read_bytes() == source.read_bytes()
    assert first.meta == second.meta
    for key in first:
        same(second[key], first[key])


def test_import_stores_features_with_their_provenance(tmp_path, items, row, write_rows):
    path = write_rows(tmp_path / "a.tsv", [row(key, regions) for key, regions in items(20)])
    steps: list[tuple[int, int]] = []
    report = import_tsv(
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
        "regions per image: 0 to 4, median 2",
    ]


def test_import_reports_what_it_left_out(tmp_path, regions, row, write_rows):
    rows = [row(str(number), regions(3, seed=number)) for number in range(10)]
    for values in rows[2:9]:
        values["img_w"] = "wide"
    report = import_tsv(write_rows(tmp_path / "a.tsv", rows), tmp_path / "store", on_error="skip")
    assert (report.images, [fault.id for fault in report.skipped]) == (3, list("2345678"))
    assert "7 row(s) skipped:" in report.lines()
    assert report.lines()[-1] == "  ..."
    assert sum("expected a whole number" in line for line in report.lines()) == 5


def test_features_too_large_for_float16_are_named_by_line(tmp_path, regions):
    large = replace(regions(3), features=np.full((3, 8), 1e6, np.float32))
    path = tmp_path / "one.tsv"
    write_tsv(path, [("1", regions(3)), ("2", large), ("3", regions(3))])
    with pytest.raises(FormatError, match=r"one\.tsv: line 2, image '2': features are too large for float16"):
        import_tsv(path, path.with_name("store"), dtype="float16")
    assert not path.with_name("store").exists()
    report = import_tsv(path, path.with_name("store"), dtype="float16", on_error="skip")
    assert [fault.id for fault in report.skipped] == ["2"]


def test_import_without_a_usable_row_leaves_nothing(tmp_path, regions, row, write_rows):
    rows = [row("1", regions(3), img_h="x")]
    with pytest.raises(
        FormatError, match=r"a\.tsv: none of its rows could be used; the first: line 1, image '1'"
    ):
        import_tsv(write_rows(tmp_path / "a.tsv", rows), tmp_path / "store", on_error="skip")
    assert [file.name for file in tmp_path.iterdir()] == ["a.tsv"]


def test_an_interrupted_import_goes_on(tmp_path, items, contents, monkeypatch, row, write_rows):
    path = write_rows(tmp_path / "a.tsv", [row(key, regions) for key, regions in items(40)])
    small = {"shard_bytes": 800}
    monkeypatch.setattr(
        "diptych.features.transfer.StoreWriter", lambda *args, **rest: StoreWriter(*args, **rest, **small)
    )

    def interrupt(done: int, total: int) -> None:
        if done > total * 0.8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        import_tsv(path, tmp_path / "store", progress=interrupt)
    report = import_tsv(path, tmp_path / "store", resume=True)
    assert 15 < report.resumed < report.images == 40
    assert f"40 images ({report.resumed} of an earlier run)" in report.lines()[0]
    import_tsv(path, tmp_path / "straight")
    assert contents(tmp_path / "store") == contents(tmp_path / "straight")


def test_a_half_precision_store_is_exported_in_single_precision(tmp_path, items, meta):
    store = write_store(tmp_path / "store", items(5), replace(meta, dtype="float16"))
    export_tsv(store, tmp_path / "a.tsv")
    for key, regions in read_tsv(tmp_path / "a.tsv"):
        np.testing.assert_array_equal(regions.features, store[key].features.astype(np.float32))
