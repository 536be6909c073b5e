import gzip
import pickle

import pytest

from diptych.errors import ConfigError, FormatError
from diptych.text import BytePair
from diptych.types import Tokenizer

MERGES = ["t h", "th e</w>", "c a", "ca t</w>", "i n", "in g</w>", "â Ģ"]
LETTERS = 512  # characters of bytes, and the same at the end of a word


@pytest.fixture(scope="module")
def merges(tmp_path_factory):
    path = tmp_path_factory.mktemp("bpe") / "merges.txt"
    path.write_text("\n".join(["#version: 0.2", *MERGES, ""]), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def plain(merges):
    return BytePair(merges, fix="none")


def pieces(tokenizer, text, **options):
    tokens = tokenizer.tokens
    return [tokens[index] for index in tokenizer.encode(text, max_tokens=77, **options).ids[1:-1]]


def test_it_is_a_tokenizer(plain):
    assert isinstance(plain, Tokenizer)
    assert plain.vocab_size == LETTERS + len(MERGES) + 2 == len(plain.tokens)
    assert plain.special_ids == (plain.vocab_size - 2, plain.vocab_size - 1)


def test_words_are_merged_and_lowercased(plain):
    assert pieces(plain, "The  CAT\tmeowing") == ["the</w>", "cat</w>", "m", "e", "o", "w", "ing</w>"]
    assert pieces(plain, "it's 12") == ["i", "t</w>", "'", "s</w>", "1</w>", "2</w>"]


def test_a_text_begins_and_ends_with_special_tokens_whatever_its_length(plain):
    for text in ("", "   ", "the cat " * 50):
        ids = plain.encode(text, max_tokens=9).ids
        assert len(ids) <= 9
        assert (ids[0], ids[-1]) == plain.special_ids
        assert len(set(ids[1:-1]) & set(plain.special_ids)) == 0


def test_nobody_ends_a_text_by_writing_the_end_token(merges, plain):
    text = "the <|endoftext|> cat"
    assert plain.end_id not in plain.encode(text, max_tokens=77).ids[:-1]
    original = BytePair(merges, fix="none", special_in_text=True)
    assert original.encode(text, max_tokens=77).ids[2] == original.end_id
    assert original.fingerprint != plain.fingerprint


def test_a_second_text_is_appended(plain):
    assert pieces(plain, "the", text_b="cat") == ["the</w>", "cat</w>"]


def test_entities_are_resolved_twice_and_surrogates_are_question_marks(plain):
    assert plain.clean(" fish &amp;amp; CHIPS ") == "fish & chips"
    assert plain.clean("a \ud800 b &#xD800;")[:5] == "a ? b"


def test_ftfy_straightens_quotes(merges):
    repaired = BytePair(merges)
    assert repaired.clean("\u201cfi\ufb01\u201d caf\u00c3\u00a9") == '"fifi" caf\u00e9'
    assert repaired.fingerprint != BytePair(merges, fix="none").fingerprint


def test_it_is_read_from_gzip_and_pickled(merges, plain, tmp_path):
    packed = tmp_path / "merges.txt.gz"
    packed.write_bytes(gzip.compress(merges.read_bytes().replace(b"#version: 0.2", b'"bpe" - Version: 0.2')))
    for one in (BytePair(packed, fix="none"), pickle.loads(pickle.dumps(plain))):
        assert one.fingerprint == plain.fingerprint


def test_only_the_first_merges_count(merges):
    assert BytePair(merges, fix="none", merges=2).vocab_size == LETTERS + 4


@pytest.mark.parametrize(
    ("content", "where"),
    [
        (b"[PAD]\n[UNK]\n", ":1: '[PAD]'"),  # BERT's
        (b"#version: 0.2\nt h\nqu een\n", ":3: 'qu een'"),  # a part that no merge made
        (b"#version: 0.2\nt h\nt h\n", ":3: 't h'"),
        (b"#version: 0.2\n", "no merges"),
        (b"\xff\xfe\x00", "byte 0"),
        (b"\x1f\x8b\x08", "cannot be read"),
        (gzip.compress(b"a" * (9 << 20)), "8,388,608"),
    ],
)
def test_a_vocabulary_that_is_not_clips_is_refused(tmp_path, content, where):
    path = tmp_path / "vocabulary"
    path.write_bytes(content)
    with pytest.raises(FormatError) as caught:
        BytePair(path, fix="none")
    assert str(path) in str(caught.value)
    assert where in str(caught.value)


def test_settings_out_of_range_are_refused(merges, plain):
    with pytest.raises(ConfigError, match="'magic'"):
        BytePair(merges, fix="magic")
    with pytest.raises(ConfigError, match="max_tokens is 1"):
        plain.encode("the", max_tokens=1)
