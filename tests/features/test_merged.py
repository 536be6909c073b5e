import numpy as np
import pytest

from diptych.errors import ConfigError
from diptych.features import FeatureStore, MergedStore, open_stores, write_store
from diptych.types import FeatureMeta, Regions


def regions(count, seed):
    rng = np.random.default_rng(seed)
    corners = np.sort(rng.uniform(0, 50, (count, 2, 2)), axis=1).reshape(count, 4)
    return Regions(
        features=rng.normal(size=(count, 8)).astype(np.float32),
        boxes=corners.astype(np.float32),
        size=(64, 50),
    )


@pytest.fixture
def stores(tmp_path):
    """Images with 36 main regions, and 60, 10 and 100 more; one that only the first store has."""
    main = {name: regions(36, seed) for seed, name in enumerate("abcd")}
    more = {name: regions(count, 9 + count) for name, count in zip("abc", (60, 10, 100), strict=True)}
    for name, found in (("main", main), ("more", more)):
        write_store(tmp_path / name, found.items(), FeatureMeta(feature_dim=8, dtype="float32"))
    return tmp_path / "main", tmp_path / "more"


@pytest.mark.parametrize(("key", "rows"), [("a", (37, 60)), ("b", (37, 10)), ("c", (1, 99))])
def test_vilio_lets_the_main_store_give_way(stores, key, rows):
    one, other, both = FeatureStore(stores[0])[key], FeatureStore(stores[1])[key], open_stores(*stores)
    found, (first, second) = both[key], rows
    assert len(found) == both.count(key) == first + second
    whole = (one.features.mean(0) * 37 + other.features.mean(0) * (len(other) + 1)) / (38 + len(other))
    np.testing.assert_allclose(found.features[0], whole, rtol=1e-5)
    np.testing.assert_array_equal(found.boxes[0], [0, 0, 64, 50])
    np.testing.assert_array_equal(found.features[1:first], one.features[: first - 1])
    np.testing.assert_array_equal(found.boxes[first:], other.boxes[:second])


def test_main_first_keeps_the_main_store(stores):
    both = open_stores(*stores, "main_first")
    found = both["c"]
    assert len(found) == both.count("c") == 100
    np.testing.assert_array_equal(found.features[1:37], FeatureStore(stores[0])["c"].features)


def test_an_image_must_be_in_both(stores):
    both = open_stores(*stores)
    assert "a" in both
    assert "d" not in both
    assert both.meta.checksum not in (
        FeatureStore(stores[0]).meta.checksum,
        open_stores(*stores, "main_first").meta.checksum,
    )


def test_stores_that_do_not_fit_are_refused(stores, tmp_path):
    write_store(tmp_path / "wide", [("a", regions(3, 1))], FeatureMeta(feature_dim=8, detector="other"))
    write_store(tmp_path / "own", [("a", regions(3, 1))], FeatureMeta(feature_dim=8, detector="one"))
    with pytest.raises(ConfigError, match="detector"):
        MergedStore(FeatureStore(tmp_path / "own"), FeatureStore(tmp_path / "wide"))
    with pytest.raises(ConfigError, match="region_merge is 'fair'"):
        open_stores(*stores, "fair")
