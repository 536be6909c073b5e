import json

import pytest

from diptych.datasets.answer_table import coverage, learn_answers, read_answers, write_answers
from diptych.errors import ConfigError, FormatError

TARGETS = [({"yes": 1.0, "no": 0.3}, 4), ("no", 2), ({"maybe": 0.6}, 1), ({}, 2), (None, 9)]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.txt", "yes\nno\n\n"),
        ("a.txt", "\ufeffyes\r\nno\r\n\r\n"),
        ("a.json", '["yes", "no", ""]'),
        ("a.json", '{"no": 1, "": 2, "yes": 0}'),
        ("a.json", '[{"ans": "yes", "dsets": ["vqa"]}, {"ans": "no", "dsets": []}, {"ans": ""}]'),
    ],
)
def test_every_form_of_a_table_is_read(tmp_path, name, text):
    (tmp_path / name).write_text(text, encoding="utf-8", newline="")
    assert read_answers(tmp_path / name) == ("yes", "no", "")


@pytest.mark.parametrize(
    ("name", "text", "shown"),
    [
        ("a.txt", "yes\nno\nyes\n", "yes"),
        ("a.txt", "", "no answers"),
        ("a.json", '["yes", 2]', "entry 1"),
        ("a.json", '{"yes": 0, "no": 2}', "0 to 1"),
        ("a.json", "3", "3"),
        ("a.json", '["yes"', "a.json"),
    ],
)
def test_what_is_no_table_is_named(tmp_path, name, text, shown):
    (tmp_path / name).write_text(text)
    with pytest.raises(FormatError, match=name) as error:
        read_answers(tmp_path / name)
    assert shown in str(error.value)


@pytest.mark.parametrize("name", ["a.txt", "a.json"])
def test_what_is_written_is_read(tmp_path, name):
    write_answers(tmp_path / name, ["yes", "", "é"])
    assert read_answers(tmp_path / name) == ("yes", "", "é")


def test_an_answer_of_two_lines_needs_json(tmp_path):
    with pytest.raises(FormatError, match=r"\.json"):
        write_answers(tmp_path / "a.txt", ["a\nb"])
    write_answers(tmp_path / "a.json", ["a\nb"])
    assert json.loads((tmp_path / "a.json").read_text()) == ["a\nb"]


def test_answers_are_learned_by_how_often_they_are_best():
    assert learn_answers(TARGETS, 1) == ("yes", "no", "maybe")
    assert learn_answers(TARGETS, 2) == ("yes", "no")
    with pytest.raises(ConfigError, match=r"5.*4"):
        learn_answers(TARGETS, 5)
    with pytest.raises(ConfigError, match="3"):
        learn_answers([(3, 1)], 1)


def test_coverage_counts_the_best_answer_of_the_table():
    found = coverage(("no", "maybe"), TARGETS)
    assert (found.examples, found.answerable) == (9, 7)
    assert found.oracle == pytest.approx((4 * 0.3 + 2 + 0.6) / 9)
