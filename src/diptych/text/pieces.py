"""From word pieces back to a sentence."""

import re
from collections.abc import Iterable

# BERT's tokenizer splits at every punctuation mark and forgets where the blanks were. Marks that nearly
# always stand without a blank before or after them, or on both sides, are joined; the rest stays apart.
BEFORE = re.compile(r"\s+([.,!?;:)\]}%…])")
AFTER = re.compile(r"([(\[{¿¡„])\s+")
INSIDE = re.compile(r"(?<=\w)\s*([-'’/@])\s*(?=\w)")
NUMBER = re.compile(r"(?<=\d)([.,:])\s+(?=\d)")
QUOTED = re.compile(r'(")\s*([^"]*?)\s*(")|(„)\s*([^„“”]*?)\s*([“”])')


def join_pieces(pieces: Iterable[str]) -> str:
    """Join word pieces with blanks, and those that begin with `##` with the piece before them.

    This is the output of MM-BERT's translation.
    """
    return " ".join(pieces).replace(" ##", "").removeprefix("##")


def detokenize(words: str) -> str:
    """Remove the blanks that tokenization put around punctuation, as European languages write it.

    A guess: `a - b` becomes `a-b`, and an apostrophe joins both sides.
    """
    text = NUMBER.sub(r"\1", AFTER.sub(r"\1", BEFORE.sub(r"\1", words)))
    return QUOTED.sub(r"\1\2\3\4\5\6", INSIDE.sub(r"\1", text))
