"""Copies, twins and confounders: those that the miniature world planted, and those that a test plants."""

import json

import pytest
from PIL import Image

from diptych.audit.sheet import read_sheet
from diptych.audit.texts import alike_texts, plain
from diptych.datasets import find_data
from diptych.errors import ConfigError, FormatError


def records(folder, split):
    return [json.loads(line) for line in (folder / f"{split}.jsonl").read_text().splitlines()]


def test_the_planted_confounders_are_found(twins, memes):
    truth = {one["id"]: one for one in records(memes, "truth")}
    ids = twins.sheet.ids
    found = {(frozenset((ids[a], ids[b])), side) for a, b, side in twins.confounders("train")}
    for row in twins.sheet.rows("train"):
        # The same picture under the other text, and the other way around.
        assert (frozenset((ids[row], truth[ids[row]]["sibling_text"])), "picture") in found
        assert (frozenset((ids[row], truth[ids[row]]["sibling_picture"])), "text") in found
    train = twins.confounded()[0]
    assert (train.split, train.both) == ("train", train.count)


def test_splits_of_the_world_share_only_what_the_benchmark_shares(twins):
    shared = {(one.first, one.second): one for one in twins.overlaps()}
    dev = shared["dev_seen", "dev_unseen"]
    assert dev.known
    assert dev.ids == len(
        set(twins.sheet.datasets["dev_seen"].ids) & set(twins.sheet.datasets["dev_unseen"].ids)
    )
    assert all(one.copies == 0 for one in shared.values())
    assert all(one.ids == 0 for pair, one in shared.items() if pair != ("dev_seen", "dev_unseen"))


def test_copies_are_found_though_scaled_and_respelled(planted, spoiled):
    first, second = records(spoiled, "train")[:2]
    for number, name in ((first, "copy.jpg"), (second, "words.png")):
        picture = Image.open(spoiled / number["img"]).convert("RGB")
        picture.resize((picture.width * 3 // 4, picture.height * 3 // 4)).save(spoiled / "img" / name)
    copies = [
        {
            "id": 90001,
            "img": "img/copy.jpg",
            "text": f"  {first['text'].upper()}!",
            "label": 1 - first["label"],
        },
        {"id": 90002, "img": "img/words.png", "text": "quite other words", "label": second["label"]},
        {"id": 90003, "img": first["img"], "text": "", "label": 0},
    ]
    (found,) = [
        one for one in planted(dev_seen=copies).overlaps() if (one.first, one.second) == ("train", "dev_seen")
    ]
    assert (found.copies, found.contradicting, found.texts) == (1, 1, 1)
    assert found.pictures == 3
    assert found.examples == (f"90001 = {first['id']}",)


def test_copies_inside_of_a_split_count_once(planted, spoiled):
    first = records(spoiled, "train")[0]
    inside = [one for one in planted(train=[{**first, "id": 90001}]).overlaps() if one.first == one.second]
    assert [(one.first, one.copies, one.contradicting) for one in inside] == [("train", 1, 0)]


def test_texts_that_nearly_agree():
    texts = [
        "when you see a red car on the long road home",
        "when you see a red car on the long road",
        "other",
    ]
    assert alike_texts(texts).tolist() == [[0, 1]]
    assert alike_texts(["", "a"]).shape == (0, 2)
    assert plain("What, a DAY!") == plain("what a day") != plain("what a way")


def test_labels_are_where_they_are(memes):
    sheet = read_sheet(memes, find_data(memes), splits=["train", "test_seen"])
    assert sheet.release == {"train": "in the split", "test_seen": "in a file of answers"}
    assert sheet.labeled == ["train", "test_seen"]
    assert set(sheet.labels) == {"benign", "hateful"}
    with pytest.raises(ConfigError, match="dev_sen"):
        read_sheet(memes, find_data(memes), splits=["dev_sen"])


def test_without_pictures_texts_are_compared(spoiled, planted):
    for path in (spoiled / "img").iterdir():
        path.unlink()
    found = planted()
    assert not any(found.pictures.of)
    assert found.confounded()[0].by_text == found.confounded()[0].count
    assert found.confounded()[0].by_picture == 0


def test_a_missing_picture_is_named(planted):
    with pytest.raises(FormatError, match=r"gone\.png"):
        planted(train=[{"id": 90001, "img": "img/gone.png", "text": "a", "label": 0}])
