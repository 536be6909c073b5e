"""VQA v2 in its official files and in LXMERT's. Reading whole worlds is tested in `tests/contract`."""

import json
import shutil
from collections import defaultdict

import numpy as np
import pytest

from diptych.datasets import Vqa, fabricate, find_data
from diptych.errors import ConfigError, DiptychError, FormatError
from diptych.evaluate import evaluate
from diptych.metrics.vqa import vqa_score
from diptych.predictions import Predictions

QUESTIONS = "v2_OpenEnded_mscoco_{}_questions.json"
ANNOTATIONS = "v2_mscoco_{}_annotations.json"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("vqa") / "world"
    fabricate(root, "vqa", size=160, seed=3)
    return root


@pytest.fixture
def root(made, tmp_path):
    """The annotation files of a world, to be changed."""
    for path in made.glob("*.json"):
        shutil.copy(path, tmp_path)
    return tmp_path


def change(path, edit):
    values = json.loads(path.read_text())
    edit(values)
    path.write_text(json.dumps(values))


def test_questions_and_answers_are_joined_by_id(made):
    split = Vqa(made, "val")
    questions = json.loads((made / QUESTIONS.format("val2014")).read_text())["questions"]
    annotations = json.loads((made / ANNOTATIONS.format("val2014")).read_text())["annotations"]
    assert [example.id for example in split] == [str(one["question_id"]) for one in questions]
    by_id = {str(one["question_id"]): one for one in annotations}
    for example, question in zip(split, questions, strict=True):
        assert example.pairs[0].text == question["question"]
        assert example.pairs[0].image == f"COCO_val2014_{question['image_id']:012d}"
        given = [one["answer"] for one in by_id[example.id]["answers"]]
        assert example.meta["answers"] == given
        assert example.target == pytest.approx({key: vqa_score(key, given) for key in example.target})
        assert max(example.target.values()) == next(iter(example.target.values()))


def test_test_questions_have_no_answers(made):
    assert {example.target for example in Vqa(made, "test")} == {None}
    assert Vqa(made, "test-dev").ids == Vqa(made, "test").ids[: len(Vqa(made, "test-dev"))]


def test_two_splits_may_be_one(made):
    both = Vqa(made, "nominival+minival")
    assert set(both.ids) == set(Vqa(made, "val").ids)
    assert {both.files[0].name, both.files[1].name} == {"nominival.json", "minival.json"}
    with pytest.raises(FormatError, match=both.ids[0]):
        Vqa(made, "nominival+val")


@pytest.mark.parametrize("folder", ["vqa", "data/vqa", "coco/vqa"])
def test_lxmerts_tree_gives_the_same_examples(made, tmp_path, folder):
    for name in ("minival", "nominival"):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        shutil.copy(made / f"{name}.json", tmp_path / folder)
    shutil.copy(made / "trainval_label2ans.json", tmp_path / folder)
    assert Vqa.splits(tmp_path) == ("nominival", "minival")
    assert find_data(tmp_path).kind is Vqa
    known = set(json.loads((made / "trainval_label2ans.json").read_text()))
    official = {example.id: example for example in Vqa(made, "val")}
    split = Vqa(tmp_path, "minival")
    assert split.answer_table == tmp_path / folder / "trainval_label2ans.json"
    for example in split:
        other = official[example.id]
        assert example.pairs == other.pairs
        assert example.target == {key: score for key, score in other.target.items() if key in known}
        assert example.meta["question_type"] == other.meta["question_type"]


def test_files_of_another_data_set_with_the_same_name_are_not_taken(tmp_path):
    (tmp_path / "train.json").write_text('[{"question_id": "07", "sent": "a?", "img_id": "1"}]')
    (tmp_path / "test.json").write_text('{"sentence": "a", "label": "True"}\n{"sentence": "b"}\n')
    assert Vqa.splits(tmp_path) == ()


def annotations_of(root):
    return root / ANNOTATIONS.format("val2014")


@pytest.mark.parametrize(
    ("edit", "shown"),
    [
        (lambda v: v["annotations"].pop(), "no annotation of 1 question"),
        (lambda v: v["annotations"][1].update(question_id=7), "7"),
        (lambda v: v["annotations"].append(v["annotations"][0]), "two annotations"),
        (lambda v: v["annotations"][0].update(image_id=1), "image"),
        (lambda v: v["annotations"][0].update(answers=[]), "ten"),
        (lambda v: v["annotations"][0].update(answers=[{"answer": 3}]), "3"),
        (lambda v: v["annotations"][0].update(question_id="x"), "'x'"),
        (lambda v: v.update(data_subtype="train2014"), "'train2014'"),
        (lambda v: v["info"].update(year=2015), "2015"),
    ],
)
def test_annotations_that_do_not_fit_are_one_error(root, edit, shown):
    change(annotations_of(root), edit)
    with pytest.raises(FormatError) as error:
        Vqa(root, "val")
    assert shown in str(error.value)
    assert annotations_of(root).name in str(error.value) or QUESTIONS.format("val2014") in str(error.value)


def test_ids_that_two_questions_have_and_leftovers_are_named(root):
    path = root / QUESTIONS.format("val2014")
    first = json.loads(path.read_text())["questions"][0]["question_id"]
    change(path, lambda values: values["questions"].append(values["questions"][0]))
    with pytest.raises(FormatError, match=str(first)):
        Vqa(root, "val")
    change(path, lambda values: values.update(questions=values["questions"][1:-1]))
    with pytest.raises(FormatError, match=rf"1 annotation.*{first}"):
        Vqa(root, "val")


def test_a_missing_or_renamed_file_is_named(root):
    shutil.copy(root / QUESTIONS.format("test2015"), root / QUESTIONS.format("train2014"))
    with pytest.raises(FormatError, match="test2015"):
        Vqa(root, "train")
    annotations_of(root).unlink()
    with pytest.raises(FormatError, match=annotations_of(root).name):
        Vqa(root, "val")
    with pytest.raises(ConfigError, match="minival"):
        Vqa(root, "mini")


def test_a_file_that_is_cut_off_is_named_with_the_position(root):
    path = annotations_of(root)
    path.write_text(path.read_text()[:5000])
    with pytest.raises(FormatError, match=r"annotations\.json: .*character [\d,]+"):
        Vqa(root, "val")


@pytest.mark.parametrize(
    ("record", "shown"),
    [
        ({"label": {"no answer of the table": 1}}, "no answer of the table"),
        ({"label": {"yes": "1"}}, "'1'"),
        ({"label": {"yes": 1.5}}, "1.5"),
        ({"label": ["yes"]}, "label"),
        ({"sent": None}, "sent"),
    ],
)
def test_labels_of_lxmert_that_are_no_scores_are_named(root, record, shown):
    change(root / "minival.json", lambda values: values[-1].update(record))
    key = json.loads((root / "minival.json").read_text())[-1]["question_id"]
    with pytest.raises(FormatError, match=rf"minival\.json.*{key}") as error:
        Vqa(root, "minival")
    assert shown in str(error.value)


def test_the_file_for_the_server_is_complete_or_refused(made, tmp_path):
    split = Vqa(made, "val")
    predictions = Predictions(ids=split.ids, answers=("yes",) * len(split))
    split.write(predictions, tmp_path / "a.json")
    rows = json.loads((tmp_path / "a.json").read_text())
    assert rows == [{"answer": "yes", "question_id": int(key)} for key in split.ids]
    lacking = predictions.select(range(2, len(split)))
    with pytest.raises(FormatError) as error:
        split.write(lacking, tmp_path / "b.json")
    assert all(key in str(error.value) for key in split.ids[:2])
    assert not (tmp_path / "b.json").exists()


@pytest.mark.parametrize(
    ("edit", "shown"),
    [
        (lambda rows: rows.pop(), "1 ("),
        (lambda rows: rows.append(rows[0]), "second time"),
        (lambda rows: rows[0].update(question_id="12"), "'12'"),
        (lambda rows: rows[0].update(question_id=12), "12"),
        (lambda rows: rows[0].update(answer=None), "answer"),
        (lambda rows: rows.insert(0, 3), "3"),
    ],
)
def test_a_file_for_the_server_that_does_not_fit_is_refused(made, tmp_path, edit, shown):
    split = Vqa(made, "minival")
    path = tmp_path / "a.json"
    split.write(Predictions(ids=split.ids, answers=("yes",) * len(split)), path)
    change(path, edit)
    with pytest.raises(DiptychError, match=r"a\.json") as error:
        split.read_predictions(path)
    assert shown in str(error.value)


def test_evaluation_compares_as_the_official_script_does(made):
    split = Vqa(made, "val")
    answers = tuple(f"The {next(iter(example.target)).upper()}." for example in split)
    predictions = Predictions(ids=split.ids, answers=answers, form="answers")
    found = evaluate(predictions, split, samples=20)
    scores = [
        vqa_score(answer, example.meta["answers"]) for answer, example in zip(answers, split, strict=True)
    ]
    assert found["accuracy"].value == pytest.approx(np.mean(scores), abs=1e-6)
    assert 0 < found["accuracy"].value < 1
    for field in ("answer_type", "question_type"):
        groups = defaultdict(list)
        for score, example in zip(scores, split, strict=True):
            groups[example.meta[field]].append(score)
        got = found.breakdown[f"accuracy per {field.replace('_', ' ')}"]
        assert {kind: one.value for kind, one in got.items()} == pytest.approx(
            {kind: np.mean(values) for kind, values in groups.items()}
        )
