"""Finds texts that are alike."""

import re
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int
from numpy import ndarray

ALIKE = 0.9  # cosine of TF-IDF vectors
MOST = 40_000  # texts that are compared with each other; the time grows with the square
CHUNK = 512
WORDS = re.compile(r"\w+")


def plain(text: str) -> str:
    """The words of a text in lower case; texts that differ in case, spaces and punctuation become equal."""
    return " ".join(WORDS.findall(text.casefold()))


def alike_texts(texts: Sequence[str]) -> Int[ndarray, "K 2"]:
    """Pairs of different plain texts that nearly agree: cosine of their TF-IDF vectors of at least 0.9.

    A text without words is like no other. Of more than `MOST` texts, none are compared.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    if not 1 < len(texts) <= MOST or not any(texts):
        return np.zeros((0, 2), np.int64)
    vectors = TfidfVectorizer(token_pattern=r"\S+", dtype=np.float32).fit_transform(texts)
    found = []
    for at in range(0, len(texts), CHUNK):
        # Sparse, so texts without a common word cost nothing.
        likeness = (vectors[at : at + CHUNK] @ vectors.T).tocoo()
        close = (likeness.data >= ALIKE) & (likeness.row + at < likeness.col)
        found.append(np.stack((likeness.row[close] + at, likeness.col[close]), axis=1))
    return np.concatenate(found).astype(np.int64)
