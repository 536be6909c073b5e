"""WordPiece tokenization as in BERT, and small vocabularies learned from your own texts."""

import hashlib
import os
import re
from collections.abc import Iterable, Iterator, MutableMapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tokenizers import Encoding, Tokenizer
from tokenizers.models import WordPiece as WordPieceModel
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.trainers import WordPieceTrainer

from diptych import types
from diptych.errors import ConfigError, FormatError
from diptych.files import atomic_file
from diptych.types import Tokens

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


class WordPiece:
    """BERT's tokenizer over a plain `vocab.txt` (one token per line, line number = id).

    Gives the same tokens as `transformers.BertTokenizer` of version 5. The older Python tokenizers of the
    originals differ in rare characters; see docs/howto/compat.md. White space is collapsed, control
    characters are removed, special tokens written out in a text become special tokens, words of more than 100
    characters become `[UNK]`. Unpaired surrogates, which JSON can contain, are read as `?`. A pickled
    tokenizer contains the vocabulary and does not need the file.

    Args:
        lowercase: True for uncased vocabularies; also strips accents unless `strip_accents` says otherwise.

    Raises:
        FormatError: the vocabulary is not UTF-8, repeats a token or lacks a special token.
    """

    def __init__(
        self, vocabulary: Path | str, *, lowercase: bool = True, strip_accents: bool | None = None
    ) -> None:
        self.lowercase = lowercase
        index = _read_vocabulary(Path(vocabulary))
        self.pad_id, self.unk_id, self.cls_id, self.sep_id, self.mask_id = (index[t] for t in SPECIAL_TOKENS)
        # Without [UNK], which stands for a word of the text and may be masked like any other.
        self.special_ids = (self.pad_id, self.cls_id, self.sep_id, self.mask_id)
        tokenizer = Tokenizer(WordPieceModel(index, unk_token="[UNK]", max_input_chars_per_word=100))
        tokenizer.normalizer = BertNormalizer(lowercase=lowercase, strip_accents=strip_accents)
        tokenizer.pre_tokenizer = BertPreTokenizer()
        tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
        self._tokenizer = tokenizer

    @property
    def vocab_size(self) -> int:
        return self._tokenizer.get_vocab_size()

    @property
    def tokens(self) -> tuple[str, ...]:
        """The vocabulary in the order of ids, as `write_vocabulary` expects it."""
        index = self._tokenizer.get_vocab()
        return tuple(sorted(index, key=index.__getitem__))

    @property
    def fingerprint(self) -> str:
        """Digest that is equal for tokenizers that give equal tokens for every text."""
        return hashlib.sha256(self._tokenizer.to_str().encode()).hexdigest()

    def encode(self, text: str, text_b: str | None = None, *, max_tokens: int) -> Tokens:
        """Tokenize a text or a pair.

        Args:
            max_tokens: largest number of tokens, special tokens included. Longer texts lose their end; of a
                pair, the longer text is truncated first.

        Raises:
            ConfigError: `max_tokens` leaves no room for the special tokens.
        """
        room = max_tokens - (2 if text_b is None else 3)
        if room < 0:
            raise ConfigError(
                f"max_tokens is {max_tokens}; expected at least {max_tokens - room} for the special tokens."
            )
        first, second = self._pieces(text), self._pieces(text_b or "")
        # The library's own truncation also builds all combinations of the overflowing parts of a pair. Two
        # texts of 10,000 words would fill the memory.
        keep, keep_b = _shares(len(first), len(second), room)
        ids = [self.cls_id, *first.ids[:keep], self.sep_id]
        offsets = [_NOWHERE, *first.offsets[:keep], _NOWHERE]
        segments = [0] * len(ids)
        if text_b is not None:
            ids += [*second.ids[:keep_b], self.sep_id]
            offsets += [*second.offsets[:keep_b], _NOWHERE]
            segments += [1] * (keep_b + 1)
        return Tokens(ids=tuple(ids), segments=tuple(segments), offsets=tuple(offsets))

    def count(self, texts: Sequence[str]) -> list[int]:
        """Numbers of tokens, without special tokens and truncation."""
        with _alone():
            found = self._tokenizer.encode_batch_fast([*map(_encodable, texts)], add_special_tokens=False)
        return [len(one) for one in found]

    def _pieces(self, text: str) -> Encoding:
        return self._tokenizer.encode(_encodable(text), add_special_tokens=False)


_NOWHERE = (0, 0)
_PARALLEL = "TOKENIZERS_PARALLELISM"


@contextmanager
def _alone() -> Iterator[None]:
    """Without the library's threads: once it has used them, it warns in every process forked later."""
    before = os.environ.get(_PARALLEL)
    os.environ[_PARALLEL] = "false"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_PARALLEL]
        else:
            os.environ[_PARALLEL] = before


class CachedTokenizer:
    """Wraps a tokenizer and caches the tokens of every text.

    Args:
        memory: cache; tokenizers with equal fingerprints may share it.
    """

    def __init__(self, tokenizer: types.Tokenizer, memory: MutableMapping[Any, Tokens]) -> None:
        self.tokenizer, self.memory = tokenizer, memory
        self.pad_id, self.mask_id = tokenizer.pad_id, tokenizer.mask_id
        self.special_ids = tokenizer.special_ids

    @property
    def vocab_size(self) -> int:
        return self.tokenizer.vocab_size

    @property
    def tokens(self) -> tuple[str, ...]:
        return self.tokenizer.tokens

    @property
    def fingerprint(self) -> str:
        return self.tokenizer.fingerprint

    def encode(self, text: str, text_b: str | None = None, *, max_tokens: int) -> Tokens:
        key = (text, text_b, max_tokens)
        if key not in self.memory:
            self.memory[key] = self.tokenizer.encode(text, text_b, max_tokens=max_tokens)
        return self.memory[key]


def _shares(length: int, length_b: int, room: int) -> tuple[int, int]:
    """Numbers of tokens of two texts that fit into `room` if the longer text is truncated first."""
    shorter = min(length, length_b, room // 2)
    # Example with room 6: texts of 8 and 1 tokens keep 5 and 1; texts of 5 and 4 keep 3 and 3.
    longer = min(max(length, length_b), room - shorter)
    return (longer, shorter) if length > length_b else (shorter, longer)


def learn_vocabulary(texts: Iterable[str], size: int, *, lowercase: bool = True) -> list[str]:
    """Learn a WordPiece vocabulary of at most `size` tokens; the same texts always give the same list.

    It starts with the special tokens and contains every character of the texts, so none of their words of up
    to 100 characters is unknown.

    Args:
        texts: read twice; what can be read once only is kept in memory.

    Raises:
        ConfigError: there are no texts, or more special tokens and characters than `size`.
    """
    if iter(texts) is texts:  # an iterator can be read only once, but the texts are read twice
        texts = list(texts)
    tokenizer = Tokenizer(WordPieceModel(unk_token="[UNK]"))
    tokenizer.normalizer = BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = BertPreTokenizer()
    normalize = tokenizer.normalizer.normalize_str
    count, characters = 0, set[str]()
    for count, line in enumerate(_lines(texts), 1):  # noqa: B007
        # Of the normalized texts: capitals and accents that are taken away need no token.
        characters.update(normalize(line))
    alphabet = sorted(char for char in characters if not char.isspace())
    if not alphabet:
        raise ConfigError(f"no vocabulary can be learned: {count} text(s) hold no character.")
    # Every character needs two tokens, one for the start of a word and one ("##x") for the rest.
    if (least := len(SPECIAL_TOKENS) + 2 * len(alphabet)) > size:
        raise ConfigError(
            f"a vocabulary of {size} tokens is too small: the texts have {len(alphabet)} different "
            f"characters, which take {least} tokens. Choose a larger size."
        )
    # The trainer numbers "##x" in the order of a randomly seeded hash map and breaks ties by these numbers;
    # announcing them as special tokens fixes the numbers.
    announced = [*SPECIAL_TOKENS, *(f"##{char}" for char in alphabet)]
    trainer = WordPieceTrainer(vocab_size=size, special_tokens=announced, show_progress=False)
    tokenizer.train_from_iterator(_lines(texts), trainer)
    index = tokenizer.get_vocab()
    return sorted(index, key=index.__getitem__)


def _lines(texts: Iterable[str]) -> Iterator[str]:
    """Split very long words: the trainer needs minutes for a "word" of millions of characters."""
    return (re.sub(r"(\S{1000})", r"\1 ", _encodable(text)) for text in texts)


def write_vocabulary(path: Path | str, tokens: Iterable[str]) -> None:
    """Write a `vocab.txt`."""
    with atomic_file(path, "w", encoding="utf-8", newline="\n") as file:
        file.writelines(f"{token}\n" for token in tokens)


def _read_vocabulary(path: Path) -> dict[str, int]:
    try:
        # Not splitlines(), which also splits at characters like U+2028 that may be tokens.
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise FormatError(f"{path}: not UTF-8 at byte {error.start}; expected one token per line.") from error
    if not lines[-1]:  # after the line break of the last token
        lines.pop()
    index: dict[str, int] = {}
    for number, token in enumerate(lines):
        if token in index:
            raise FormatError(
                f"{path}:{number + 1}: token {token!r} is already in line {index[token] + 1}; "
                "expected every token once, because its line number is its id."
            )
        index[token] = number
    if missing := [token for token in SPECIAL_TOKENS if token not in index]:
        raise FormatError(
            f"{path}: {len(index)} tokens without {', '.join(missing)}; expected a BERT vocabulary with "
            f"{', '.join(SPECIAL_TOKENS)}, one token per line."
        )
    return index


def _encodable(text: str) -> str:
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")
