"""Blind baselines: at chance where both sides are needed, above it where one side tells."""

import json

import numpy as np
import pytest
from PIL import Image

from diptych.audit.blind import blind_baselines
from diptych.audit.sheet import read_sheet
from diptych.audit.twins import find_twins
from diptych.datasets import find_data
from diptych.features import FeatureStore
from diptych.metrics import auroc


@pytest.fixture(scope="module")
def cheating(tmp_path_factory):
    """Memes whose words tell the label, and whose pictures tell it in most cases."""
    folder, generator = tmp_path_factory.mktemp("cheating"), np.random.default_rng(0)
    (folder / "img").mkdir()
    for split, start, count in (("train", 0, 60), ("dev_seen", 100, 40)):
        lines = []
        for number in range(start, start + count):
            label = number % 2
            pixels = generator.integers(0, 90, (32, 32, 3)) + (
                90 if label and generator.random() < 0.9 else 0
            )
            Image.fromarray(pixels.astype(np.uint8)).save(folder / "img" / f"{number}.png")
            words = f"{'awful' if label else 'lovely'} {' '.join(generator.choice(list('abcdefgh'), 3))}"
            lines.append({"id": number, "img": f"img/{number}.png", "text": words, "label": label})
        (folder / f"{split}.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return folder


def test_one_side_tells(cheating):
    sheet = read_sheet(cheating, find_data(cheating))
    found = blind_baselines(sheet, find_twins(sheet), samples=50)
    text, picture = found.baselines
    assert (text.reads, text.split, text.trained, text.measure) == ("text", "dev_seen", "train", "auroc")
    assert text.value.value == 1
    assert picture.value.value > 0.8
    assert text.blind_enough
    assert picture.blind_enough
    scored = found.scored["picture", "dev_seen"]
    truth = np.array([int(key) % 2 == 1 for key in scored.ids])
    assert auroc(truth, scored.column("hateful")) == picture.value.value


def test_without_a_second_labeled_split_folds_are_held_out(cheating):
    sheet = read_sheet(cheating, find_data(cheating), splits=["dev_seen"])
    text, picture = blind_baselines(sheet, find_twins(sheet), samples=50).baselines
    assert (text.trained, text.split) == ("dev_seen", "dev_seen")
    assert text.value.value > 0.9
    assert picture.value.value > 0.6


def test_the_world_needs_both_sides(twins, memes):
    found = blind_baselines(twins.sheet, twins, regions=FeatureStore(memes / "features"), samples=50)
    assert {one.reads for one in found.baselines} == {"text", "picture", "regions"}
    # Each text has both labels equally often, so a text-only model is at chance to the last digit.
    assert all(one.value.value == 0.5 for one in found.baselines if one.reads == "text")


def test_targets_without_classes_have_no_baseline(tmp_path):
    (tmp_path / "train.jsonl").write_text('{"id": 1, "img": "img/1.png", "text": "a"}\n')
    sheet = read_sheet(tmp_path, find_data(tmp_path))
    found = blind_baselines(sheet, find_twins(sheet))
    assert not found.baselines
    assert found.why_not
