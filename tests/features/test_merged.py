import pickle
from dataclasses import replace

import numpy as np
import pytest

from diptych.errors import ConfigError, FormatError
from diptych.features import FeatureStore, MergedStore, open_stores, write_store


@pytest.fixture
def stores(tmp_path, regions, meta):
    """A function from two numbers of regions to two stores of one image."""

    def make(main, more):
        counts = {"main": main, "more": more}
        for seed, (name, count) in enumerate(counts.items()):
            write_store(tmp_path / name, [("a", replace(regions(count, seed=seed), size=(300, 260)))], meta)
        return tuple(tmp_path / name for name in counts)

    return make


@pytest.mark.parametrize(
    ("merge", "main", "more", "kept"),
    [
        ("vilio", 36, 60, (36, 60)),
        ("vilio", 36, 10, (36, 10)),
        ("vilio", 36, 80, (19, 80)),
        ("vilio", 36, 100, (0, 99)),
        ("fair", 36, 60, (36, 60)),
        ("fair", 36, 100, (36, 63)),
        ("fair", 72, 100, (49, 50)),
        ("fair", 90, 30, (69, 30)),
        ("vilio", 0, 0, (0, 0)),
    ],
)
def test_who_gives_way(stores, merge, main, more, kept):
    paths = stores(main, more)
    merged, (one, other) = open_stores(*paths, merge), (FeatureStore(path)["a"] for path in paths)
    got, (first, second) = merged["a"], kept
    assert len(got) == merged.count("a") == 1 + first + second
    np.testing.assert_array_equal(got.features[1 : 1 + first], one.features[:first])
    np.testing.assert_array_equal(got.features[1 + first :], other.features[:second])
    np.testing.assert_array_equal(got.boxes[1:], np.concatenate([one.boxes[:first], other.boxes[:second]]))


def test_the_whole_image_is_the_mean_over_both_with_one_more_each(stores):
    paths = stores(3, 1)
    one, other = (FeatureStore(path)["a"].features for path in paths)
    got = open_stores(*paths)["a"]
    np.testing.assert_allclose(got.features[0], (4 * one.mean(0) + 2 * other.mean(0)) / 6, rtol=1e-5)
    assert got.boxes[0].tolist() == [0, 0, *got.size]


def test_only_images_of_both_are_there(stores, tmp_path, items, meta):
    main, _ = stores(2, 2)
    merged = MergedStore(FeatureStore(main), write_store(tmp_path / "other", items(2), meta))
    assert "a" not in merged
    assert merged.path == f"{main} or {tmp_path / 'other'}"


def test_pictures_of_two_sizes_are_refused(tmp_path, regions, meta):
    paths = [tmp_path / "one", tmp_path / "other"]
    for seed, path in enumerate(paths):
        write_store(path, [("a", regions(2, seed=seed))], meta)
    with pytest.raises(FormatError, match=r"image a .*\(320, 260\).*\(320, 261\)"):
        open_stores(*paths)["a"]


def test_names_go_with_the_labels(stores):
    merged = open_stores(*stores(2, 2))
    assert merged["a"].labels is None
    assert merged.meta.classes == ()


def test_a_merge_travels_and_is_told_apart(stores):
    paths = stores(5, 7)
    merged = open_stores(*paths)
    again = pickle.loads(pickle.dumps(merged))
    np.testing.assert_array_equal(again["a"].features, merged["a"].features)
    checksums = {open_stores(*paths, merge).meta.checksum for merge in ("vilio", "fair")}
    checksums.add(open_stores(paths[0]).meta.checksum)
    assert len(checksums) == 3


def test_detector_only_and_one_store_are_the_store(stores):
    main, more = stores(5, 7)
    with pytest.warns(UserWarning, match=str(more)):
        alone = open_stores(main, more, "detector_only")
    for store in (open_stores(main), open_stores(main, merge="detector_only"), alone):
        assert isinstance(store, FeatureStore)
        assert len(store["a"]) == 5


def test_what_cannot_be_merged_is_refused(stores, tmp_path, items, meta):
    main, more = stores(1, 1)
    with pytest.raises(ConfigError, match=r"'both'.*'fair'"):
        open_stores(main, more, "both")
    wide = write_store(tmp_path / "wide", items(1, width=9), replace(meta, feature_dim=9))
    with pytest.raises(ConfigError, match=r"/wide: .* 9 "):
        open_stores(main, wide.path)
