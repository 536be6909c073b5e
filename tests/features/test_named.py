from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from diptych.data import Processor, open_regions
from diptych.errors import ConfigError, MissingFeatures
from diptych.features import FeatureStore, NamedStores, write_store
from diptych.types import FeatureMeta, Regions


def store(path: Path, counts: dict[str, int], width: int = 3) -> FeatureStore:
    boxes = np.tile(np.array([[0, 0, 1, 1]], np.float32), (9, 1))
    regions = (
        (key, Regions(features=np.full((count, width), count, np.float32), boxes=boxes[:count], size=(2, 2)))
        for key, count in counts.items()
    )
    return write_store(path, regions, FeatureMeta(feature_dim=width))


@pytest.fixture
def stores(tmp_path: Path) -> dict[str, FeatureStore]:
    return {"coco": store(tmp_path / "coco", {"00625": 1}), "vg": store(tmp_path / "vg", {"625": 2, "7": 3})}


def test_keys_of_two_stores_are_never_the_same(stores: dict[str, FeatureStore]) -> None:
    named = NamedStores(stores)
    assert [named.count(key) for key in ("coco:625", "coco:00625", "vg:625", "vg:00625")] == [1, 1, 2, 2]
    assert len(named["vg:7"]) == 3
    assert "coco:7" not in named
    assert named.counts_of(["coco:7", "vg:7", "coco:00625"]).tolist() == [-1, 3, 1]
    assert named.meta.count == 3
    assert named.meta.checksum not in {one.meta.checksum for one in stores.values()}
    with pytest.raises(MissingFeatures):
        named["coco:7"]
    for key in ("625", "flickr:625"):
        with pytest.raises(ConfigError):
            assert key in named


def test_one_store_under_several_names(stores: dict[str, FeatureStore]) -> None:
    named = NamedStores({"train": stores["vg"], "dev": stores["vg"]})
    assert [named.count(key) for key in ("train:7", "dev:7", "7", "00625")] == [3, 3, 3, 2]
    assert named.meta == stores["vg"].meta


def test_stores_that_do_not_fit_are_refused(stores: dict[str, FeatureStore], tmp_path: Path) -> None:
    wide = store(tmp_path / "wide", {"1": 1}, width=4)
    for wrong in ({}, {"a:b": wide}, {"a": wide, "b": stores["vg"]}):
        with pytest.raises(ConfigError):
            NamedStores(wrong)


def test_features_of_a_run_by_name(stores: dict[str, FeatureStore]) -> None:
    places = {name: one.path for name, one in stores.items()}
    processor = Processor(regions=True)
    regions = open_regions(processor, places, {})
    assert regions is not None
    assert regions.count("vg:625") == 2
    again = open_regions(processor, places["vg"], {}, stores=["a", "b"])
    assert again is not None
    assert again.count("b:625") == 2
    with pytest.raises(ConfigError):
        open_regions(processor, places, {}, more=places["vg"])
    assert replace(regions.meta, checksum="") == replace(NamedStores(stores).meta, checksum="")
