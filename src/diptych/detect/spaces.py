"""Spaces between words that a reader of text has lost, put back by a list of words.

Memes are set in capitals with tight outlines, and engines of OCR read `LIKEASEA`. A run of letters that is
not in the list is cut into words of it, if it can be, so that the product of the words' frequencies is
largest. By Zipf's law, the frequency of a word is the inverse of its rank in the list.
"""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

from PIL import Image

from diptych.detect.ocr import Line, TextReader
from diptych.errors import FormatError
from diptych.files import require_file

LETTERS = re.compile(r"[^\W\d_]+")
ALONE = frozenset("ai")  # vocabularies list every letter, but only these are words of English
SHORTEST = 4  # letters of a run that is cut; shorter ones are more often names and sounds
GLUED = 7.0  # mean letters per run from which spaces are missing in a line; English words have under five
LARGEST = 64 << 20  # bytes of a list; that of a language has a few


def read_list(path: Path | str) -> list[str]:
    """Read a list of words or a vocabulary: one per line, of which only the first column counts.

    Raises:
        FormatError: the file is too large, is not UTF-8, or has no words.
    """
    path = require_file(path, "a list of words, one per line")
    if (size := path.stat().st_size) > LARGEST:
        raise FormatError(f"{path} has {size:,} bytes; expected a list of words of at most {LARGEST:,}.")
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise FormatError(f"{path} is not UTF-8 ({error.reason}); expected a list of words.") from error
    words = [line.split()[0] for line in lines if line.strip()]
    if not words:
        raise FormatError(f"{path} is empty; expected a list of words, one per line.")
    return words


def whole_words(tokens: Iterable[str]) -> list[str]:
    """Return the tokens of a vocabulary that are whole words, without its marks.

    WordPiece marks pieces that continue a word (`##ing`), CLIP's byte pairs mark ends of words (`ing</w>`),
    and SentencePiece beginnings (a low line). Words of a plain list have no mark.
    """
    tokens = [*tokens]
    for mark, without in (("</w>", str.removesuffix), ("\N{LOWER ONE EIGHTH BLOCK}", str.removeprefix)):
        if marked := [token for token in tokens if mark in token]:
            tokens = [without(token, mark) for token in marked]
    return tokens


class Spaces:
    """Puts spaces back into lines.

    Args:
        words: the most frequent first. What is not of letters alone is left out.
    """

    def __init__(self, words: Iterable[str]) -> None:
        known = dict.fromkeys(
            word.lower() for word in words if LETTERS.fullmatch(word) and (len(word) > 1 or word in ALONE)
        )
        # Minus the logarithm of 1 / (rank * log N), the frequency by Zipf's law.
        scale = math.log(len(known) + 1)
        self._costs = {word: math.log(rank * scale + 1) for rank, word in enumerate(known, 1)}
        self._longest = max(map(len, known), default=0)
        self.checksum = sha256("\n".join(known).encode()).hexdigest()[:8]

    def __len__(self) -> int:
        return len(self._costs)

    def __call__(self, line: str) -> str:
        """Put spaces back into a line whose runs of letters are too long on average."""
        runs = LETTERS.findall(line)
        if not runs or sum(map(len, runs)) / len(runs) < GLUED:
            return line
        return LETTERS.sub(lambda run: self._cut(run[0]), line)

    def _cut(self, run: str) -> str:
        lower = run.lower()
        # Letters whose lower case has another length (a Turkish I with dot) would shift the cuts.
        if len(run) < SHORTEST or lower in self._costs or len(lower) != len(run):
            return run
        # The least cost of the first n letters, and where its last word begins.
        best: list[tuple[float, int]] = [(0.0, 0)]
        for end in range(1, len(run) + 1):
            starts = range(max(0, end - self._longest), end)
            tried = ((best[at][0] + self._costs.get(lower[at:end], math.inf), at) for at in starts)
            best.append(min(tried, default=(math.inf, 0)))
        if math.isinf(best[-1][0]):
            return run
        words, end = list[str](), len(run)
        while end:
            words.append(run[best[end][1] : end])
            end = best[end][1]
        return " ".join(reversed(words))


class Spaced:
    """A `TextReader` whose lines get their spaces back."""

    def __init__(self, reader: TextReader, spaces: Spaces) -> None:
        self.reader, self.spaces = reader, spaces

    def identity(self) -> str:
        return f"{self.reader.identity()}, spaces by {len(self.spaces):,} words {self.spaces.checksum}"

    def read(self, pictures: Sequence[Image.Image]) -> list[list[Line]]:
        return [
            [replace(line, text=self.spaces(line.text)) for line in lines]
            for lines in self.reader.read(pictures)
        ]
