import json

import pytest

from diptych.datasets import fabricate
from diptych.datasets.answer_table import read_answers
from diptych.datasets.base import DuplicateId
from diptych.datasets.lxmert import LxmertPretraining
from diptych.errors import ConfigError, DiptychError, FormatError
from diptych.predictions import Predictions

COCO = "COCO_train2014_000000000009"
RECORDS = [
    {
        "img_id": COCO,
        "sentf": {"mscoco": ["a dog", "a mat"], "vqa": ["how many?", "who?", "why?"]},
        "labelf": {"vqa": [{"two": 0.3, "2": 1}, {"A Dog.": 1, "unheard": 0.6}, {}]},
    },
    {"img_id": "2375429", "sentf": {"gqa": ["what color?"]}, "labelf": {"gqa": [{"grey": 1.0}]}},
    {"img_id": "n116329", "sentf": {"vg": ["red kite"]}, "labelf": None},
]
TABLE = ["2", "dog", "gray"]


def write(folder, records, name="mscoco_train", table=TABLE):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(records), encoding="utf-8")
    if table is not None:
        answers = [{"ans": answer, "dsets": ["vqa"]} for answer in table]
        (folder / "all_ans.json").write_text(json.dumps(answers), encoding="utf-8")
    return folder


def test_every_sentence_is_an_example(tmp_path):
    split = LxmertPretraining(write(tmp_path, RECORDS), "mscoco_train")
    assert split.ids == (
        f"{COCO}_mscoco_000", f"{COCO}_mscoco_001", f"{COCO}_vqa_000", f"{COCO}_vqa_001", f"{COCO}_vqa_002",
        "2375429_gqa_000", "n116329_vg_000",
    )  # fmt: skip
    assert [one.group for one in split] == ["mscoco", "mscoco", "vqa", "vqa", "vqa", "gqa", "vg"]
    # `two` and `2` become one, of which the later overwrites; `unheard` is not in the table
    assert [one.target for one in split] == [None, None, {"2": 1}, {"dog": 1}, None, {"gray": 1.0}, None]
    assert split.labels == tuple(TABLE)
    assert [one.pairs[0].text for one in split][2] == "how many?"


def test_pictures_lie_in_the_stores_of_their_collections(tmp_path):
    split = LxmertPretraining(write(tmp_path, RECORDS), "mscoco_train")
    images = [split[row].pairs[0].image for row in (0, 5, 6)]
    assert images == [f"coco:{COCO}", "vg:2375429", "vg:n116329"]
    assert split.images[f"coco:{COCO}"] == tmp_path / "train2014" / f"{COCO}.jpg"


@pytest.mark.parametrize("place", [".", "lxmert", "data/lxmert"])
def test_files_may_lie_where_the_original_has_them(tmp_path, place):
    write(tmp_path / place, RECORDS)
    write(tmp_path / place, RECORDS[:1], "mine")
    (tmp_path / place / "other.json").write_text('{"sentf": 1}')
    assert LxmertPretraining.splits(tmp_path) == ("mscoco_train", "mine")
    assert LxmertPretraining.recognizes(tmp_path)
    assert len(LxmertPretraining(tmp_path, "mine")) == 5


def test_several_files_are_one_split(tmp_path):
    write(tmp_path, RECORDS[:1])
    write(tmp_path, RECORDS[1:], "vgnococo")
    split = LxmertPretraining(tmp_path, "mscoco_train+vgnococo")
    assert len(split) == 7
    assert split.ids[-1] == "n116329_vg_000"
    with pytest.raises(ConfigError, match="mscoco_train"):
        LxmertPretraining(tmp_path, "mscoco_train+mscoco_train")
    with pytest.raises(ConfigError, match="vgnoco'"):
        LxmertPretraining(tmp_path, "mscoco_train+vgnoco")


def test_without_a_table_all_answers_are_learned(tmp_path):
    split = LxmertPretraining(write(tmp_path, RECORDS, table=None), "mscoco_train")
    assert split[3].target == {"dog": 1, "unheard": 0.6}
    assert split.labels == ("2", "dog", "gray", "unheard")


@pytest.mark.parametrize(
    ("record", "value"),
    [
        ("text", "record 1"),
        ({"img_id": 9, "sentf": {}}, "img_id is 9"),
        ({"img_id": "9", "sentf": ["a"]}, "sentf"),
        ({"img_id": "9", "sentf": {"vqa": "a?"}}, "vqa"),
        ({"img_id": "9", "sentf": {"vqa": ["a?", 3]}}, "vqa"),
        ({"img_id": "9", "sentf": {"vqa": ["a?"]}, "labelf": {"gqa": []}}, "gqa"),
        ({"img_id": "9", "sentf": {"vqa": ["a?"]}, "labelf": ["vqa"]}, "vqa"),
        ({"img_id": "9", "sentf": {"vqa": ["a?"]}, "labelf": {"vqa": [{}, {}]}}, "2 labels"),
        ({"img_id": "9", "sentf": {"vqa": ["a?"]}, "labelf": {"vqa": {}}}, "vqa"),
        ({"img_id": "9", "sentf": {"vqa": ["a?"]}, "labelf": {"vqa": ["yes"]}}, "yes"),
        ({"img_id": "9", "sentf": {"vqa": ["a?"]}, "labelf": {"vqa": [{"yes": 3}]}}, "3"),
        ({"img_id": "9", "sentf": {"vqa": ["a?"]}, "labelf": {"vqa": [{"yes": True}]}}, "True"),
        ({"img_id": "9", "sentf": {"vqa": ["\ud800"]}}, "9_vqa_000"),
    ],
)
def test_a_record_that_is_wrong_is_named(tmp_path, record, value):
    with pytest.raises(FormatError, match=value) as error:
        LxmertPretraining(write(tmp_path, [record]), "mscoco_train")
    assert "mscoco_train.json" in str(error.value)


def test_an_image_has_one_record(tmp_path):
    with pytest.raises(DuplicateId, match="2375429"):
        LxmertPretraining(write(tmp_path, [*RECORDS, RECORDS[1]]), "mscoco_train")


@pytest.mark.parametrize("table", [["a", "b", "a"], ["a", 3]])
def test_an_answer_table_holds_every_answer_once(tmp_path, table):
    path = write(tmp_path, RECORDS, table=table) / "all_ans.json"
    with pytest.raises(FormatError, match=rf"all_ans\.json.*{table[-1]}"):
        read_answers(path)


def test_answers_of_some_data_sets(tmp_path):
    write(tmp_path, RECORDS)
    sets = {"2": ["vqa", "gqa"], "dog": ["visual7w"], "gray": ["gqa"]}
    (tmp_path / "all_ans.json").write_text(json.dumps([{"ans": a, "dsets": b} for a, b in sets.items()]))
    split = LxmertPretraining(tmp_path, "mscoco_train", qa_sets=["gqa"])
    assert split.labels == ("2", "gray")
    assert [one.target for one in split] == [None, None, {"2": 1}, None, None, {"gray": 1.0}, None]
    whole = LxmertPretraining(tmp_path, "mscoco_train")  # not taken from the cache of the other
    assert whole.labels == ("2", "dog", "gray")
    assert whole[3].target == {"dog": 1}
    with pytest.raises(ConfigError, match=r"genome.*visual7w"):
        LxmertPretraining(tmp_path, "mscoco_train", qa_sets=["gqa", "genome"])
    (tmp_path / "all_ans.json").write_text('["2", "dog"]')
    with pytest.raises(ConfigError, match="gqa"):
        LxmertPretraining(tmp_path, "mscoco_train", qa_sets=["gqa"])


def test_there_is_no_official_file(tmp_path):
    split = LxmertPretraining(write(tmp_path, RECORDS), "mscoco_train")
    some = Predictions(ids=("a",), answers=("b",))
    for call in (lambda: split.write(some, tmp_path / "x"), lambda: split.read_predictions(tmp_path / "x")):
        with pytest.raises(ConfigError, match="lxmert"):
            call()


def test_the_miniature_has_what_the_original_has(tmp_path):
    counts = fabricate(tmp_path / "w", "lxmert", size=40, seed=3).splits
    train = LxmertPretraining(tmp_path / "w", "mscoco_train+mscoco_nominival+vgnococo")
    assert len(train) + counts["mscoco_minival"] == sum(counts.values())
    assert {one.group for one in train} == {"mscoco", "vqa", "gqa", "vg", "visual7w"}
    raw = json.loads((tmp_path / "w/lxmert/mscoco_train.json").read_text())
    labels = [label for record in raw for some in record["labelf"].values() for label in some]
    assert {} in labels
    assert any(answer not in train.labels for label in labels for answer in label)
    assert all(set(one.target) <= set(train.labels) for one in train if one.target)
    with pytest.raises(DiptychError, match="10"):
        fabricate(tmp_path / "v", "lxmert", size=10)
