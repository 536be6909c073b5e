"""Checks that a vocabulary fits a word embedding, and finds out how its tokenizer treats case and accents."""

import re
import unicodedata
import warnings
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

from diptych.convert.family import Family, Node
from diptych.convert.settings import Setting, Settings
from diptych.errors import ConfigError
from diptych.text import BytePair, SentencePiece, WordPiece
from diptych.text.tokenizer import SPECIAL_TOKENS

# Rows of published word embeddings, and the sources of their vocabularies.
VOCABULARIES = {
    30522: "BERT's uncased one, hub:google-bert/bert-base-uncased/vocab.txt",
    28996: "BERT's cased one, hub:google-bert/bert-base-cased/vocab.txt",
    29077: "BERT's cased one, hub:google-bert/bert-base-cased/vocab.txt; 81 further rows are VCR's persons",
    49408: "CLIP's, bpe_simple_vocab_16e6.txt.gz of openai/CLIP, or merges.txt of Hugging Face",
    32000: "SigLIP's, spiece.model or tokenizer.json of google/siglip-base-patch16-224",
    256000: "Gemma's, tokenizer.json of google/siglip2-base-patch16-224",
    119547: "BERT's multilingual cased one, hub:google-bert/bert-base-multilingual-cased/vocab.txt",
}
GEMMA = 256_000  # pieces of the vocabulary of SigLIP 2; that of SigLIP has 32,000
PERSONS = (28996, 29077)  # tokens and rows of a published file whose rows are more than its tokens
ALONE = (
    2 * 256 + 2
)  # tokens of CLIP's vocabulary that no merge makes: bytes, last bytes of words, two special
SPARE = 128  # rows that an embedding may have beyond its vocabulary
FIRST = 100  # id of [UNK] in all published vocabularies; [CLS], [SEP] and [MASK] follow


def published(rows: int) -> str:
    """Describe the published vocabulary of a word embedding with this number of rows."""
    return VOCABULARIES.get(rows, f"one of {rows} tokens; ask the authors of the weights for it")


def tokenizer_for(family: Family, rows: int, *, path: Path) -> tuple[Node, Settings]:
    """Return the config of the tokenizer of a family with a vocabulary, and what the vocabulary shows.

    Raises:
        ConfigError: the vocabulary does not fit the word embedding.
    """
    node = {"_target_": f"diptych.text.{family.tokenizer.__name__}", "vocabulary": str(path)}
    if family.tokenizer is BytePair:
        merges = rows - ALONE
        _require_equal(BytePair(path, merges=max(merges, 1)).vocab_size, rows, path)
        return {**node, "merges": merges}, {"fix": Setting("ftfy", "the original: OpenAI's tokenizer")}
    if family.tokenizer is SentencePiece:
        _require_equal(SentencePiece(path).vocab_size, rows, path)
        # The width of the vocabulary is what tells SigLIP 2 from SigLIP.
        clean = "lower" if rows > GEMMA // 2 else "canonicalize"
        return node, {"clean": Setting(clean, "the original: only SigLIP 2 keeps punctuation")}
    tokens = WordPiece(path).tokens
    require_fitting(tokens, rows, path=path)
    return node, tokenizer_settings(tokens)


def _require_equal(count: int, rows: int, path: Path) -> None:
    # These vocabularies have no spare rows.
    if count != rows:
        raise ConfigError(
            f"{path}: {count} tokens for a word embedding of {rows} rows; expected {published(rows)}."
        )


def require_fitting(tokens: Sequence[str], rows: int, *, path: Path) -> None:
    """Refuse a vocabulary that has lost or gained lines, as far as its size and tokens show it.

    After a missing or additional line, all words get the vector of another word.

    Raises:
        ConfigError: the vocabulary does not fit the word embedding, or special tokens are not at the places
            that BERT's vocabularies have for them.
    """
    # More tokens than rows would index beyond the table; far fewer are another vocabulary.
    if not 0 <= rows - len(tokens) <= SPARE:
        raise ConfigError(
            f"{path}: {len(tokens)} tokens for a word embedding of {rows} rows; expected {published(rows)}."
        )
    # The tokenizer counts lines, so an empty one shifts the ids of all later words.
    if "" in tokens:
        raise ConfigError(f"{path}:{tokens.index('') + 1}: an empty line counts as a token; remove it.")
    unused = {int(match[1]): line for line, token in enumerate(tokens) if (match := _UNUSED.fullmatch(token))}
    # Other vocabularies, such as one learned here, have their special tokens elsewhere.
    if rows in VOCABULARIES or unused:
        _require_places(tokens, unused, path)
    if len(tokens) < rows and (len(tokens), rows) != PERSONS:
        warnings.warn(
            f"{path}: {len(tokens)} tokens for a word embedding of {rows} rows. IF {rows - len(tokens)} "
            "LINES WERE LOST, ALL LATER WORDS HAVE THE VECTORS OF OTHER WORDS, AND EVERY SCORE IS WRONG. "
            f"This is right only if the embedding has spare rows. Expected {published(rows)}.",
            stacklevel=3,
        )


def tokenizer_settings(tokens: Sequence[str]) -> Settings:
    """Find out whether a tokenizer with this vocabulary lowercases texts and strips accents.

    A lowercased text never gives a token that `str.lower` changes. (BERT's uncased vocabulary also has
    symbols that are capitals by their Unicode name only; `str.lower` does not change them.) With lowercasing,
    accents are stripped, as in BERT, unless a token has one.
    """
    words = [token for token in tokens if not _SPECIAL.fullmatch(token)]
    capital = next((token for token in words if token != token.lower()), None)
    if capital is not None:
        return {"lowercase": Setting(False, f"the file: the vocabulary has {capital!r}")}
    settings = {"lowercase": Setting(True, "the file: no token of the vocabulary has a capital")}
    # NFD takes letters and accents apart, so the pattern finds every accent on a Latin letter.
    accented = next((token for token in words if _ACCENT.search(unicodedata.normalize("NFD", token))), None)
    if accented is not None:
        settings["strip_accents"] = Setting(False, f"the file: the vocabulary has {accented!r}")
    return settings


def _require_places(tokens: Sequence[str], unused: Mapping[int, int], path: Path) -> None:
    """Check the lines of the special tokens, and that the numbers of [unusedN] are consecutive."""
    # SciBERT has one more [unusedN] before the special tokens.
    first = FIRST + int(unused.get(0) == 1 and unused.get(FIRST - 1) == FIRST)
    places = dict(zip(SPECIAL_TOKENS, (0, *range(first, first + 4)), strict=True))
    for token, line in places.items():
        if (actual := tokens.index(token)) != line:
            raise ConfigError(
                f"{path}:{actual + 1}: {token} is in line {actual + 1}; expected line {line + 1} as in "
                f"BERT's vocabularies. {abs(actual - line)} line(s) before it are "
                f"{'missing' if actual < line else 'too many'}, which shifts all later words. Use a complete "
                "copy."
            )
    for (number, line), (after, later) in pairwise(sorted(unused.items())):
        special = sum(line < place < later for place in places.values())  # they may be in between
        if later - line - special != after - number:
            raise ConfigError(
                f"{path}:{later + 1}: [unused{after}] is not {after - number} line(s) after "
                f"[unused{number}], so lines between them are missing or too many, which shifts all later "
                "words. Use a complete copy."
            )


_UNUSED = re.compile(r"\[unused(\d+)\]")
_SPECIAL = re.compile(r"\[.*\]")
_ACCENT = re.compile(r"[a-z][\u0300-\u036f]")
