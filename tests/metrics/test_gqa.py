import pytest

from diptych.metrics.gqa import Question, measure_gqa

QUESTIONS = {
    "01": Question(
        answer="red",
        structural="query",
        semantic="attr",
        group="color",
        entailed=("01", "02", "9"),
        words=5,
        steps=2,
    ),
    "02": Question(answer="yes", structural="verify", semantic="attr", balanced=False),
    "03": Question(
        answer="red",
        structural="query",
        semantic="cat",
        group="color",
        entailed=("02", "04"),
        words=5,
        steps=3,
    ),
    "04": Question(answer="no", structural="verify", semantic="obj", group="", common=True, words=12),
}
CHOICES = {
    "01": {"valid": ["red", "blue"], "plausible": ["red"]},
    "03": {"valid": ["red", "blue"], "plausible": ["red"]},
    "04": {"valid": ["yes", "no"], "plausible": []},
}


def test_measures_are_those_of_the_official_script():
    predicted = {"01": "red", "02": "no", "03": "blue", "04": "shape"}
    assert {
        title: {name: float(values.mean()) for name, values in rows.items()}
        for title, rows in measure_gqa(predicted, QUESTIONS, CHOICES).items()
    } == {
        "": {
            "accuracy_balanced": pytest.approx(1 / 3),
            "binary": 0.0,
            "open": 0.5,
            "consistency": 0.0,  # 01 is right, and 02, which follows from it, is wrong; 9 is in no file
            "validity": 1.0,  # of 04, which asks for a common attribute, the name of one is valid
            "plausibility": pytest.approx(2 / 3),
            # (1 - 2)^2 / 2 of two colors, (0 - 1)^2 / 1 of one answer of the group ""
            "distribution": pytest.approx((0.5 * 2 + 1 * 1) / 3 / 100),
        },
        "accuracy per structural type": {"query": 0.5, "verify": 0.0},
        "accuracy per semantic type": {"attr": 1.0, "cat": 0.0, "obj": 0.0},
        "accuracy per number of steps": {"0": 0.0, "2": 1.0, "3": 0.0},
        "accuracy per number of words": {"5": 0.5, "12": 0.0},
    }


def test_without_choices_and_types_only_answers_count():
    tables = measure_gqa({"1": "yes"}, {"1": Question(answer="yes")})
    assert tables[""] == {}
    assert not any(rows for title, rows in tables.items() if title)
