"""Lines of a text file joined to passages, with one passage in memory."""

import gzip
import zlib
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path

from diptych.datasets.sentences import GZIP
from diptych.errors import FormatError
from diptych.files import require_file

LONGEST = 1 << 18  # characters that are read of a line at a time; what follows is the next line

Line = tuple[int, list[str]]  # number, from 1, and words


def read_passages(path: Path, *, words: int, every_line: bool) -> Iterator[tuple[int, str]]:
    """Yield passages of a file with the number of the line that they begin in, from 1.

    Args:
        words: least number of words of a passage, separated by white space.
        every_line: see `Corpus`.

    Raises:
        FormatError: the file is not UTF-8, or a packed one is damaged or cut off; names file and line.
    """
    with _text(path) as file:
        lines = _lines(file, path)
        yield from _from_every_line(lines, words) if every_line else _in_turn(lines, words)


@contextmanager
def _text(path: Path) -> Iterator[TextIOWrapper]:
    """Open a plain or gzipped file as text. The content tells which one it is, not the name."""
    with open(require_file(path, "a text file"), "rb") as start:
        packed = start.read(2) == GZIP
    # "utf-8-sig" drops a byte order mark; an editor of Windows may have left one.
    with gzip.open(path) if packed else open(path, "rb") as content:
        yield TextIOWrapper(content, encoding="utf-8-sig")


def _lines(file: TextIOWrapper, path: Path) -> Iterator[Line]:
    number = 0
    try:
        while line := file.readline(LONGEST):
            number += 1
            yield number, line.split()
    except UnicodeDecodeError as error:
        raise FormatError(
            f"{path}:{number + 1}: not UTF-8 in this line or soon after ({error.reason})."
        ) from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise FormatError(
            f"{path}: damaged gzip file after line {number} ({error}); get it again."
        ) from error


def _in_turn(lines: Iterator[Line], least: int) -> Iterator[tuple[int, str]]:
    """Every word once, in passages that end with their document: an empty line, or the end of the file."""
    words, first = list[str](), 0
    for number, found in lines:
        if not found and words:
            yield first, " ".join(words)
            words = []
        first = first if words else number
        words += found
        # A long line becomes several passages: a run would cut what exceeds its number of tokens.
        while len(words) >= 2 * least:
            yield first, " ".join(words[:least])
            words, first = words[least:], number
        if len(words) >= least:
            yield first, " ".join(words)
            words = []
    if words:
        yield first, " ".join(words)


def _from_every_line(lines: Iterator[Line], least: int) -> Iterator[tuple[int, str]]:
    """Each line with those that follow it; after the last line the file begins again."""
    waiting, known = deque[Line](), 0  # lines that begin no passage yet, and their words
    start, counted = list[Line](), 0  # as many of the first lines as a passage may need
    for number, words in lines:
        if not words:
            continue
        if counted < least:
            start.append((number, words))
            counted += len(words)
        waiting.append((number, words))
        known += len(words)
        while known - len(waiting[0][1]) >= least:
            known -= len(waiting[0][1])
            yield _joined(waiting, least)
    for _ in range(len(waiting)):
        yield _joined(waiting, least, start)


def _joined(waiting: deque[Line], least: int, after: Sequence[Line] = ()) -> tuple[int, str]:
    """Take the first waiting line, with as many of the others as it needs."""
    words = list[str]()
    for _, more in (*waiting, *after):
        words += more
        if len(words) >= least:
            break
    return waiting.popleft()[0], " ".join(words)
