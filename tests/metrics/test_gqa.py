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


def question(answer, **options):
    return Question(answer=answer, structural="query", **options)


@pytest.mark.parametrize(
    ("predicted", "questions", "expected"),
    [
        # of two questions that follow, one is answered rightly; the question itself does not count
        (
            {"1": "red", "2": "yes", "3": "yes"},
            {
                "1": question("red", entailed=("1", "2", "3")),
                "2": question("yes"),
                "3": question("no", balanced=False),
            },
            1 / 2,
        ),
        # of questions that are answered wrongly, or from which nothing follows, nothing is asked
        (
            {"1": "red", "2": "blue", "3": "yes", "4": "no"},
            {
                "1": question("red", entailed=("3",)),
                "2": question("red", entailed=("3", "4")),
                "3": question("yes", entailed=("3",)),
                "4": question("no"),
            },
            1.0,
        ),
        # the mean is over questions, not over what follows from them
        (
            {"1": "red", "2": "red", "3": "yes", "4": "yes", "5": "yes"},
            {
                "1": question("red", entailed=("3",)),
                "2": question("red", entailed=("3", "4", "5")),
                "3": question("no"),
                "4": question("yes"),
                "5": question("yes"),
            },
            (0 + 2 / 3) / 2,
        ),
        # an unbalanced question serves others only
        (
            {"1": "red", "2": "no"},
            {"1": question("red", entailed=("2",), balanced=False), "2": question("yes")},
            None,
        ),
    ],
)
def test_consistency_by_hand(predicted, questions, expected):
    table = measure_gqa(predicted, questions)[""]
    assert ("consistency" in table) == (expected is not None)
    if expected is not None:
        assert table["consistency"].mean() == pytest.approx(expected)


def test_validity_and_plausibility_by_hand():
    kinds = {"valid": ["red", "blue", "teal"], "plausible": ["red", "blue"]}
    answers = {"1": "red", "2": "teal", "3": "cat", "4": "material", "5": "cat", "6": "cat"}
    questions = {key: question("red") for key in answers} | {
        "4": question("color", common=True),
        "5": question("red", balanced=False),
    }
    # 6 is not in the file of choices, 5 is not balanced: neither counts
    table = measure_gqa(answers, questions, dict.fromkeys("12345", kinds))[""]
    assert [*table["validity"]] == [1, 1, 0, 1]
    assert [*table["plausibility"]] == [1, 0, 0, 1]
    assert not {"validity", "plausibility"} & measure_gqa(answers, questions)[""].keys()


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        # (2 - 3)^2 / 3 of red and (1 - 0)^2 / 0 of teal, which no question has: it is not summed
        ({"color": [("red", "red"), ("red", "red"), ("red", "teal")]}, 1 / 3),
        # red (3 - 1)^2 / 1, blue (0 - 2)^2 / 2
        ({"color": [("red", "red"), ("blue", "red"), ("blue", "red")]}, 4 + 2),
        # the second group has the distance (0 - 1)^2 / 1 and a weight of 1 of 4
        (
            {"color": [("red", "red"), ("blue", "red"), ("blue", "red")], "thing": [("cat", "dog")]},
            (6 * 3 + 1) / 4,
        ),
        # wrong answers whose numbers are right have no distance
        ({"color": [("red", "blue"), ("blue", "red")]}, 0),
        # "" is a group, no group is none
        ({"": [("yes", "no"), ("yes", "yes")], None: [("yes", "no")]}, (1 - 2) ** 2 / 2),
    ],
)
def test_distribution_by_hand(pairs, expected):
    """Pairs of right and given answers, by group; the script divides by 100."""
    rows = [(group, right, given) for group, some in pairs.items() for right, given in some]
    questions = {str(row): question(right, group=group) for row, (group, right, _) in enumerate(rows)}
    table = measure_gqa({str(row): given for row, (_, _, given) in enumerate(rows)}, questions)[""]
    assert table["distribution"] == pytest.approx(expected / 100)
