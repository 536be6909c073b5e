import numpy as np
import pytest
from PIL import Image

from diptych.errors import ConfigError
from diptych.report.regions import describe, region_page
from diptych.types import FeatureMeta, Regions

META = FeatureMeta(feature_dim=1, classes=("dog,hound", "cat"), attributes=("red",))


def regions(count=1, size=(60, 40)):
    return Regions(
        features=np.zeros((count, 1), np.float32),
        boxes=np.tile(np.float32([[10, 10, 30, 20]]), (count, 1)),
        size=size,
        labels=np.arange(count),
        scores=np.full(count, 0.834, np.float32),
        attributes=np.arange(count),
    )


def test_a_region_is_told_in_words():
    assert [describe(regions(3), row, META) for row in range(3)] == [
        "red dog 0.83",
        "attribute 1 cat 0.83",
        "attribute 2 class 2 0.83",
    ]
    bare = Regions(features=np.zeros((1, 1)), boxes=np.zeros((1, 4), np.float32), size=(9, 9))
    assert describe(bare, 0, META) == "region 1"


def test_boxes_lie_on_their_pictures(tmp_path):
    Image.new("RGB", (60, 40), "white").save(tmp_path / "white.png")
    (tmp_path / "broken.png").touch()
    found = [(tmp_path / "white.png", regions(1)), (tmp_path / "broken.png", regions(30))]
    region_page(found, tmp_path / "page.png", meta=META, title="vgattr, 36 boxes")
    page = np.asarray(Image.open(tmp_path / "page.png").convert("RGB")).astype(int)
    blue = np.abs(page[:, : page.shape[1] // 2] - [0x00, 0x72, 0xB2]).sum(2) < 40
    white = (page[:, : page.shape[1] // 2] > 250).all(2)
    rows, columns = (np.flatnonzero(white.any(axis)) for axis in (1, 0))
    # The picture is 60 x 40; its box spans a third of its width from a sixth on, a quarter of its height.
    scale = (columns[-1] - columns[0]) / 60
    inside = blue[:, columns[0] : columns[-1]].any(0).nonzero()[0]
    assert inside[0] / scale == pytest.approx(10, abs=1)
    assert inside[-1] / scale == pytest.approx(30, abs=1)
    lines = blue[rows[0] : rows[-1]].any(1).nonzero()[0]
    assert lines[0] / scale == pytest.approx(10, abs=1)


def test_nothing_to_draw_is_refused(tmp_path):
    with pytest.raises(ConfigError):
        region_page([], tmp_path / "page.png", meta=META, title="none")
