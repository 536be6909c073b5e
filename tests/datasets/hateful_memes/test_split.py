import json
import os
from pathlib import Path

import numpy as np
import pytest

from diptych.datasets import HatefulMemes
from diptych.datasets.hateful_memes import LABELS, Meme, read_memes, write_answers, write_memes
from diptych.errors import ConfigError, FormatError
from diptych.predictions import Predictions

GOOD = '{"id": 42953, "img": "img/42953.png", "label": 0, "text": "its their character not their color"}'
LAST = '{"id": "7", "img": "img/00007.png", "text": "plain"}'


def split(root, *lines, name="train"):
    content = b"\n".join(line if isinstance(line, bytes) else line.encode() for line in lines)
    (root / f"{name}.jsonl").write_bytes(content)
    return root / f"{name}.jsonl"


def record(**changes):
    return json.dumps({"id": 1, "img": "img/1.png", "label": 1, "text": "t"} | changes)


def test_reads_labeled_and_unlabeled_memes(tmp_path):
    split(tmp_path, GOOD, LAST)
    labeled, unlabeled = HatefulMemes(tmp_path, "train")
    assert labeled.id == "42953"
    assert labeled.target == "benign"
    assert (labeled.pairs[0].image, labeled.pairs[0].text) == ("42953", "its their character not their color")
    assert labeled.pairs[0].files == ("img/42953.png",)
    assert (unlabeled.id, unlabeled.target, unlabeled.pairs[0].image) == ("7", None, "00007")


def test_is_a_map_style_dataset(tmp_path):
    split(tmp_path, GOOD, LAST)
    dataset = HatefulMemes(str(tmp_path), "train")
    assert len(dataset) == len(list(dataset)) == 2
    assert dataset.ids == ("42953", "7")
    assert dataset.images == {"42953": tmp_path / "img/42953.png", "00007": tmp_path / "img/00007.png"}


def test_byte_order_mark_crlf_and_blank_lines_are_fine(tmp_path):
    split(tmp_path, b"\xef\xbb\xbf" + GOOD.encode() + b"\r", b"\r", b"   ", LAST, b"", b"")
    assert [meme.line for meme in read_memes(tmp_path / "train.jsonl")[0]] == [1, 4]
    assert HatefulMemes(tmp_path, "train").ids == ("42953", "7")


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ".join(["word"] * 10_000),
        "\U0001f600 \u05e9\u05dc\u05d5\u05dd e\u0301",
        "line\u2028separator\x85",
        "a\nb",
    ],
    ids=["empty", "10000 words", "unicode", "other line ends", "line feed"],
)
@pytest.mark.parametrize("escape", [True, False])
def test_any_text_is_kept(tmp_path, text, escape):
    line = json.dumps({"id": 1, "img": "1.png", "text": text}, ensure_ascii=escape)
    split(tmp_path, line, GOOD)
    assert HatefulMemes(tmp_path, "train")[0].pairs[0].text == text


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"id": 1, "img": "img/1.png", "text": "cut o', r"JSON.*'.*cut o'"),
        ("id,img,text", "JSON"),
        ("[1, 2]", " list; .* id, img, text"),
        ("[" * 100_000, "JSON"),
        ('{"id": ' + "1" * 5000 + "}", "JSON"),
        (b'{"id": 1, "img": "1.png", "text": "\xff"}', "UTF-8"),
        ("{}", " id, img, text; "),
        ('{"id": 1, "image": "1.png", "text": ""}', " img; .* id, image, text"),
        (record(id=None), "`id` .* None; "),
        (record(id=True), "`id` .* True; "),
        (record(id=1.5), r"`id` .* 1\.5; "),
        (record(id=""), "`id` .* ''; "),
        (record(text=None), "`text` .* None; "),
        (record(id=float("nan")), "`id` .* nan; "),
        (b'{"id": 1e999, "img": "1.png", "text": ""}', "`id` .* inf; "),
        (record(id=" "), "`id` .* ' '; "),
        (record(id=["x" * 9_999]), "`id` "),
        (record(text="\ud83d"), r"\\ud83d"),
        (record(id="\ud83d"), r"\\ud83d"),
        (record(img="\udc80.png"), r"\\udc80"),
        (record(extra={"deep": "\ud83d"}), r"\\ud83d"),
        (record(img="img/a\0.png"), r"`img` .*a\\x00\.png"),
        (b'{"id": 1, "id": 2, "img": "1.png", "text": ""}', " 'id' "),
        (f"{GOOD}\r{LAST}", "carriage return"),
        (GOOD.encode("utf-16"), "UTF-8"),
        (b'{"id":' * 50_000, "JSON"),
        pytest.param(b"x" * (17 << 20), " 16,777,216 ", id="long"),
        (record(img=7), "`img` .* 7; "),
        (record(img=""), "`img` .* ''; "),
        (record(label=2), r"`label` .* 2; .* 0 \(benign\), 1 \(hateful\)"),
        (record(label="hateful"), "`label` .* 'hateful'; "),
        (record(label=True), "`label` .* True; "),
        (record(label=float("nan")), "`label` .* nan; "),
        (record(label=[1]), r"`label` .* \[1\]; "),
        (GOOD, " 42953 .* 1; "),
    ],
)
def test_bad_record_is_one_error_that_names_file_and_line(tmp_path, line, message):
    path = split(tmp_path, GOOD, b"", line)
    with pytest.raises(FormatError, match=message) as error:
        HatefulMemes(tmp_path, "train")
    assert str(error.value).startswith(f"{path}:3: ")
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 500


@pytest.mark.parametrize("label", [None, 0, 1, 1.0])
def test_labels_as_other_tools_write_them(tmp_path, label):
    split(tmp_path, record(label=label))
    target = HatefulMemes(tmp_path, "train")[0].target
    assert target == (None if label is None else LABELS[int(label)])


def test_all_problems_of_a_file_are_found(tmp_path):
    path = split(tmp_path, "broken", GOOD, record(label=3), LAST)
    memes, problems = read_memes(path)
    assert [meme.id for meme in memes] == ["42953", "7"]
    assert [str(problem).split(": ")[0] for problem in problems] == [f"{path}:1", f"{path}:3"]
    with pytest.raises(FormatError, match=r"train\.jsonl:1: .* 1 .*`diptych check "):
        HatefulMemes(tmp_path, "train")


def test_an_annotation_file_that_is_none_is_refused(tmp_path):
    os.mkfifo(tmp_path / "train.jsonl")
    (tmp_path / "dev_seen.jsonl").mkdir()
    for name in ("train", "dev_seen"):
        with pytest.raises(FormatError, match=rf"{name}\.jsonl: "):
            HatefulMemes(tmp_path, name)
    split(tmp_path, GOOD, name="test_seen")
    os.mkfifo(tmp_path / "answers")
    with pytest.raises(FormatError, match="answers: "):
        HatefulMemes(tmp_path, "test_seen", answers=tmp_path / "answers")


def test_unknown_split_lists_what_there_is(tmp_path):
    split(tmp_path, GOOD, name="dev_seen")
    with pytest.raises(ConfigError, match=r"\['dev_seen'\].* 'dev_seen'\?"):
        HatefulMemes(tmp_path, "dev_sen")
    with pytest.raises(ConfigError, match="nowhere"):
        HatefulMemes(tmp_path / "nowhere", "train")


def test_a_limit_keeps_the_first_memes(tmp_path):
    split(tmp_path, GOOD, LAST)
    assert HatefulMemes(tmp_path, "train", limit=1).ids == HatefulMemes(tmp_path, "train").ids[:1]
    with pytest.raises(ConfigError, match=r"limit .* 0; "):
        HatefulMemes(tmp_path, "train", limit=0)


def test_answers_fill_in_withheld_labels(tmp_path):
    split(tmp_path, LAST, GOOD, name="test_seen")
    answers = tmp_path / "answers.jsonl"
    answers.write_text('{"id": 42953, "label": 0}\n{"id": 7, "label": 1}\n{"id": 8, "label": 1}\n')
    dataset = HatefulMemes(tmp_path, "test_seen", answers=answers)
    assert [example.target for example in dataset] == ["hateful", "benign"]
    assert HatefulMemes(tmp_path, "test_seen")[0].target is None


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ('{"id": 7, "label": 1}', r"answers\.jsonl: .* 1 .*test_seen\.jsonl: 42953\."),
        (
            '{"id": 7, "label": 1}\n{"id": 42953, "label": 1}',
            r"answers\.jsonl: .* 42953 .* 1, .*test_seen\.jsonl:2 .* 0\.",
        ),
        ('{"id": 7, "label": "x"}', r"answers\.jsonl:1: `label` .* 'x'; "),
        ('{"id": 7}', r"answers\.jsonl:1: .* label; "),
    ],
)
def test_answers_that_do_not_fit_are_refused(tmp_path, answers, message):
    split(tmp_path, LAST, GOOD, name="test_seen")
    (tmp_path / "answers.jsonl").write_text(answers)
    with pytest.raises(FormatError, match=message):
        HatefulMemes(tmp_path, "test_seen", answers=tmp_path / "answers.jsonl")


def test_missing_answers_file_is_named(tmp_path):
    split(tmp_path, LAST)
    with pytest.raises(ConfigError, match=r"none\.jsonl "):
        HatefulMemes(tmp_path, "train", answers=tmp_path / "none.jsonl")


def test_written_annotations_are_read_again(tmp_path):
    memes = [
        Meme(id="12", image="img/00012.png", text='a "quoted"\nline', label=1),
        Meme(id="007", image="img/007.png", text="\u05e9\u05dc\u05d5\u05dd", label=None),
    ]
    write_memes(tmp_path / "train.jsonl", memes)
    write_memes(tmp_path / "test.jsonl", memes, labels=False)
    write_answers(tmp_path / "test.answers.jsonl", memes[:1])
    assert [(m.id, m.image, m.text, m.label) for m in read_memes(tmp_path / "train.jsonl")[0]] == [
        (m.id, m.image, m.text, m.label) for m in memes
    ]
    assert HatefulMemes(tmp_path, "test")[0].target is None
    ids = [json.loads(line)["id"] for line in (tmp_path / "train.jsonl").read_text().splitlines()]
    assert ids == [12, "007"]


def predictions(ids, hateful, **changes):
    scores = np.array([[1 - value, value] for value in hateful], dtype=np.float32)
    return Predictions(**({"ids": tuple(ids), "scores": scores, "classes": LABELS} | changes))


def written(tmp_path, given):
    split(tmp_path, GOOD, LAST)
    path = tmp_path / "out" / "submission.csv"
    HatefulMemes(tmp_path, "train").write(given, path)
    return path.read_text()


def test_submission_has_the_ids_and_order_of_the_split(tmp_path):
    content = written(tmp_path, predictions(("7", "42953"), (0.75, 0.5)))
    assert content == "id,proba,label\n42953,0.5,1\n7,0.75,1\n"


def test_submission_takes_the_decision_of_the_predictions(tmp_path):
    decided = predictions(("42953", "7"), (0.4, 0.3), answers=("hateful", "benign"))
    assert written(tmp_path, decided) == "id,proba,label\n42953,0.400000006,1\n7,0.300000012,0\n"


def test_submission_keeps_all_digits_of_a_score(tmp_path):
    given = predictions(("42953", "7"), (1e-7, 0.12345678))
    column = [np.float32(line.split(",")[1]) for line in written(tmp_path, given).splitlines()[1:]]
    assert column == list(given.column("hateful"))


@pytest.mark.parametrize(
    ("ids", "hateful", "message"),
    [
        (("42953",), (0.5,), r" 1 \(7\) .* 0 "),
        (("42953", "7", "8"), (0.5, 0.5, 0.5), r" 0 .* 1 \(8\) "),
        (("42953", "7"), (0.5, 1.5), r"'7' .* 1\.5; .*\[0, 1\]"),
        (("42953", "7"), (float("nan"), 0.5), "'42953' .* nan; "),
    ],
)
def test_submission_of_other_ids_or_no_probabilities_is_refused(tmp_path, ids, hateful, message):
    with pytest.raises(FormatError, match=message):
        written(tmp_path, predictions(ids, hateful))
    assert not (tmp_path / "out").exists()


def test_paths_need_not_be_below_a_folder_named_img(tmp_path):
    split(tmp_path, record(img="pictures/of/cats/a.b.jpg"))
    example = HatefulMemes(tmp_path, "train")[0]
    assert example.pairs[0].image == "a.b"
    assert HatefulMemes(tmp_path, "train").images == {"a.b": Path(tmp_path, "pictures/of/cats/a.b.jpg")}


def test_memes_of_a_split_may_count_twice(tmp_path):
    split(tmp_path, GOOD, record(id=1), name="traindev")
    split(tmp_path, record(id=1), name="dev_seen")
    assert HatefulMemes(tmp_path, "traindev", twice="dev_seen").ids == ("42953", "1", "1")
    with pytest.raises(ConfigError, match=r"nowhere\.jsonl"):
        HatefulMemes(tmp_path, "traindev", twice="nowhere")


@pytest.mark.parametrize(
    ("asked", "there"),
    [("dev_seen", "dev"), ("dev", "dev_seen"), ("test_seen", "test"), ("test", "test_seen")],
)
def test_splits_of_the_first_phase_stand_for_those_of_the_second(tmp_path, asked, there):
    write_memes(tmp_path / f"{there}.jsonl", [Meme(id="1", image="img/1.png", text="a", label=1)])
    assert HatefulMemes(tmp_path, asked).ids == ("1",)
    write_memes(tmp_path / f"{asked}.jsonl", [Meme(id="2", image="img/2.png", text="a", label=1)])
    assert HatefulMemes(tmp_path, asked).ids == ("2",)


def test_answers_join_ids_that_differ_in_spelling(tmp_path):
    write_memes(tmp_path / "test.jsonl", [Meme(id="5", image="img/1.png", text="a")])
    (tmp_path / "answers.jsonl").write_text('{"id": "00005", "label": 1}\n')
    assert HatefulMemes(tmp_path, "test", answers=tmp_path / "answers.jsonl")[0].target == "hateful"
