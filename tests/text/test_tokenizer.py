import pickle
import random
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import BertTokenizer
from transformers.models.bert.tokenization_bert_legacy import BertTokenizerLegacy

from diptych.errors import ConfigError, FormatError
from diptych.text import CachedTokenizer, WordPiece, learn_vocabulary, write_vocabulary
from diptych.text.tokenizer import SPECIAL_TOKENS

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
LETTERS = list("abcdehilmnorstuyABDEM")
PIECES = [*SPECIAL, *LETTERS, *(f"##{c}" for c in LETTERS), "the", "##er", "house", "é", "中", "!", "."]
TEXTS = (
    "",
    "   ",
    "the house",
    "  the\t\tHOUSE \n is\u00a0here!  ",
    "Mother's café, naïve résumé.",
    "中文 and 日本",
    "control\x00\x07 characters\ufffd and a soft\u00adhyphen",
    "[MASK] the [SEP] house [cls]",
    "emoji 😀 and ﬁ ligature",
    "a" * 100 + " " + "b" * 101,
    "the house " * 40,
)


@pytest.fixture
def vocabulary(tmp_path: Path) -> Path:
    write_vocabulary(tmp_path / "vocab.txt", PIECES)
    return tmp_path / "vocab.txt"


@pytest.fixture
def tokenizer(vocabulary: Path) -> WordPiece:
    return WordPiece(vocabulary)


def peer(vocabulary: Path, **options: object) -> BertTokenizer:
    return BertTokenizer(vocab=str(vocabulary), **options)


@pytest.mark.parametrize(("lowercase", "strip_accents"), [(True, None), (False, None), (True, False)])
def test_equals_the_bert_tokenizer(vocabulary: Path, lowercase: bool, strip_accents: bool | None) -> None:
    ours = WordPiece(vocabulary, lowercase=lowercase, strip_accents=strip_accents)
    theirs = peer(vocabulary, do_lower_case=lowercase, strip_accents=strip_accents)
    for text in TEXTS:
        for max_tokens in (2, 3, 7, 64):
            got = ours.encode(text, max_tokens=max_tokens)
            expected = theirs(text, truncation=True, max_length=max_tokens, return_offsets_mapping=True)
            assert got.ids == tuple(expected["input_ids"]), text
            assert got.segments == tuple(expected["token_type_ids"])
            assert got.offsets == tuple(expected["offset_mapping"])


@pytest.mark.parametrize(
    ("text", "lowercase", "here", "there"),
    [
        ("\u03a0\u03a3", True, ["\u03c0", "##\u03c3"], ["\u03c0", "##\u03c2"]),
        ("e\u0301", False, ["e", "##\u0301"], ["\u00e9"]),
        ("a\u0378b", True, ["[UNK]"], ["a", "##b"]),
        ("a\u2e5db", True, ["a", "##\u2e5d", "##b"], ["a", "\u2e5d", "b"]),
        ("a\u200bb\x01", True, ["a", "##b"], ["a", "##b"]),
    ],
)
def test_the_tokenizers_in_python_differ_where_the_page_says(
    tmp_path: Path, text: str, lowercase: bool, here: list[str], there: list[str]
) -> None:
    pieces = list(dict.fromkeys([*SPECIAL, *here, *there]))
    write_vocabulary(tmp_path / "vocab.txt", pieces)
    ours = WordPiece(tmp_path / "vocab.txt", lowercase=lowercase).encode(text, max_tokens=9).ids
    assert [pieces[one] for one in ours[1:-1]] == here
    assert list(ours) == peer(tmp_path / "vocab.txt", do_lower_case=lowercase)(text)["input_ids"]
    old = BertTokenizerLegacy(vocab_file=str(tmp_path / "vocab.txt"), do_lower_case=lowercase)
    assert old.tokenize(text) == there


def test_pairs_are_truncated_as_the_bert_tokenizer_does(vocabulary: Path) -> None:
    ours, theirs = WordPiece(vocabulary), peer(vocabulary)
    for first in TEXTS[:7]:
        for second in TEXTS[:7]:
            for max_tokens in (4, 5, 8, 11, 64):
                got = ours.encode(first, second, max_tokens=max_tokens)
                expected = theirs([first], [second], truncation=True, max_length=max_tokens)
                assert got.ids == tuple(expected["input_ids"][0]), (first, second, max_tokens)
                assert got.segments == tuple(expected["token_type_ids"][0])


def test_empty_text_is_two_special_tokens(tokenizer: WordPiece) -> None:
    tokens = tokenizer.encode("", max_tokens=16)
    assert tokens.ids == (tokenizer.cls_id, tokenizer.sep_id)
    assert tokens.segments == (0, 0)
    assert len(tokens) == 2


def test_pair_has_two_segments(tokenizer: WordPiece) -> None:
    tokens = tokenizer.encode("the house", "the", max_tokens=16)
    the, house = PIECES.index("the"), PIECES.index("house")
    assert tokens.ids == (2, the, house, 3, the, 3)
    assert tokens.segments == (0, 0, 0, 0, 1, 1)
    assert tokens.offsets == ((0, 0), (0, 3), (4, 9), (0, 0), (0, 3), (0, 0))


@pytest.mark.timeout(180)
@pytest.mark.slow
def test_a_word_without_end_teaches_in_time() -> None:
    assert "a" in learn_vocabulary(["a day", "x" * 10_000_000], 50)


@pytest.mark.timeout(60)
def test_a_remembering_tokenizer_gives_the_same_tokens_once(tokenizer: WordPiece) -> None:
    memory: dict = {}
    one, other = CachedTokenizer(tokenizer, memory), CachedTokenizer(tokenizer, memory)
    tokens = one.encode("what a day", max_tokens=9)
    assert tokens == tokenizer.encode("what a day", max_tokens=9)
    assert other.encode("what a day", max_tokens=9) is tokens
    assert other.encode("what a day", max_tokens=3) != tokens
    assert one.vocab_size == tokenizer.vocab_size


def test_fingerprints_tell_tokenizers_apart(vocabulary: Path) -> None:
    same, again, cased = (WordPiece(vocabulary, lowercase=lower) for lower in (True, True, False))
    assert same.fingerprint == again.fingerprint != cased.fingerprint


def test_ten_thousand_words_are_cut_to_size(tokenizer: WordPiece) -> None:
    essay = "mother house " * 5_000
    tokens = tokenizer.encode(essay, essay, max_tokens=128)
    assert len(tokens) == 128
    assert tokens.segments.count(1) == 64  # the second text takes the odd token


def test_unpaired_surrogates_read_as_unknown(tokenizer: WordPiece) -> None:
    assert tokenizer.unk_id in tokenizer.encode("the \ud83d house", max_tokens=16).ids


def test_survives_pickling_without_its_file(vocabulary: Path) -> None:
    tokenizer = WordPiece(vocabulary, lowercase=False)
    vocabulary.unlink()
    copy = pickle.loads(pickle.dumps(tokenizer))
    assert copy.encode("Mother's café", max_tokens=20) == tokenizer.encode("Mother's café", max_tokens=20)
    assert copy.tokens == tokenizer.tokens == tuple(PIECES)
    assert (copy.pad_id, copy.vocab_size, copy.lowercase) == (0, len(PIECES), False)


def test_crlf_and_byte_order_mark_do_not_matter(tmp_path: Path, tokenizer: WordPiece) -> None:
    path = tmp_path / "windows.txt"
    path.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(PIECES).encode())
    assert WordPiece(path).tokens == tokenizer.tokens


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"vocab\.txt: 0 .* \[PAD\], \[UNK\], \[CLS\], \[SEP\], \[MASK\];"),
        (b"[PAD]\n[CLS]\n[SEP]\n[MASK]\nthe\n", r"vocab\.txt: 5 .* \[UNK\];"),
        (b"[PAD]\n[UNK]\nthe\n[CLS]\nthe\n", r"vocab\.txt:5: .*'the' .* 3;"),
        (b"[PAD]\n\xff\xfe\n", r"vocab\.txt: .* 6;"),
    ],
)
def test_broken_vocabulary_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "vocab.txt"
    path.write_bytes(content)
    with pytest.raises(FormatError, match=message):
        WordPiece(path)


def test_too_few_tokens_are_refused(tokenizer: WordPiece) -> None:
    with pytest.raises(ConfigError, match=r"max_tokens .* 1; .* 2 "):
        tokenizer.encode("the", max_tokens=1)
    with pytest.raises(ConfigError, match=r"max_tokens .* 2; .* 3 "):
        tokenizer.encode("the", "house", max_tokens=2)


def corpus() -> list[str]:
    draw = random.Random(0)
    words = ["".join(draw.choices("abcdefghi", k=draw.randint(2, 6))) for _ in range(200)]
    return [" ".join(draw.choices(words, k=9)) for _ in range(200)]


def test_learned_vocabulary_knows_its_texts(tmp_path: Path) -> None:
    texts = [*corpus(), "Ünïcode ÄÖ 中文!"]
    tokens = learn_vocabulary(texts, 300)
    assert len(tokens) == len(set(tokens)) == 300
    assert tokens[:5] == SPECIAL
    write_vocabulary(tmp_path / "vocab.txt", tokens)
    tokenizer = WordPiece(tmp_path / "vocab.txt")
    encoded = [tokenizer.encode(text, max_tokens=512) for text in texts]
    assert all(tokenizer.unk_id not in row.ids for row in encoded)
    pieces = sum(len(row) - 2 for row in encoded)
    assert pieces < 0.5 * sum(len(text.replace(" ", "")) for text in texts)


def test_learned_vocabulary_keeps_case_when_asked() -> None:
    assert "B" in learn_vocabulary(["Bb"], 20, lowercase=False)
    assert "B" not in learn_vocabulary(["Bb"], 20)


@pytest.mark.slow
def test_same_texts_give_the_same_vocabulary_in_every_process() -> None:
    script = (
        "import random; from diptych.text import learn_vocabulary;"
        "draw = random.Random(0);"
        "words = [''.join(draw.choices('abcdefghi', k=draw.randint(2, 6))) for _ in range(200)];"
        "print(learn_vocabulary([' '.join(draw.choices(words, k=9)) for _ in range(200)], 300))"
    )
    runs = [subprocess.run([sys.executable, "-c", script], capture_output=True, text=True) for _ in range(2)]
    assert {run.stdout for run in runs} == {f"{learn_vocabulary(corpus(), 300)}\n"}


def test_impossible_vocabularies_are_refused() -> None:
    with pytest.raises(ConfigError, match=" 2 "):
        learn_vocabulary(["", "  "], 100)
    with pytest.raises(ConfigError, match=r" 10 .* 4 .* 13 "):
        learn_vocabulary(["abcd"], 10)


def test_format_characters_vanish_and_capital_sigma_has_one_small_form(tmp_path: Path) -> None:
    """What docs/howto/compat.md says; Python's `lower` would make οδος of the first word."""
    write_vocabulary(tmp_path / "vocab.txt", [*SPECIAL_TOKENS, "οδοσ", "οδος", "ab", "a", "##b"])
    tokenizer = WordPiece(tmp_path / "vocab.txt")
    words = [
        tokenizer.tokens[index] for index in tokenizer.encode("ΟΔΟΣ a\u200bb a\u00adb", max_tokens=9).ids
    ]
    assert words == ["[CLS]", "οδοσ", "ab", "ab", "[SEP]"]


MULTILINGUAL = (
    "Ein großer Käfer fährt über die Straße.",
    "Un garçon âgé déjeune à l'ombre d'un chêne.",
    "Žluťoučký kůň pije u řeky.",
    "A dog sleeps. 中文字 and 日本",
)


def test_a_multilingual_cased_vocabulary_keeps_accents_and_splits_ideographs(tmp_path: Path) -> None:
    tokens = learn_vocabulary(MULTILINGUAL, 400, lowercase=False)
    write_vocabulary(tmp_path / "vocab.txt", tokens)
    ours = WordPiece(tmp_path / "vocab.txt", lowercase=False)
    theirs = peer(tmp_path / "vocab.txt", do_lower_case=False)
    for text in MULTILINGUAL:
        encoded = ours.encode(text, max_tokens=200)
        assert encoded.ids == tuple(theirs(text)["input_ids"])
        assert ours.unk_id not in encoded.ids
        # every character is that of the text: nothing is lower-cased, and no accent is lost
        inner = [ours.tokens[one].removeprefix("##") for one in encoded.ids[1:-1]]
        assert "".join(inner) == text.replace(" ", "")
    ids = ours.encode("中文字", max_tokens=9).ids
    assert [ours.tokens[one] for one in ids[1:-1]] == ["中", "文", "字"]
