"""GQA in its official files and in LXMERT's. Reading whole worlds is tested in `tests/contract`."""

import json

import pytest

from diptych.datasets import Gqa, fabricate, find_data
from diptych.errors import ConfigError, FormatError
from diptych.evaluate import evaluate
from diptych.predictions import Predictions


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("gqa") / "world"
    fabricate(root, "gqa", size=160, seed=3)
    return root


def test_ids_keep_their_leading_zeros(made, tmp_path):
    split = Gqa(made, "testdev")
    assert all(key.startswith("0") and len(key) == 8 for key in split.ids)
    split.write(Predictions(ids=split.ids, answers=("yes",) * len(split)), tmp_path / "a.json")
    rows = json.loads((tmp_path / "a.json").read_text())
    assert rows == [{"prediction": "yes", "questionId": key} for key in split.ids]
    assert split.read_predictions(tmp_path / "a.json").ids == split.ids
    other = Gqa(made, "val")
    other.write(Predictions(ids=other.ids, answers=("no",) * len(other)), tmp_path / "b.json")
    with pytest.raises(FormatError, match=rf"'testdev'.*{other.ids[0]}"):
        split.read_predictions(tmp_path / "b.json")


def test_the_folder_of_train_all_is_one_split(made):
    split = Gqa(made, "train_all")
    assert len(split.files) == 2
    assert set(split.ids) > set(Gqa(made, "train").ids)
    assert not split[0].meta


def test_records_become_examples(made):
    records = json.loads((made / "val_all_questions.json").read_text())
    for example in Gqa(made, "val_all"):
        record = records[example.id]
        assert example.pairs[0].image == record["imageId"]
        assert example.pairs[0].text == record["question"]
        assert example.target == {record["answer"]: 1.0}
        assert example.meta.get("balanced", True) == record["isBalanced"]
        assert example.meta.get("group") == record["groups"]["global"]
        assert example.meta["structural"] == record["types"]["structural"]


def test_splits_have_the_names_of_lxmert_too(made, tmp_path):
    assert Gqa(made, "valid").ids == Gqa(made, "val").ids
    assert Gqa(made, "submit").ids == Gqa(made, "submission").ids
    folder = tmp_path / "data" / "gqa"
    folder.mkdir(parents=True)
    for name, split in (("valid", "val"), ("submit", "submission")):
        records = [
            {"img_id": one.pairs[0].image, "question_id": one.id, "sent": one.pairs[0].text}
            | ({} if one.target is None else {"label": one.target})
            for one in Gqa(made, split)
        ]
        (folder / f"{name}.json").write_text(json.dumps(records))
    assert Gqa.splits(tmp_path) == ("val", "submission")
    assert find_data(tmp_path).kind is Gqa
    for split in ("val", "submission"):
        for mine, theirs in zip(Gqa(tmp_path, split), Gqa(made, split), strict=True):
            assert (mine.id, mine.pairs, mine.target) == (theirs.id, theirs.pairs, theirs.target)


def test_official_measures_are_shown(made):
    split = Gqa(made, "val_all")
    answers = tuple(
        "no" if example.meta.get("balanced") is False else next(iter(example.target)) for example in split
    )
    found = evaluate(Predictions(ids=split.ids, answers=answers, form="answers"), split, samples=20)
    assert found["accuracy_balanced"].value == 1
    assert found["accuracy"].value < 1
    assert found["consistency"].value == 0  # every question that follows is answered wrongly
    assert found["validity"].value == 1
    assert found["distribution"].value == 0
    assert set(found.breakdown["accuracy per structural type"]) == {"query", "verify"}


@pytest.mark.parametrize(
    ("record", "shown"),
    [
        ({"imageId": 5}, "imageId"),
        ({"answer": ["a"]}, "answer"),
        ({"types": {"structural": 3}}, "structural"),
        ({"groups": []}, "groups"),
        ({"entailed": [3]}, "entailed"),
        ({"semantic": [{"operation": "x"}]}, "argument"),
    ],
)
def test_a_damaged_record_is_named(made, tmp_path, record, shown):
    path = tmp_path / "val_balanced_questions.json"
    records = json.loads((made / path.name).read_text())
    key = list(records)[-1]
    records[key] |= record
    path.write_text(json.dumps(records))
    with pytest.raises(FormatError, match=rf"val_balanced_questions\.json: question {key}.*`{shown}`"):
        Gqa(tmp_path, "val")


def test_what_is_missing_or_cut_off_is_named(made, tmp_path):
    with pytest.raises(ConfigError, match="challenge"):
        Gqa(made, "challenge")
    path = tmp_path / "val_balanced_questions.json"
    path.write_text((made / path.name).read_text()[:-30])
    with pytest.raises(FormatError, match=r"val_balanced_questions\.json.*character"):
        Gqa(tmp_path, "val")
