"""Lines of text files that become passages."""

import gzip

import pytest

from diptych.datasets import Corpus
from diptych.errors import ConfigError, FormatError


def passages(folder, split="a", **settings):
    return [(one.id, one.pairs[0].text) for one in Corpus(folder, split, **settings)]


@pytest.fixture
def write(tmp_path):
    def make(content, name="a.doc"):
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        return tmp_path

    return make


def test_lines_are_joined_until_there_are_enough_words(write):
    folder = write("one two\nthree\nfour five\n\nsix\n\n\nseven eight nine ten")  # no last line end
    assert passages(folder, words=3) == [
        ("a/1", "one two three"),
        ("a/3", "four five"),  # the document ends
        ("a/5", "six"),
        ("a/8", "seven eight nine ten"),
    ]


def test_a_long_line_becomes_several_passages_without_losing_a_word(write):
    words = [f"w{number}" for number in range(11)]
    found = passages(write(" ".join(words)), words=3)
    assert [key for key, _ in found] == ["a/1", "a/1.2", "a/1.3"]
    assert " ".join(text for _, text in found).split() == words


def test_every_line_begins_a_passage_as_in_vl_bert(write):
    folder = write("one two\n\nthree\nfour five six\nseven")
    assert passages(folder, words=3, every_line=True) == [
        ("a/1", "one two three"),
        ("a/3", "three four five six"),
        ("a/4", "four five six"),
        ("a/5", "seven one two"),  # the file begins again
    ]


def test_files_are_joined_and_packed_ones_are_read(write):
    folder = write("one two\r\nthree")
    write(gzip.compress("vier f\u00fcnf".encode()), "b.txt.gz")
    assert Corpus.splits(folder) == ("a", "b")
    assert passages(folder, "b+a", words=9) == [("b/1", "vier f\u00fcnf"), ("a/1", "one two three")]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", r"a\.doc: holds no words"),
        (b" \n\n\t\n", r"a\.doc: holds no words"),
        (b"good\n\xff\xfe bad\n", r"a\.doc:[12]: not UTF-8"),
        (gzip.compress(b"word " * 99)[:20], r"a\.doc: damaged gzip"),
    ],
    ids=["empty", "blank", "not UTF-8", "cut gzip"],  # gzip writes the time, so the content is no name
)
def test_files_that_hold_no_text_are_errors(write, content, told):
    with pytest.raises(FormatError, match=told):
        Corpus(write(content), "a")


def test_what_cannot_be_chosen_is_refused(write):
    folder = write("one")
    with pytest.raises(ConfigError, match="words"):
        Corpus(folder, "a", words=0)
    with pytest.raises(ConfigError, match="twice"):
        Corpus(folder, "a+a")
    write("two", "a.txt")
    with pytest.raises(ConfigError, match=r"a\.doc and a\.txt"):
        Corpus(folder, "a")
