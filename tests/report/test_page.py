"""Text that fits its place."""

import pytest

from diptych.report.page import wrap


def at_most(width):
    return lambda line: len(line) <= width


@pytest.mark.parametrize(
    ("text", "width", "lines", "expected"),
    [
        ("", 5, 3, []),
        ("  \n ", 5, 3, []),
        ("one two", 7, 3, ["one two"]),
        ("one two three", 7, 3, ["one two", "three"]),
        ("one  two\nthree", 8, 3, ["one two", "three"]),
        ("abcdefghij", 4, 3, ["abcd", "efgh", "ij"]),
        ("ab cdefghij", 4, 3, ["ab", "cdef", "ghij"]),
        ("one two three four", 7, 2, ["one two", "three\N{HORIZONTAL ELLIPSIS}"]),
        ("uniter average", 9, 1, ["uniter a\N{HORIZONTAL ELLIPSIS}"]),
        ("abc", 0, 2, ["a", "\N{HORIZONTAL ELLIPSIS}"]),
    ],
)
def test_text_breaks_at_spaces_and_ends_in_an_ellipsis(text, width, lines, expected):
    assert wrap(text, at_most(width), lines) == expected


def test_endless_text_is_cut_before_it_is_measured():
    measured = []
    wrap("word " * 1_000_000, lambda line: bool(measured.append(len(line))) or len(line) <= 40, 3)
    assert len(measured) < 100
    assert max(measured) <= 400
