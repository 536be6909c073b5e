import json
import pickle
import struct

import pytest
from tests.text.pieces import CONTROL, TEXTS, UNKNOWN, characters, model, part, write
from tokenizers import SentencePieceBPETokenizer, SentencePieceUnigramTokenizer

from diptych.errors import ConfigError, FormatError
from diptych.text import SentencePiece
from diptych.types import Tokenizer

HARD = [*TEXTS, "", "   ", "Snake_CASE, it's 5%!", "  a   dog ", "日本 dog 👍", "</s> <unk>", "a\tb\n"]
SPECIAL = ["<pad>", "</s>", "<unk>"]


@pytest.fixture(scope="module")
def learned():
    """Pieces and scores of a small Unigram vocabulary, as T5 and SigLIP have them."""
    tokenizer = SentencePieceUnigramTokenizer()
    tokenizer.train_from_iterator(
        TEXTS, vocab_size=80, show_progress=False, special_tokens=SPECIAL, unk_token="<unk>"
    )
    return [tuple(one) for one in json.loads(tokenizer.to_str())["model"]["vocab"]]


@pytest.fixture(scope="module")
def peer(learned):
    from transformers import T5Tokenizer

    return T5Tokenizer(vocab=learned, extra_ids=0)


@pytest.fixture(scope="module")
def files(learned, peer, tmp_path_factory):
    """The same vocabulary as spiece.model and as tokenizer.json."""
    folder = tmp_path_factory.mktemp("pieces")
    peer.save_pretrained(folder)
    return write(folder, "spiece.model", model(learned)), folder / "tokenizer.json"


def test_both_forms_give_the_tokens_of_transformers(files, peer):
    first, second = (SentencePiece(path) for path in files)
    assert isinstance(first, Tokenizer)
    for text in HARD:
        ids = first.encode(text, max_tokens=64).ids
        assert list(ids) == peer(first.clean(text))["input_ids"]
        assert ids == second.encode(text, max_tokens=64).ids
    assert first.tokens == second.tokens
    assert first.fingerprint != SentencePiece(files[0], clean="lower").fingerprint
    assert pickle.loads(pickle.dumps(first)).fingerprint == first.fingerprint


def test_a_long_text_keeps_its_end_token(files):
    tokenizer = SentencePiece(files[0])
    whole = tokenizer.encode(TEXTS[0], max_tokens=64)
    cut = tokenizer.encode(TEXTS[0], max_tokens=5)
    assert cut.ids == (*whole.ids[:4], tokenizer.end_id)
    assert len(cut.offsets) == len(cut.segments) == 5
    assert tokenizer.encode("", max_tokens=1).ids == (tokenizer.end_id,)
    assert tokenizer.encode("a dog", "a cat", max_tokens=64) == tokenizer.encode("a dog a cat", max_tokens=64)


def test_nobody_writes_a_special_token(files):
    for path in files:
        tokenizer = SentencePiece(path, clean="none")
        found = tokenizer.encode("a </s> <pad> dog", max_tokens=64).ids
        assert not set(found[:-1]) & set(tokenizer.special_ids)


def test_texts_are_cleaned_as_they_were_for_training(files):
    clean = {name: SentencePiece(files[0], clean=name).clean for name in ("canonicalize", "lower", "none")}
    assert clean["canonicalize"](" A_b, it's\n 5%! ") == "a b its 5"
    assert clean["lower"](" A_b, ") == " a_b, "
    assert clean["none"]("A\ud800") == "A?"


def test_characters_are_replaced_by_the_table_of_the_file(learned, tmp_path):
    path = write(tmp_path, "spiece.model", model(learned, characters=characters("$", "dog")))
    tokenizer = SentencePiece(path, clean="none")
    assert tokenizer.encode("a $", max_tokens=64).ids == tokenizer.encode("a dog", max_tokens=64).ids


def test_byte_pairs_of_gemma_give_the_tokens_of_transformers(tmp_path):
    from transformers import Siglip2Tokenizer

    trained = SentencePieceBPETokenizer(add_prefix_space=False)
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
    bytes_ = [f"<0x{number:02X}>" for number in range(256)]
    trained.train_from_iterator(TEXTS, vocab_size=360, show_progress=False, special_tokens=special + bytes_)
    learned = json.loads(trained.to_str())["model"]
    peer = Siglip2Tokenizer(vocab=learned["vocab"], merges=[tuple(one) for one in learned["merges"]])
    peer.save_pretrained(tmp_path)
    tokenizer = SentencePiece(tmp_path / "tokenizer.json", clean="lower")
    assert tokenizer.tokens[tokenizer.end_id] == "<eos>"
    for text in HARD:
        if "<" not in text:  # there, transformers reads special tokens in texts
            assert list(tokenizer.encode(text, max_tokens=99).ids[:-1]) == peer(text)["input_ids"]


BROKEN = {
    "another file": (b"[PAD]\n[UNK]\n", "encoding 3 at byte 1"),
    "empty": (b"", "0 pieces"),
    "a length beyond the end": (b"\x0a\xff\xff\xff\xff\x0f", "bytes at byte 6 of 6"),
    "a number without end": (b"\xff" * 12, "does not end"),
    "a number for bytes": (part(1, 7), "the number 7"),
    "a piece without a text": (part(1, part(2, 1.0)), "no SentencePiece model"),
    "byte pairs": (model([("<unk>", 0.0)], trainer=part(3, 2)), "the type 2"),
    "a symbol of its own": (model([("<unk>", 0.0), ("a", 0.0)], kinds={"<unk>": UNKNOWN, "a": 4}), "its own"),
    "blanks kept": (model([("<unk>", 0.0)], normalizer=part(4, 0)), "blanks"),
    "nothing for the unknown": (model([("a", 0.0)]), "piece -1"),
    "a piece twice": (model([("<unk>", 0.0), ("a", 0.0), ("a", 1.0)]), "'a' is there twice"),
    "no number": (model([("<unk>", 0.0), ("a", float("nan"))]), "not finite"),
    "an empty piece": (model([("<unk>", 0.0), ("", 0.0)]), "2 pieces"),
    "no end": (model([("<unk>", 0.0), ("a", 0.0)]), "</s>"),
    "json without a model": (b"{}", "model"),
    "json of another model": (b'{"model": {"type": "WordPiece", "vocab": {"a": 0}}}', "'WordPiece'"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_vocabulary_that_is_none_is_refused(tmp_path, name):
    content, where = BROKEN[name]
    path = write(tmp_path, "vocabulary", content)
    with pytest.raises(FormatError) as caught:
        SentencePiece(path)
    assert str(path) in str(caught.value)
    assert where in str(caught.value)


def test_a_table_of_characters_is_followed_before_native_code_does(learned, tmp_path):
    whole = characters("a", "b")
    unit, leaf = 256 ^ ord("a"), 256 ^ ord("a") ^ 1

    def changed(place, value):
        return whole[: 4 + 4 * place] + struct.pack("<I", value) + whole[8 + 4 * place :]

    damaged = {
        "a link": changed(unit, ord("a") | 1 << 8 | 4000 << 10),
        "a text beyond": changed(leaf, 1 << 31 | 9),
        "not a leaf": changed(leaf, 0),
        "a root that is a leaf": changed(0, 1 << 31),
        "a length": b"\xff" + whole[1:],
        "no end": whole[:-1],
        "half a letter": whole[:-2] + b"\xc3\0",
        "short": b"\0\0\0",
    }
    for name, table in damaged.items():
        path = write(tmp_path, name, model(learned, characters=table))
        with pytest.raises(FormatError, match="table of characters") as caught:
            SentencePiece(path)
        assert str(path) in str(caught.value)


def test_json_that_asks_for_more_is_refused(files, tmp_path):
    whole = json.loads(files[1].read_text())
    changes = {
        "normalizer": ({"normalizer": {"type": "NFKC"}}, "'NFKC'"),
        "nested": ({"normalizer": {"type": "Sequence", "normalizers": [{"type": "BertNormalizer"}]}}, "Bert"),
        "base64": ({"normalizer": {"type": "Precompiled", "precompiled_charsmap": "&"}}, "base64"),
        "unknown": ({"model": {**whole["model"], "unk_id": 500}}, "piece 500"),
    }
    for name, (change, where) in changes.items():
        path = write(tmp_path, name, json.dumps({**whole, **change}))
        with pytest.raises(FormatError, match=where):
            SentencePiece(path)


def test_merges_make_pieces_and_no_special_ones(tmp_path):
    vocab = {"<unk>": 0, "<eos>": 1, "a": 2, "b": 3, "ab": 4}
    added = [{"id": 1, "content": "<eos>", "special": True}]
    for merges, where in ([["b", "a"]], "merge 0"), ([["a", "b"], ["<", "eos>"]], "merge 1"):
        body = {"type": "BPE", "vocab": vocab, "unk_token": "<unk>", "merges": merges}
        path = write(tmp_path, "t.json", json.dumps({"model": body, "added_tokens": added}))
        with pytest.raises(FormatError, match=where):
            SentencePiece(path)
    body = {"type": "BPE", "vocab": {**vocab, "b": 9}, "unk_token": "<unk>"}
    with pytest.raises(FormatError, match="ids of its 5"):
        SentencePiece(write(tmp_path, "t.json", json.dumps({"model": body})))


def test_settings_out_of_range_are_refused(files):
    with pytest.raises(ConfigError, match="'strip'"):
        SentencePiece(files[0], clean="strip")
    with pytest.raises(ConfigError, match="max_tokens is 0"):
        SentencePiece(files[0]).encode("a", max_tokens=0)


def test_pieces_are_hidden_by_their_type_and_not_by_their_name(files, learned, tmp_path):
    number = SentencePiece(files[0]).encode("dog", max_tokens=9).ids[0]
    kinds = {"<pad>": CONTROL, "</s>": CONTROL, "<unk>": UNKNOWN, learned[number][0]: 5}
    tokenizer = SentencePiece(write(tmp_path, "unused.model", model(learned, kinds=kinds)))
    assert tokenizer.tokens[number] == learned[number][0]
    assert number not in tokenizer.encode("dog", max_tokens=9).ids
