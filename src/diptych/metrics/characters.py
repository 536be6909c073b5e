"""Character error rate of read texts."""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from diptych.metrics.uncertainty import percentiles, resampled_sums

QUOTES = str.maketrans({"\N{RIGHT SINGLE QUOTATION MARK}": "'", "\N{LEFT SINGLE QUOTATION MARK}": "'"})
KEPT = " .,!?'-%$&#@"  # punctuation that people type into captions; brackets, quotes and dashes vary


@dataclass(frozen=True, slots=True, kw_only=True)
class CharacterErrors:
    """How far read texts are from the given ones; rates are errors per given character.

    Args:
        low: end of the 95 % bootstrap interval of `rate` over texts; `high` is the other one.
        unspaced: rate without all spaces, of which readers lose some.
        exact: share of texts without an error.
    """

    count: int
    rate: float
    low: float
    high: float
    unspaced: float
    exact: float


def character_errors(
    read: Sequence[str], given: Sequence[str], *, samples: int = 2000, seed: int = 0
) -> CharacterErrors:
    """Compare read texts with given ones, after `plainly`: captions have capitals that nobody typed.

    Raises:
        ValueError: the given texts have no characters.
    """
    pairs = [(plainly(one), plainly(other)) for one, other in zip(read, given, strict=True)]
    counts = np.array([(edits(one, other), len(other)) for one, other in pairs], np.float64).reshape(-1, 2)
    if not counts[:, 1].sum():
        raise ValueError("the given texts have no characters, so that no rate is defined")
    tight = [(one.replace(" ", ""), other.replace(" ", "")) for one, other in pairs]
    sums = resampled_sums(counts, [np.arange(len(pairs))], samples=samples, seed=seed)
    # A resample of empty texts alone has no rate; `percentiles` leaves it out.
    rates = np.divide(sums[:, 0], sums[:, 1], out=np.full(len(sums), np.nan), where=sums[:, 1] > 0)
    low, high = percentiles(rates)
    errors, characters = counts.sum(0)
    return CharacterErrors(
        count=len(pairs),
        rate=float(errors / characters),
        low=low,
        high=high,
        unspaced=sum(edits(*pair) for pair in tight) / sum(len(other) for _, other in tight),
        exact=float((counts[:, 0] == 0).mean()),
    )


def plainly(text: str) -> str:
    """Return a text in lower case, with single spaces and without rare punctuation."""
    text = unicodedata.normalize("NFKC", text).translate(QUOTES).casefold()
    kept = (one if one.isalnum() or one in KEPT else " " if one.isspace() else "" for one in text)
    return " ".join("".join(kept).split())


def edits(one: str, other: str) -> int:
    """Return the least number of inserted, deleted and replaced characters between two texts.

    Myers's bit vectors (1999, in Hyyrö's form of 2003): one column of the usual table is two integers, so the
    cost is one step per character of `other`.
    """
    if not one:
        return len(other)
    # Of `abca`, the bits of a are 1001 and those of b 0010: the first character is the lowest bit.
    places: dict[str, int] = {}
    for place, character in enumerate(one):
        places[character] = places.get(character, 0) | 1 << place
    full, last = (1 << len(one)) - 1, 1 << len(one) - 1
    # Bit i of `up` and `down`: the table grows or shrinks by one from row i to row i + 1.
    up, down, distance = full, 0, len(one)
    for character in other:
        same = places.get(character, 0)
        diagonal = (((same & up) + up) ^ up) | same | down
        right, left = down | ~(diagonal | up), up & diagonal
        distance += bool(right & last) - bool(left & last)
        right, left = right << 1 | 1, left << 1
        up, down = (left | ~(diagonal | right)) & full, right & diagonal & full
    return distance
