"""SigLIP's tokenizers: SentencePiece vocabularies, read from their published files."""

import hashlib
import re
import string
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, normalizers
from tokenizers.models import BPE, Unigram

from diptych.errors import ConfigError, FormatError
from diptych.text.piece_files import Pieces, read_pieces
from diptych.types import Tokens

ENDS = ("</s>", "<eos>")  # of SigLIP 1, of Gemma
BLANK = "▁"  # stands for a blank in a piece
CLEANINGS = ("canonicalize", "lower", "none")
NO_MARKS = str.maketrans("", "", string.punctuation)


class SentencePiece:
    """The tokenizers of SigLIP (Unigram, 32,000 pieces) and SigLIP 2 (Gemma's byte pairs): `text end`.

    Gives the same tokens as the SentencePiece library after the same cleaning. Special tokens that are
    written out in a text are plain characters. A pickled tokenizer contains the vocabulary and does not need
    the file.

    Args:
        vocabulary: `spiece.model` of a Unigram model, or `tokenizer.json` of Hugging Face.
        clean: `canonicalize` lowercases and removes ASCII punctuation, as google-research/big_vision does for
            prompts; underscores become blanks, where Hugging Face removes them. (open_clip repairs the
            encoding first.) `lower` lowercases only, as SigLIP 2 does. `none` leaves texts as they are.

    Raises:
        FormatError: the file is no such vocabulary, or has no end token.
        ConfigError: `clean` is unknown.
    """

    def __init__(self, vocabulary: Path | str, *, clean: str = "canonicalize") -> None:
        if clean not in CLEANINGS:
            raise ConfigError(f"the tokenizer has clean={clean!r}; expected one of {', '.join(CLEANINGS)}.")
        self.cleaning = clean
        found = read_pieces(Path(vocabulary))
        self.tokens = tuple(name for name, _ in found.pieces)
        end = next((name for name in ENDS if name in self.tokens), None)
        if end is None:
            raise FormatError(f"{vocabulary}: has no piece {' or '.join(ENDS)}, which ends a text.")
        self.end_id = self.tokens.index(end)
        # SigLIP fills texts up with a token of its model's own, so this one is never seen.
        self.pad_id = self.mask_id = self.end_id
        self.special_ids = tuple({*found.control, self.end_id} - {found.unknown})
        self._tokenizer = _tokenizer(found, {*found.control, self.end_id})
        # Not of the library's own text, whose numbers a pickle rounds.
        self._digest = hashlib.sha256(f"{clean} {found}".encode()).hexdigest()

    @property
    def vocab_size(self) -> int:
        return len(self.tokens)

    @property
    def fingerprint(self) -> str:
        """Digest that is equal for tokenizers that give equal tokens for every text."""
        return self._digest

    def encode(self, text: str, text_b: str | None = None, *, max_tokens: int) -> Tokens:
        """Tokenize a text. SigLIP reads one text, so a second one is appended to it.

        Args:
            max_tokens: largest number of tokens, the end included. Longer texts lose their last pieces.

        Returns:
            The tokens; offsets count characters of the cleaned text.

        Raises:
            ConfigError: `max_tokens` leaves no room for the end.
        """
        if max_tokens < 1:
            raise ConfigError(f"max_tokens is {max_tokens}; expected at least 1 for the end token.")
        whole = text if text_b is None else f"{text} {text_b}"
        found = self._tokenizer.encode(self.clean(whole), add_special_tokens=False)
        ids = (*found.ids[: max_tokens - 1], self.end_id)
        offsets = (*found.offsets[: max_tokens - 1], (0, 0))
        return Tokens(ids=ids, segments=(0,) * len(ids), offsets=offsets)

    def clean(self, text: str) -> str:
        """Lowercase a text and take its punctuation away, as far as the tokenizer does."""
        # Unpaired surrogates, which JSON can contain, are no text.
        text = text.encode("utf-8", "replace").decode("utf-8")
        if self.cleaning == "canonicalize":
            text = re.sub(r"\s+", " ", text.replace("_", " ").translate(NO_MARKS)).strip()
        return text if self.cleaning == "none" else text.lower()


def _tokenizer(found: Pieces, hidden: set[int]) -> Tokenizer:
    steps: list[normalizers.Normalizer] = []
    if found.characters:
        steps.append(normalizers.Precompiled(found.characters))
    if found.blanks:
        # Replaced characters can be blanks, so after them; nothing is put in front of an empty text.
        steps += [normalizers.Replace(Regex(r"\A +| +\z"), ""), normalizers.Replace(Regex(" +"), " ")]
        steps.append(normalizers.Prepend(" "))
    steps.append(normalizers.Replace(" ", BLANK))
    if found.merges is None:
        # A normalized text has no blank, so a piece with one is never found in it, and keeps its id.
        pieces = [(" " * (at in hidden) + name, score) for at, (name, score) in enumerate(found.pieces)]
        tokenizer = Tokenizer(Unigram(pieces, found.unknown, found.bytes_of_unknown))
    else:
        index = {name: number for number, (name, _) in enumerate(found.pieces)}
        unknown = found.pieces[found.unknown][0]
        pairs = BPE(
            index,
            [*found.merges],
            unk_token=unknown,
            fuse_unk=True,
            byte_fallback=found.bytes_of_unknown,
        )
        tokenizer = Tokenizer(pairs)
        tokenizer.add_tokens([AddedToken(name, normalized=False) for name in found.own])
    tokenizer.normalizer = normalizers.Sequence(steps)
    return tokenizer
