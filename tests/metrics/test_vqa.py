"""The official accuracy against an independent implementation, step by step as its description says."""

import random
import re

import pytest

from diptych.metrics.vqa import normalize_vqa, soft_scores, vqa_score

WORDS = [
    "yes",
    "Yes",
    "the net",
    "net",
    "2",
    "two",
    "none",
    "0",
    "1,000",
    "10.5.",
    "a dog/cat",
    "dont",
    "\n1\t",
    "?",
]


def slow_normalized(text):
    for mark in ';/[]"{}()=+\\_-><@`,?!':
        loose = f"{mark} " in text_of(text) or f" {mark}" in text_of(text)
        text = (
            text_of(text),
            text[1].replace(mark, "" if loose or re.search(r"\d,\d", text_of(text)) else " "),
        )
    out = "".join(
        sign
        for place, sign in enumerate(text[1])
        if sign != "." or (text[1][place + 1 : place + 2].isdigit())
    )
    digits = dict(
        zip(
            ["none", "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"],
            ["0", "0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10"],
            strict=True,
        )
    )
    kept = [digits.get(word, word) for word in out.lower().split()]
    odd = {"dont": "don't", "im": "im"}
    return " ".join(odd.get(word, word) for word in kept if word not in {"a", "an", "the"})


def text_of(text):
    return text[0]


def slow_score(answer, given):
    def bare(text):
        return text.replace("\n", " ").replace("\t", " ").strip()

    people, answer = [bare(one) for one in given], bare(answer)
    if len(set(people)) > 1:
        people = [slow_normalized((one, one)) for one in people]
        answer = slow_normalized((answer, answer))
    total = 0.0
    for left_out in range(len(people)):
        others = [one for place, one in enumerate(people) if place != left_out]
        total += min(1.0, others.count(answer) / 3)
    return total / len(people)


def test_any_answers_get_the_score_of_the_description():
    generator = random.Random(1)
    for _ in range(2000):
        few = generator.sample(WORDS, generator.randint(1, 4))
        given = [generator.choice(few) for _ in range(10)]
        answer = generator.choice([*few, generator.choice(WORDS)])
        assert vqa_score(answer, given) == pytest.approx(slow_score(answer, given), abs=1e-12), (
            answer,
            given,
        )


@pytest.mark.parametrize(("count", "score"), [(0, 0.0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1.0), (10, 1.0)])
def test_the_score_depends_on_the_number_of_people(count, score):
    given = ["cat"] * count + ["dog", "cow", "fox", "hen", "owl", "pig", "rat", "bee", "ant", "elk"][count:]
    assert vqa_score("cat", given) == pytest.approx(score)
    assert soft_scores(given).get("cat", 0.0) == score


def test_answers_that_all_agree_are_compared_as_they_are():
    assert vqa_score("yes", ["Yes"] * 10) == 0
    assert vqa_score(" Yes\n", ["Yes"] * 10) == 1
    assert vqa_score("yes", ["Yes"] * 9 + ["no"]) == 1
    assert soft_scores(["the net"] * 10) == {"the net": 1.0}


@pytest.mark.parametrize(
    ("answer", "plain"),
    [
        ("The couldnt've", "couldn't've"),
        ("somebody'd", "somebodyd"),
        ("ows'at ow's'at", "ows'at 'ow's'at"),
        ("Im", "im"),  # the script's form begins with a capital, which never occurs
        ("10,000 dollars", "10000 dollars"),
        ("a." * 40, "a" * 32 + "a." * 8),  # 32 periods at most
    ],
)
def test_the_oddities_of_the_script_are_kept(answer, plain):
    assert normalize_vqa(answer) == plain
