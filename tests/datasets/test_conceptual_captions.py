"""Official tables and JSON lines of Conceptual Captions, and regions in archives."""

import json
import zipfile

import numpy as np
import pytest

from diptych.datasets import ConceptualCaptions, fabricate
from diptych.datasets.base import DuplicateId
from diptych.errors import FormatError
from diptych.features import FeatureStore, import_features


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("cc") / "world"
    fabricate(root, "conceptual_captions", size=24, seed=2)
    return root


def lines(folder, text, name="train_frcnn.json"):
    (folder / name).write_text(text, encoding="utf-8")
    return ConceptualCaptions(folder, "train")


def test_json_lines_list_the_pictures_that_were_downloaded(made):
    split = ConceptualCaptions(made, "train")
    records = [json.loads(line) for line in (made / "train_frcnn.json").read_text().splitlines()]
    assert [one.pairs[0].text for one in split] == [" ".join(record["caption"]) for record in records]
    assert [one.pairs[0].image for one in split] == [f"train:{record['image'][-12:-4]}" for record in records]
    assert all(path.is_file() for path in split.images.values())


def test_official_tables_number_pictures_by_their_line(tmp_path):
    table = "a dog .\thttp://x.org/1.jpg\n\na \u00e9t\u00e9 .\thttp://x.org/2.jpg"
    (tmp_path / "conceptual-captions").mkdir()
    split = lines(tmp_path / "conceptual-captions", table, "Train_GCC-training.tsv")
    assert [one.id for one in split] == ["train/00000000", "train/00000002"]
    again = ConceptualCaptions(tmp_path, "train")
    assert [one.pairs[0].text for one in again] == ["a dog .", "a \u00e9t\u00e9 ."]
    folder = tmp_path / "conceptual-captions" / "train_image"
    assert again.images["train:00000002"] == folder / "00000002.jpg"


def test_regions_of_the_archive_are_those_of_the_store(made, tmp_path):
    import_features(made / "val_frcnn.zip", tmp_path / "store", dtype="float16")
    ours, theirs = FeatureStore(made / "features"), FeatureStore(tmp_path / "store")
    assert len(theirs) == len(ConceptualCaptions(made, "val"))
    for key in theirs:
        assert np.array_equal(theirs[key].features, ours[key].features)
        assert np.allclose(theirs[key].probabilities, ours[key].probabilities, atol=1e-3)


def test_an_archive_without_a_member_lacks_that_picture(made, tmp_path):
    with zipfile.ZipFile(made / "val_frcnn.zip") as full, zipfile.ZipFile(tmp_path / "less.zip", "w") as less:
        first, *others = full.namelist()
        for name in others:
            less.writestr(name, full.read(name))
    import_features(tmp_path / "less.zip", tmp_path / "store")
    assert first.removesuffix(".json") not in FeatureStore(tmp_path / "store")


@pytest.mark.parametrize(
    ("record", "told"),
    [
        ('{"image": "a.zip@/1.jpg", "caption": ["x", 3]}', "caption"),
        ('{"image": "a.zip@/1.jpg", "caption": []}', "caption"),
        ('{"image": "../1.jpg", "caption": ["x"]}', "image"),
        ('{"image": 7, "caption": ["x"]}', "image"),
        ('{"image": "a/1.jpg", "caption": "x"', "JSON|cut off|delimiter"),
    ],
)
def test_what_is_wrong_with_a_record_is_said_with_its_line(tmp_path, record, told):
    good = '{"image": "a.zip@/0.jpg", "caption": ["x"]}\n'
    with pytest.raises(FormatError, match=rf"train_frcnn\.json:2.*({told})"):
        lines(tmp_path, good + record)


def test_a_picture_has_one_caption(tmp_path):
    record = '{"image": "a.zip@/0.jpg", "caption": ["x"]}\n'
    with pytest.raises(DuplicateId, match=r":2.*line 1"):
        lines(tmp_path, 2 * record)
