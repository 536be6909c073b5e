"""The order of lines, and which of them are captions."""

import numpy as np
import pytest

from diptych.detect.ocr import Line, TextReader, arranged, words
from diptych.detect.rapid import RapidReader


def line(text, x1, y1, x2, y2, *, height=None, **more):
    box = float(x1), float(y1), float(x2), float(y2)
    return Line(text=text, box=box, score=0.9, height=float(height or y2 - y1), **more)


TOP, BOTTOM = line("top", 50, 5, 250, 35), line("bottom", 60, 160, 240, 190)
COLUMNS = [
    line("left one", 0, 50, 120, 70),
    line("left two", 5, 72, 118, 92),
    line("right one", 170, 51, 290, 71),
    line("right two", 172, 73, 280, 93),
]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    "lines",
    [
        [TOP, BOTTOM],
        [TOP, line("second", 40, 34, 260, 64), BOTTOM],  # boxes of close lines overlap
        COLUMNS,
        [TOP, *COLUMNS, BOTTOM],
        [line("headline of both", 0, 28, 290, 48), *COLUMNS],
        [*COLUMNS, line("footer of both", 0, 94, 290, 114)],
        [line("one", 0, 10, 60, 30), line("row", 68, 12, 130, 32), line("below", 20, 33, 100, 53)],
        [line("far", 0, 10, 60, 30), line("apart", 150, 8, 230, 28)],
    ],
)
def test_lines_are_read_as_people_read_them(lines, seed):
    mixed = [lines[n] for n in np.random.default_rng(seed).permutation(len(lines))]
    assert [one.text for one in arranged(mixed)] == [one.text for one in lines]


def test_a_picture_that_is_upside_down_begins_at_its_end():
    lines = [
        line("first", 50, 160, 250, 190, turned=True),
        line("second", 60, 5, 240, 35, turned=True),
    ]
    assert arranged(lines[::-1]) == lines


def test_low_lines_are_no_captions():
    sign = line("stop", 100, 100, 120, 110)
    found = arranged([BOTTOM, sign, TOP, line(" ", 0, 0, 300, 90)])
    assert [(one.text, one.scene) for one in found] == [("top", False), ("stop", True), ("bottom", False)]
    assert words(found) == "top bottom"
    assert words(found, "all") == "top stop bottom"
    assert words([]) == ""


def test_a_large_shape_that_looks_like_a_letter_hides_no_caption():
    shape = line("O", 100, 60, 160, 130)  # more than twice as high as the captions
    assert words(arranged([TOP, shape, BOTTOM])) == "top bottom"
    assert words(arranged([shape])) == "O"
    assert words(arranged([TOP, line("4", 60, 70, 80, 100), BOTTOM])) == "top 4 bottom"


def test_a_slanted_line_is_as_high_as_its_letters():
    # the box of the slanted line is three times as high as its letters
    slanted = line("slanted", 0, 60, 200, 120, height=20)
    assert not any(one.scene for one in arranged([line("flat", 0, 0, 200, 22), slanted]))


def test_rapidocr_is_a_reader_of_text():
    with RapidReader() as reader:
        assert isinstance(reader, TextReader)
