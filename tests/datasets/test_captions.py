"""Flickr30k and COCO captions. Reading whole worlds is tested in `tests/contract`."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from diptych.datasets import CocoCaptions, Flickr30k, fabricate, find_data
from diptych.errors import ConfigError, DiptychError, FormatError


@pytest.fixture(scope="module")
def flickr(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("flickr30k") / "world"
    fabricate(root, "flickr30k", size=40, seed=2)
    return root


@pytest.fixture(scope="module")
def coco(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("coco") / "world"
    fabricate(root, "coco_captions", size=40, seed=2)
    return root


def test_the_token_file_with_lists_gives_the_captions_of_karpathys_file(flickr: Path) -> None:
    tokens = flickr / "official"
    for split in ("train", "val", "test"):
        assert [*Flickr30k(tokens, split)] == [*Flickr30k(flickr, split)]
    assert Flickr30k(tokens, "val+test").ids == Flickr30k(tokens, "val").ids + Flickr30k(flickr, "test").ids
    assert find_data(tokens).kind is Flickr30k


def test_official_splits_of_coco_hold_the_captions_of_karpathys(coco: Path) -> None:
    official = {one.id: one for one in CocoCaptions(coco, "val2014")}
    own = {one.id: one for one in CocoCaptions(coco, "restval+val+test")}
    assert official == own
    assert all(one.pairs[0].text == one.pairs[0].text.strip() for one in own.values())
    assert len({one.pairs[0].image for one in own.values()}) == len(own) / 5


def test_keys_of_other_feature_files(coco: Path) -> None:
    numbers, padded = (CocoCaptions(coco, "val", image_key=kind) for kind in ("number", "padded8"))
    key = numbers[0].pairs[0].image
    assert padded[0].pairs[0].image == str(key).zfill(8)
    assert numbers.images[str(key)].is_file()
    with pytest.raises(ConfigError, match="stems"):
        CocoCaptions(coco, "val", image_key="stems")


def changed(root: Path, tmp_path: Path, name: str, change: Callable[[Any], object]) -> Path:
    content = json.loads((root / name).read_text())
    change(content)
    (tmp_path / name).write_text(json.dumps(content))
    return tmp_path


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda one: one["sentences"][1].update(raw=" "), "image 0, sentence 1"),
        (lambda one: one["sentences"][0].pop("raw"), "image 0, sentence 0.*`raw`"),
        (lambda one: one.update(filename="../a.jpg"), r"\.\./a\.jpg"),
        (lambda one: one.update(sentences={}), "image 0.*`sentences`"),
        (lambda one: one.pop("split"), "image 0.*`split`"),
    ],
)
def test_a_damaged_image_is_named(
    flickr: Path, tmp_path: Path, change: Callable[[Any], object], named: str
) -> None:
    root = changed(flickr, tmp_path, "dataset_flickr30k.json", lambda all_: change(all_["images"][0]))
    with pytest.raises(FormatError, match=named):
        Flickr30k(root, "train")


def test_a_damaged_line_of_the_token_file_is_named(flickr: Path, tmp_path: Path) -> None:
    lines = (flickr / "official" / "results_20130124.token").read_text().splitlines()
    (tmp_path / "train.txt").write_bytes((flickr / "official" / "train.txt").read_bytes())
    for line in ("no tab at all", "1.jpg\tno number"):
        (tmp_path / "results_20130124.token").write_text("\n".join([*lines[:3], line]))
        with pytest.raises(FormatError, match=r"results_20130124\.token:4: "):
            Flickr30k(tmp_path, "train")
    (tmp_path / "results_20130124.token").write_text("\n".join(lines))
    (tmp_path / "train.txt").write_text("12345\n")
    with pytest.raises(FormatError, match=r"train\.txt.*12345"):
        Flickr30k(tmp_path, "train")


@pytest.mark.parametrize("field", ["image_id", "id", "caption"])
def test_a_damaged_annotation_is_named(coco: Path, tmp_path: Path, field: str) -> None:
    name = "captions_val2014.json"
    root = changed(coco, tmp_path, name, lambda all_: all_["annotations"][3].pop(field))
    with pytest.raises(FormatError, match=rf"{name}: annotation 3.*`{field}`"):
        CocoCaptions(root, "val2014")


def test_a_split_that_is_not_there_and_an_id_that_occurs_twice(coco: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"train2017.*restval"):
        CocoCaptions(coco, "train2017")
    root = changed(
        coco,
        tmp_path,
        "captions_val2014.json",
        lambda all_: all_["annotations"].append(all_["annotations"][0]),
    )
    with pytest.raises(DiptychError, match="captions_val2014"):
        CocoCaptions(root, "val2014")
