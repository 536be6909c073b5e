"""Whether a vocabulary belongs to a table of words, and how its tokens were made."""

import re
import unicodedata
import warnings
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

from diptych.convert.settings import Setting, Settings
from diptych.errors import ConfigError
from diptych.text.tokenizer import SPECIAL_TOKENS

# table sizes of published vocabularies, and where they are
VOCABULARIES = {
    30522: "BERT's uncased one, hub:google-bert/bert-base-uncased/vocab.txt",
    28996: "BERT's cased one, hub:google-bert/bert-base-cased/vocab.txt",
    29077: "BERT's cased one, hub:google-bert/bert-base-cased/vocab.txt; 81 further rows are VCR's persons",
    119547: "BERT's multilingual cased one, hub:google-bert/bert-base-multilingual-cased/vocab.txt",
}
PERSONS = (28996, 29077)  # tokens and rows that differ in a published file
SPARE = 128  # rows that a table may have beyond its vocabulary
FIRST = 100  # id of [UNK] in all published ones; [CLS], [SEP] and [MASK] follow


def published(rows: int) -> str:
    """Which vocabulary belongs to a table of so many words."""
    return VOCABULARIES.get(rows, f"one of {rows} tokens, which its authors must say")


def require_fitting(tokens: Sequence[str], rows: int, *, path: Path) -> None:
    """Refuse a vocabulary whose lines have moved, as far as its tokens or its size show it.

    Every line that is missing, or too many, gives all later words the vector of another word.

    Raises:
        ConfigError: it does not fit the table, or special tokens stand elsewhere than in BERT's.
    """
    if not 0 <= rows - len(tokens) <= SPARE:
        raise ConfigError(
            f"{path}: {len(tokens)} tokens for a table of {rows} words; expected {published(rows)}."
        )
    if "" in tokens:
        raise ConfigError(f"{path}:{tokens.index('') + 1}: an empty line counts as a token; take it out.")
    unused = {int(found[1]): line for line, one in enumerate(tokens) if (found := _UNUSED.fullmatch(one))}
    if rows in VOCABULARIES or unused:
        _require_places(tokens, unused, path)
    if len(tokens) < rows and (len(tokens), rows) != PERSONS:
        warnings.warn(
            f"{path}: {len(tokens)} tokens for a table of {rows} words. IF {rows - len(tokens)} LINES WERE "
            "LOST, ALL WORDS BEHIND THEM HAVE THE VECTORS OF OTHER WORDS, AND EVERY SCORE IS WRONG. It is "
            f"right only where the table was made longer than its vocabulary. Expected {published(rows)}.",
            stacklevel=3,
        )


def tokenizer_settings(tokens: Sequence[str]) -> Settings:
    """Whether texts are lowered before they are cut into these tokens, and whether accents go then.

    A token that `str.lower` changes never comes out of a lowered text; BERT's uncased vocabulary also holds
    symbols that are capitals by name only. Lowered texts lose their accents, as in BERT, unless a token has
    kept one.
    """
    words = [token for token in tokens if not _SPECIAL.fullmatch(token)]
    capital = next((token for token in words if token != token.lower()), None)
    if capital is not None:
        return {"lowercase": Setting(False, f"the file: the vocabulary holds {capital!r}")}
    settings = {"lowercase": Setting(True, "the file: no token of the vocabulary has a capital")}
    accented = next((token for token in words if _ACCENT.search(unicodedata.normalize("NFD", token))), None)
    if accented is not None:
        settings["strip_accents"] = Setting(False, f"the file: the vocabulary holds {accented!r}")
    return settings


def _require_places(tokens: Sequence[str], unused: Mapping[int, int], path: Path) -> None:
    """Lines of the special tokens, and of [unusedN], whose numbers run on."""
    first = FIRST + int(unused.get(0) == 1 and unused.get(FIRST - 1) == FIRST)  # SciBERT has one more
    places = dict(zip(SPECIAL_TOKENS, (0, *range(first, first + 4)), strict=True))
    for token, line in places.items():
        if (found := tokens.index(token)) != line:
            raise ConfigError(
                f"{path}:{found + 1}: {token} stands in line {found + 1}, in BERT's vocabularies in line "
                f"{line + 1}: {abs(found - line)} line(s) are {'missing' if found < line else 'too many'} "
                "before it, and all later words are shifted. Take a whole copy."
            )
    for (number, line), (after, found) in pairwise(sorted(unused.items())):
        special = sum(line < place < found for place in places.values())
        if found - line - special != after - number:
            raise ConfigError(
                f"{path}:{found + 1}: [unused{after}] does not stand {after - number} line(s) behind "
                f"[unused{number}], so lines are missing or too many between them, and all later words are "
                "shifted. Take a whole copy."
            )


_UNUSED = re.compile(r"\[unused(\d+)\]")
_SPECIAL = re.compile(r"\[.*\]")
_ACCENT = re.compile(r"[a-z][\u0300-\u036f]")
