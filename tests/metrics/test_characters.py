import random

import pytest

from diptych.metrics import character_errors
from diptych.metrics.characters import edits, plainly


def table(one, other):
    """Wagner and Fischer's table, row by row."""
    row = [*range(len(other) + 1)]
    for count, left in enumerate(one, 1):
        corner, row[0] = row[0], count
        for at, right in enumerate(other, 1):
            corner, row[at] = row[at], min(corner + (left != right), row[at] + 1, row[at - 1] + 1)
    return row[-1]


def test_edits_are_those_of_the_table():
    rng = random.Random(0)
    for size in (*range(12), 90):
        for _ in range(20):
            one, other = ("".join(rng.choices("abé ", k=rng.randint(0, size))) for _ in range(2))
            assert edits(one, other) == edits(other, one) == table(one, other)


def test_rates_are_per_given_character():
    errors = character_errors(["ab cd", "boats", "same"], ["abcd", "boat", "SAME"])
    assert (errors.count, errors.rate) == (3, pytest.approx(2 / 12))
    assert errors.unspaced == pytest.approx(1 / 12)
    assert errors.exact == pytest.approx(1 / 3)
    assert errors.low < errors.rate < errors.high


def test_capitals_curly_quotes_and_rare_punctuation_do_not_count():
    assert plainly("It\N{RIGHT SINGLE QUOTATION MARK}S  «fine»\n[really]") == "it's fine really"


def test_without_characters_there_is_no_rate():
    with pytest.raises(ValueError, match="no characters"):
        character_errors(["a"], ["[]"])
