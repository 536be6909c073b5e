import pytest

from diptych.errors import FormatError
from diptych.metrics import consistency, grade_answers, measure_answers, without_punctuation
from diptych.predictions import Predictions

GIVEN = Predictions(ids=("1", "2", "3", "1"), answers=("cat", "two", "red", "dog"))


def test_answers_earn_their_score_once_per_id():
    gold = {"1": {"cat": 0.9, "dog": 0.3}, "2": {"three": 1.0}, "3": "red"}
    assert measure_answers(GIVEN, gold) == {"accuracy": pytest.approx(1.9 / 3)}


def test_unknown_targets_are_left_out_and_missing_ones_named():
    assert measure_answers(GIVEN, {"1": None, "2": None, "3": "red"}) == {"accuracy": 1.0}
    assert measure_answers(GIVEN, dict.fromkeys("123")) == {}
    with pytest.raises(FormatError, match=r"^1 .*'3'"):
        measure_answers(GIVEN, {"1": None, "2": "two"})


def test_a_sentence_counts_when_it_is_judged_right_with_every_pair_of_images():
    ids = ("dev-1-0-0", "dev-1-1-0", "dev-1-0-1", "dev-2-0-0")
    given = Predictions(ids=ids, answers=("True", "False", "True", "False"))
    assert consistency(given, dict.fromkeys(ids, "True")) == pytest.approx(1 / 3)


def test_four_people_who_agree_are_as_good_as_all():
    given = ["yes"] * 4 + ["no"] * 3 + ["maybe"]
    assert grade_answers(given) == pytest.approx({"yes": 1.0, "no": 0.9, "maybe": 0.3})


@pytest.mark.parametrize(
    ("answer", "plain"),
    [
        ("yes/no", "yes no"),
        ("yes / no/", "yes  no"),
        ("1,000-2", "10002"),
        ("$2.50.", "$2.50"),
        ("it's", "it's"),
    ],
)
def test_punctuation_vanishes_where_it_is_loose(answer, plain):
    assert without_punctuation(answer) == plain
