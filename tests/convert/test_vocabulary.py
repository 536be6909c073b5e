"""Lines that are missing or too many shift all later words: found where tokens or the size show it."""

import warnings

import pytest

from diptych.convert.vocabulary import require_fitting, tokenizer_settings
from diptych.errors import ConfigError, FormatError
from diptych.text import WordPiece, write_vocabulary

SPECIAL = ["[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = [f"w{number}" for number in range(60)]
UNCASED = [
    "[PAD]", *(f"[unused{n}]" for n in range(99)), *SPECIAL, *(f"[unused{n}]" for n in range(99, 110)), *WORDS
]  # fmt: skip
CASED = [
    "[PAD]", *(f"[unused{n}]" for n in range(1, 100)), *SPECIAL, "[unused100]", "[unused101]", *WORDS
]  # fmt: skip
SCIBERT = ["[PAD]", *(f"[unused{n}]" for n in range(100)), *SPECIAL, *WORDS]
PLAIN = ["[PAD]", *SPECIAL, *WORDS]


@pytest.mark.parametrize("tokens", [UNCASED, CASED, SCIBERT, PLAIN])
def test_whole_vocabularies_fit_in_silence(tmp_path, tokens):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        require_fitting(tokens, len(tokens), path=tmp_path)


def test_an_unused_line_may_get_a_meaning(tmp_path):
    edited = ["[STOP]" if token == "[unused50]" else token for token in CASED]
    require_fitting(edited, len(edited), path=tmp_path)


@pytest.mark.parametrize("tokens", [UNCASED, CASED])
@pytest.mark.parametrize("more", [[], ["more"]])
@pytest.mark.parametrize("line", [1, 2, 50, 99])
def test_a_line_missing_before_the_special_tokens_is_refused(tmp_path, tokens, line, more):
    """Also where another line at the end makes the size right."""
    cut = [*tokens[:line], *tokens[line + 1 :], *more]
    with pytest.raises(ConfigError, match=r":\d+: \[UNK\] .*line \d+"):
        require_fitting(cut, len(tokens), path=tmp_path)


@pytest.mark.parametrize("line", [1, 50, 100])
def test_a_line_too_many_before_the_special_tokens_is_refused(tmp_path, line):
    longer = [*UNCASED[:line], "surplus", *UNCASED[line:]]
    with pytest.raises(ConfigError, match=r":102: \[UNK\] .*line 101\b"):
        require_fitting(longer, len(longer), path=tmp_path)


def test_a_line_missing_among_later_unused_ones_is_refused(tmp_path):
    line = UNCASED.index("[unused105]")
    cut = [*UNCASED[:line], *UNCASED[line + 1 :]]
    with pytest.raises(ConfigError, match=r"\[unused106\] .*\b2 line.*\[unused104\]"):
        require_fitting(cut, len(UNCASED), path=tmp_path)


@pytest.mark.parametrize("tokens", [UNCASED, CASED, PLAIN])
def test_where_the_size_alone_tells_it_warns_loudly(tmp_path, tokens):
    cut = [*tokens[:-5], *tokens[-4:]]
    with pytest.warns(UserWarning, match=rf"{len(cut)} tokens .*\b{len(tokens)} rows.* 1 LINES"):
        require_fitting(cut, len(tokens), path=tmp_path)


def test_a_published_table_wants_the_published_places(tmp_path):
    tokens = [*PLAIN, *(f"x{number}" for number in range(30522 - len(PLAIN)))]
    with pytest.raises(ConfigError, match=r":2: \[UNK\] .*line 101\b"):
        require_fitting(tokens, 30522, path=tmp_path)


def test_an_empty_line_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=":8: "):
        require_fitting([*PLAIN[:7], "", *PLAIN[7:]], len(PLAIN) + 1, path=tmp_path)


def test_a_repeated_line_is_refused(tmp_path):
    write_vocabulary(tmp_path / "v.txt", [*CASED, "w3"])
    with pytest.raises(FormatError, match=r"v\.txt:\d+: .*'w3'"):
        WordPiece(tmp_path / "v.txt")


@pytest.mark.parametrize(
    ("words", "lowercase", "strip_accents"),
    [
        (["cat", "##s", "1"], True, None),
        (["\u211d", "\u2115", "\u1d2c", "\u2116", "##\u211d"], True, None),  # capitals by name only
        (["[STOP]", "[unused7]", "[UNK]"], True, None),
        (["cat", "Cat"], False, None),
        (["cat", "##A"], False, None),
        (["\u0391"], False, None),  # a Greek capital
        (["\u00e9", "\u00c9"], False, None),
        (["\u00e9", "cat"], True, False),
        (["\u4e2d", "\u30ac"], True, None),
    ],
)
def test_case_and_accents_show_in_the_tokens(words, lowercase, strip_accents):
    settings = tokenizer_settings(words)
    assert settings["lowercase"].value is lowercase
    found = settings.get("strip_accents")
    assert (None if found is None else found.value) is strip_accents
