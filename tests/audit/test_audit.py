"""The audit as a whole: predictions against baselines, on confounders, in slices; findings."""

import json
import re

import numpy as np
import pytest

from diptych.audit import audit
from diptych.datasets import find_data
from diptych.errors import ConfigError, FormatError
from diptych.predictions import Predictions


def scored(memes, path, split="train", *, by="label", keep=None):
    """Predictions that know the label, or read the text only."""
    dataset = find_data(memes).open_labeled(memes, split)
    examples = [*dataset][:keep]
    noise = np.random.default_rng(0).random(len(examples)) / 10
    known = [
        float(one.target == "hateful") if by == "label" else (len(one.pairs[0].text) % 7) / 7
        for one in examples
    ]
    values = np.clip(np.array(known) * 0.9 + (noise if by == "label" else 0), 0, 1)
    ids = tuple(one.id for one in examples)
    Predictions(
        ids=ids,
        scores=np.stack((1 - values, values), 1),
        classes=("benign", "hateful"),
        meta={"split": split},
    ).save(path)
    return path


@pytest.fixture(scope="module")
def found(memes, tmp_path_factory):
    folder = tmp_path_factory.mktemp("scores")
    files = [scored(memes, folder / "good.npz"), scored(memes, folder / "blind.npz", by="text")]
    # The training split is the largest; alone, it is measured in folds.
    return audit(memes, find_data(memes), splits=["train"], predictions=files, samples=50)


def test_a_model_of_both_sides_passes(found):
    good = found.judged[0]
    assert (good.split, good.measure, good.value.value) == ("train", "auroc", 1)
    assert good.blind[1].difference > 0.3
    assert good.blind[1].p < 0.05
    assert {side: share.value for side, share in good.ordered.items()} == {"picture": 1, "text": 1}
    assert not any(good.file in one.what for one in found.findings)


def test_a_model_of_one_side_is_an_error(found):
    blind = found.judged[1]
    # Memes with the same text have the same score, so each pair is a tie.
    assert blind.ordered["text"].value == 0.5
    errors = [one for one in found.findings if one.severity == "error"]
    assert [blind.file in one.what for one in errors] == [True]
    assert found.findings[0] == errors[0]
    assert any(blind.file in one.what and "same text" in one.what for one in found.findings[1:])


def test_slices_are_of_all_examples(found):
    slices = [one for one in found.judged[0].slices if one.column == "length of the text"]
    assert sum(one.count for one in slices) == found.judged[0].count
    assert len(slices) > 1


def test_the_contract_and_json(found, memes):
    whole = audit(memes, find_data(memes), samples=10)
    rows = {row.split: row for row in whole.contract}
    assert rows["test_unseen"].release == "in a file of answers"
    assert rows["test_unseen"].seen < 0.1
    assert sum(rows["train"].labels.values()) == rows["train"].examples
    plain = json.loads(json.dumps(found.as_dict(), allow_nan=False))
    assert plain["root"] == str(memes)
    assert plain["judged"][0]["blind"][1]["p"] < 0.05


def test_predictions_that_do_not_fit_are_refused(memes, tmp_path):
    data = find_data(memes)
    half = scored(memes, tmp_path / "half.npz", "dev_seen", keep=5)
    with pytest.raises(FormatError, match=r"half\.npz.* 5 .*dev_seen"):
        audit(memes, data, predictions=[half], samples=10, splits=["train", "dev_seen"])
    other = scored(memes, tmp_path / "other.npz", "test_seen")
    with pytest.raises(FormatError, match="'test_seen'"):
        audit(memes, data, predictions=[other], samples=10, splits=["train", "dev_seen"])


def test_a_folder_without_labels_is_compared_all_the_same(tmp_path):
    lines = [{"id": at, "img": f"img/{at}.png", "text": "the same words"} for at in range(3)]
    for split in ("train", "test_seen"):
        own = lines if split == "train" else [{**line, "id": line["id"] + 10} for line in lines]
        (tmp_path / f"{split}.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in own))
    found = audit(tmp_path, find_data(tmp_path))
    assert found.overlaps[1].texts == 3
    assert not found.baselines
    assert len(found.skipped) == 2
    assert any(one.what == "splits without labels" and one.count == 2 for one in found.findings)
    # Text is all there is, so the same text is a copy.
    assert any(one.severity == "error" and one.count == 3 for one in found.findings)
    path = tmp_path / "test_seen.npz"
    scores = np.full((3, 2), 0.5)
    Predictions(ids=("10", "11", "12"), scores=scores, classes=("benign", "hateful")).save(path)
    with pytest.raises(ConfigError, match="test_seen"):
        audit(tmp_path, find_data(tmp_path), predictions=[path])


def test_second_labels_that_are_all_empty_are_refused(memes, tmp_path):
    path = tmp_path / "second.csv"
    path.write_text(f"id,label\n{find_data(memes).open(memes, 'dev_seen')[0].id},\n")
    with pytest.raises(FormatError, match=re.escape(str(path))):
        audit(memes, find_data(memes), second=path)
