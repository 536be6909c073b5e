"""Prediction files of ours and of Vilio, and what is wrong with the others."""

import os
from functools import partial

import numpy as np
import pytest

from diptych.ensemble import read_predictions as read_any
from diptych.ensemble import write_predictions
from diptych.errors import ConfigError, FormatError
from diptych.predictions import Predictions

read_predictions = partial(read_any, classes=("benign", "hateful"))


@pytest.fixture
def written(tmp_path):
    def write(content, name="a.csv"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def test_our_csv_holds_probabilities_and_decisions(written):
    path = written("id,proba,label\n7,0.75,1\n03,0.6,0\n")
    predictions = read_predictions(path)
    assert predictions.ids == ("7", "03")
    assert predictions.classes == ("benign", "hateful")
    assert predictions.scores == pytest.approx(np.array([[0.25, 0.75], [0.4, 0.6]]))
    assert predictions.answers == ("hateful", "benign")  # a threshold above 0.6 stays visible
    assert predictions.meta == {"kind": "probability", "path": str(path)}


def test_the_label_column_may_be_absent(written):
    assert read_predictions(written("proba,id\n0.75,7\n0.2,8\n")).answers == ("hateful", "benign")


def test_vilio_log_probabilities_become_probabilities(written):
    path = written("id,proba,label\n1,-0.10536052,1\n2,-2.3025851,0\n3,0.0,1\n")
    predictions = read_predictions(path)
    assert predictions.column("hateful") == pytest.approx([0.9, 0.1, 1.0])
    assert predictions.meta["kind"] == "log_probability"


def test_vilio_logits_become_probabilities_and_its_zero_labels_are_ignored(written):
    predictions = read_predictions(written("id,proba,label\n1,2.1972246,0\n2,-2.1972246,0\n3,0.0,0\n"))
    assert predictions.column("hateful") == pytest.approx([0.9, 0.1, 0.5])
    assert predictions.answers == ("hateful", "benign", "hateful")
    assert predictions.meta["kind"] == "logit"


def test_a_stated_kind_is_not_guessed(written):
    path = written("id,proba\n1,-1\n2,-3\n")
    assert read_predictions(path).column("hateful")[0] == pytest.approx(np.exp(-1))
    assert read_predictions(path, kind="logit").column("hateful")[0] == pytest.approx(1 / (1 + np.e))
    with pytest.raises(FormatError, match=r"a\.csv:2: proba is -1; .*\[0, 1\]"):
        read_predictions(path, kind="probability")
    with pytest.raises(FormatError, match=r"a\.csv:2: proba is 0\.5; .*log_probability"):
        read_predictions(written("id,proba\n1,0.5\n"), kind="log_probability")
    with pytest.raises(FormatError, match=r"0\.2 .*37.*kind="):
        read_predictions(written("id,proba\n1,0.2\n2,37\n"))


def test_spreadsheet_habits_are_tolerated(written):
    plain = read_predictions(written("id,proba,label\n1,0.25,0\n2,0.75,1\n"))
    odd = b'\xef\xbb\xbf"id","proba","label"\r\n"1","0.25","0"\r\n\r\n2, 7.5e-1 ,1\r\n'
    same = read_predictions(written(odd))
    assert (same.ids, same.answers) == (plain.ids, plain.answers)
    assert same.scores == pytest.approx(plain.scores)


def test_more_columns_are_ignored_and_classes_can_be_named(written):
    path = written("id,proba,label,logit\n1,0.25,0,-1.0986\n")
    assert read_predictions(path, classes=("no", "yes")).answers == ("no",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("id,proba\n1,0.5\n2,high\n", r"a.csv:3: proba is 'high'"),
        ("id,proba\n1,nan\n", r"a.csv:2: proba is 'nan'"),
        ("id,proba\n1,\n", r"a.csv:2: proba is ''"),
        ("id,proba\n1,-inf\n", r"a.csv:2: proba is '-inf'"),
        ("id,score\n1,0.5\n", r"a.csv:1: .*proba .*\['id', 'score'\]"),
        ("", r"a.csv:1: .*id and proba"),
        ("id,proba\n1,0.5\n\n1,0.6\n", r"a.csv:4: id '1'"),
        ("id,proba\n ,0.5\n", r"a.csv:2: .*\bid\b"),
        ("id,proba,label\n1,0.5\n", r"a.csv:2: 2 .* 3"),
        ("id,proba,label\n1,0.5,yes\n", r"a.csv:2: label is 'yes'; .*0 or 1"),
        ("id,proba\n", r"a.csv: "),
        ('id,proba\n1,"0.5\n', r"a.csv:\d: not readable as UTF-8 CSV"),
        (b"id,proba\n\xff\xfe,0.5\n", r"a.csv:\d: not readable as UTF-8 CSV"),
    ],
)
def test_a_broken_csv_is_named_with_its_line(written, content, message):
    with pytest.raises(FormatError, match=message):
        read_predictions(written(content))


def test_our_npz_comes_back_with_its_path(tmp_path):
    path = tmp_path / "a.npz"
    scores = np.array([[0.25, 0.75], [0.5, 0.5]])
    Predictions(ids=("1", "2"), scores=scores, classes=("benign", "hateful"), meta={"split": "dev"}).save(
        path
    )
    predictions = read_predictions(path)
    assert predictions.ids == ("1", "2")
    assert predictions.meta == {"split": "dev", "path": str(path)}


@pytest.mark.parametrize(
    ("ids", "scores", "message"),
    [
        (("1", "1"), [[0.5], [0.5]], r"a\.npz: 1 row"),
        (("1", "2"), [[0.5], [np.nan]], r"a\.npz: .*'2'"),
    ],
)
def test_a_broken_npz_is_named(tmp_path, ids, scores, message):
    Predictions(ids=ids, scores=np.array(scores)).save(tmp_path / "a.npz")
    with pytest.raises(FormatError, match=message):
        read_predictions(tmp_path / "a.npz")


def test_other_files_and_kinds_are_refused(written, tmp_path):
    with pytest.raises(FormatError, match=r"a\.npz"):
        read_predictions(written("id,proba\n", "a.npz"))
    with pytest.raises(FormatError, match=r"missing\.csv"):
        read_predictions(tmp_path / "missing.csv")
    os.mkfifo(tmp_path / "pipe.csv")
    os.mkfifo(tmp_path / "pipe.npz")
    for name in ("pipe.csv", "pipe.npz"):
        with pytest.raises(FormatError, match=f"{name}: .*named pipe"):
            read_predictions(tmp_path / name)


def test_writing_and_reading_is_identity(tmp_path):
    scores = np.array([[0.25, 0.75], [0.4, 0.6], [1 / 3, 2 / 3]])
    predictions = Predictions(
        ids=("7", "03", "a,b"),
        scores=scores,
        classes=("benign", "hateful"),
        answers=("hateful", "benign", "hateful"),
        meta={"split": "dev"},
    )
    for name in ("a.csv", "a.npz"):
        write_predictions(predictions, tmp_path / name)
        again = read_predictions(tmp_path / name)
        assert (again.ids, again.answers, again.classes) == (
            predictions.ids,
            predictions.answers,
            predictions.classes,
        )
        assert again.scores == pytest.approx(scores, abs=1e-9)
    assert (tmp_path / "a.csv").read_text().splitlines()[:3] == ["id,proba,label", "7,0.75,1", "03,0.6,0"]


def test_predictions_that_a_csv_cannot_hold_are_refused(tmp_path):
    two = ("benign", "hateful")
    for predictions, message in (
        (
            Predictions(ids=("1",), scores=np.ones((1, 3)) / 3, classes=("a", "b", "c")),
            r"a\.csv: .*'a', 'b', 'c'",
        ),
        (Predictions(ids=("1",), answers=("a",), classes=two), r"a\.csv: .*'benign', 'hateful'"),
        (Predictions(ids=("1",), scores=np.array([[0.0, 1.5]]), classes=two), "'1' .*1.5"),
    ):
        with pytest.raises(FormatError, match=message):
            write_predictions(predictions, tmp_path / "a.csv")
    with pytest.raises(ConfigError, match=r"\.npz or \.csv; got '\.txt'"):
        write_predictions(predictions, tmp_path / "a.txt")
    assert not list(tmp_path.iterdir())
