"""Spaces that a reader of text has lost come back where the words are known, and nothing else changes."""

import pytest
from PIL import Image

from diptych.detect.ocr import Line
from diptych.detect.spaces import Spaced, Spaces, read_list, whole_words
from diptych.errors import FormatError

WORDS = ["the", "and", "a", "like", "sea", "cool", "purple", "teal", "icy", "in", "to", "into", "whale"]


@pytest.mark.parametrize(
    ("read", "expected"),
    [
        ("LIKEASEA", "LIKE A SEA"),
        ("COOLANDPURPLEAND", "COOL AND PURPLE AND"),
        ("Coolandpurple, LIKEAWHALE!", "Cool and purple, LIKE A WHALE!"),
        ("INTOTHEPURPLE", "INTO THE PURPLE"),  # the longer word, although `in` and `to` are words, too
        ("COOLANDXYZZY", "COOLANDXYZZY"),  # not all of it is known
        ("LIKE ASEA", "LIKE ASEA"),  # short runs: the spaces of this line are there
        ("", ""),
        ("12345 678", "12345 678"),
        ("\N{LATIN CAPITAL LETTER I WITH DOT ABOVE}LIKEASEA",) * 2,  # its lower case has two letters
    ],
)
def test_a_line_is_cut_where_all_of_it_is_words(read, expected):
    assert Spaces(WORDS)(read) == expected


def test_words_of_a_list_stay_whole():
    assert Spaces([*WORDS, "likeasea"])("LIKEASEA") == "LIKEASEA"
    assert Spaces([])("LIKEASEA") == "LIKEASEA"


def test_the_more_frequent_words_win():
    assert Spaces(["no", "now", "where", "here"])("NOWHERE") == "NO WHERE"
    assert Spaces(["now", "here", "where", "no"])("NOWHERE") == "NOW HERE"


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        (["[CLS]", "sea", "##ing", "a", "b"], ["[CLS]", "sea", "##ing", "a", "b"]),
        (["se", "sea</w>", "a</w>"], ["sea", "a"]),
        (["\N{LOWER ONE EIGHTH BLOCK}sea", "ing"], ["sea"]),
    ],
)
def test_vocabularies_give_their_whole_words(tokens, expected):
    assert whole_words(tokens) == expected


def test_only_words_of_letters_count():
    # Of the single letters, those that are words.
    assert len(Spaces(["[CLS]", "##ing", "sea", "SEA", "a", "b", "7up"])) == 2


class Glued:
    """A reader that always reads the same."""

    def identity(self):
        return "glued 1"

    def read(self, pictures):
        return [[Line(text="LIKEASEA", box=(0.0, 0.0, 9.0, 9.0), score=0.5, height=9.0)] for _ in pictures]


def test_a_reader_says_by_which_words(tmp_path):
    spaced = Spaced(Glued(), Spaces(WORDS))
    (lines,) = spaced.read([Image.new("RGB", (8, 8))])
    assert [(line.text, line.score) for line in lines] == [("LIKE A SEA", 0.5)]
    # A key of caches: other words give other lines.
    assert spaced.identity().startswith("glued 1, ")
    assert spaced.identity() != Spaced(Glued(), Spaces(WORDS[1:])).identity()


def test_a_list_has_one_word_per_line(tmp_path):
    path = tmp_path / "words.txt"
    path.write_text("the 120\nsea 7\n\n", encoding="utf-8")
    assert read_list(path) == ["the", "sea"]
    for content in (b"\xff\xfe", b" \n"):
        path.write_bytes(content)
        with pytest.raises(FormatError, match=r"words\.txt"):
            read_list(path)
