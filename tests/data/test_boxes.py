import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diptych.data import (
    BoxSource,
    DetectorTransform,
    Processor,
    Sources,
    bare_regions,
    open_regions,
    read_boxes,
    require_sources,
)
from diptych.errors import ConfigError, FormatError, MissingFeatures
from diptych.types import Example, Pair, RegionSource

PIXELS = {"regions": True, "prepare": DetectorTransform(least=20, most=40)}


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    Image.new("RGB", (40, 20), "red").save(tmp_path / "007.png")
    return tmp_path / "007.png"


@pytest.fixture
def given(tmp_path: Path) -> Path:
    records = [
        {"id": 7, "boxes": [[0, 0, 40, 20], [1, 2, 3, 4.5]], "objects": ["a", "b"]},
        {"id": "e", "boxes": []},
    ]
    path = tmp_path / "boxes.jsonl"
    path.write_text("\ufeff" + "\n\n".join(map(json.dumps, records)), encoding="utf-8")
    return path


def test_given_boxes_are_regions_without_features(picture: Path, given: Path) -> None:
    source = BoxSource({"007": picture}, given=read_boxes(given))
    assert isinstance(source, RegionSource)
    regions = source["007"]  # ids may lack the zeros in front, as JSON numbers do
    assert regions.boxes.tolist() == [[0, 0, 40, 20], [1, 2, 3, 4.5]]
    assert (regions.features.shape, regions.size, source.count("007")) == ((2, 0), (40, 20), 2)
    assert "007" in source
    assert "8" not in source
    assert (source.meta.feature_dim, source.meta.box_rule) == (0, "given")


def test_a_grid_covers_the_picture_row_by_row(picture: Path) -> None:
    with Image.open(picture) as image:
        source = BoxSource({"k": picture, "l": image}, grid=[2, 4])
        assert source["l"].boxes.tolist() == source["k"].boxes.tolist()
    boxes = source["k"].boxes
    assert boxes[:2].tolist() == [[0, 0, 10, 10], [10, 0, 20, 10]]
    assert boxes[-1].tolist() == [30, 10, 40, 20]
    assert (source.count("k"), source.meta.box_rule) == (8, "2x4")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("nonsense", r"boxes\.jsonl:2: .*\{\"id\""),
        ('{"boxes": []}', r":2: .*`id`"),
        ("[1]", r":2: .*`id`"),
        ('{"id": 1}', r":2: .*\{\"id\""),
        ('{"id": 1, "boxes": [[1, 2, 3]]}', r":2: `boxes`.*\(1, 3\)"),
        ('{"id": 1, "boxes": [1, 2, 3, 4]}', r":2: `boxes`.*\(4,\)"),
        ('{"id": 1, "boxes": [["a", 2, 3, 4]]}', r":2: .*\{\"id\""),
        ("\udcff", r":2: .*0xff"),
        ('{"id": "0", "boxes": []}', r":2: .*'0'"),
    ],
)
def test_a_broken_record_is_named(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "boxes.jsonl"
    path.write_text('{"id": 0, "boxes": []}\n' + line, encoding="utf-8", errors="surrogateescape")
    with pytest.raises(FormatError, match=message):
        read_boxes(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"boxes\.jsonl"):
        read_boxes(tmp_path / "boxes.jsonl")


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ([5, 0, 1, 4], r"box 0 .*5.*1"),
        ([0, 0, 60, 4], r"box 0 .*60"),
        ([0, 0, 1e400, 1], r"region 0 .*NaN"),
    ],
)
def test_boxes_that_do_not_fit_the_picture_are_named(
    tmp_path: Path, picture: Path, box: list[float], message: str
) -> None:
    path = tmp_path / "boxes.jsonl"
    path.write_text(json.dumps({"id": "k", "boxes": [box]}), encoding="utf-8")
    with pytest.raises(FormatError, match=rf"boxes\.jsonl: picture k: .*{message}"):
        BoxSource({"k": picture}, given=read_boxes(path))["k"]


def test_features_are_a_store_boxes_or_a_grid(given: Path, tmp_path: Path) -> None:
    assert open_regions(Processor(image_size=8), "nowhere", {}) is None
    boxes = open_regions(Processor(**PIXELS), given, {})
    assert isinstance(boxes, BoxSource)
    assert boxes.given is not None
    grid = open_regions(Processor(**PIXELS, grid=[3, 2]), None, {})
    assert isinstance(grid, BoxSource)
    assert (grid.given, list(grid.grid)) == (None, [3, 2])
    with pytest.raises(FormatError, match=re.escape(str(tmp_path))):
        open_regions(Processor(**PIXELS), tmp_path, {})
    with pytest.raises(ConfigError, match=re.escape(f"features={given}")):
        open_regions(Processor(regions=True), given, {})
    with pytest.raises(ConfigError, match=r"features=FOLDER") as error:
        open_regions(Processor(regions=True), None, {})
    assert "processor.grid" not in str(error.value)
    with pytest.raises(ConfigError, match=r"features=boxes\.jsonl.*processor\.grid"):
        open_regions(Processor(**PIXELS), None, {})
    with pytest.raises(ConfigError, match=r"more_features=more.* 2 "):
        open_regions(Processor(regions=True), {"a": "x", "b": "y"}, {}, more="more")


def test_pictures_without_boxes_are_counted_before_the_first_step(picture: Path, given: Path) -> None:
    needs, images = frozenset({"pixels", "regions"}), {"007": picture, "other": picture}
    sources = Sources(regions=BoxSource(images, given=read_boxes(given)), images=images)
    examples = [Example(id=key, pairs=(Pair(image=key, text=""),)) for key in images]
    with pytest.raises(MissingFeatures, match=r"1 .*other.*boxes\.jsonl|boxes\.jsonl.*other"):
        require_sources(needs, Processor(**PIXELS), sources, examples)
    require_sources(needs, Processor(**PIXELS), sources, examples[:1])


def test_bare_regions_keep_the_pixels() -> None:
    regions = bare_regions(np.array([[1, 2, 3, 4]], np.float32), (9, 9))
    assert (len(regions), regions.features.shape, regions.size) == (1, (1, 0), (9, 9))


def test_scaled_boxes_are_refused(picture: Path, tmp_path: Path) -> None:
    (tmp_path / "b.jsonl").write_text('{"id": "1", "boxes": [[0.1, 0.2, 0.5, 0.6], [0, 0, 1, 1]]}\n')
    given = read_boxes(tmp_path / "b.jsonl")
    with pytest.raises(FormatError, match=r"b\.jsonl: picture 1: .*\b2 boxes.* 0\.\.1"):
        given.of("1", (64, 48))
    assert len(given.of("1", (2, 1))) == 2
