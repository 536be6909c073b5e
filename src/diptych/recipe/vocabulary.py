"""The vocabulary file of a data set's folder."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any


def given_vocabulary(text: Mapping[str, Any], root: Path) -> Path | None:
    """The file that `vocabulary: auto` reads; None if the vocabulary is learned.

    Args:
        text: node of the tokenizer. Cased ones read `vocabulary-cased.txt` before `vocabulary.txt`.
        root: folder of the data set.
    """
    names = ("vocabulary.txt",) if text.get("lowercase", True) else ("vocabulary-cased.txt", "vocabulary.txt")
    return next((path for name in names if (path := root / name).exists()), None)
