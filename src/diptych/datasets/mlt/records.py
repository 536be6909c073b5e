"""Official files of MLT: ambiguous words in their sentences, and the references of the evaluation of 2018."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from diptych.datasets.caption_lines import read_columns
from diptych.datasets.sentences import read_lines
from diptych.errors import FormatError

BETWEEN = " | "
COLUMNS = ("word", "translations", "sentence", "sentence in the other language", "image")
HUMAN = ("word", "translations", "sentence", "image", "whether the image was used")
USED = {"yes": "picture used", "no": "picture not used"}


class Row(NamedTuple):
    """An ambiguous word in a sentence.

    `translations` are the right ones; `used` says of the human sets whether people needed the picture.
    """

    word: str
    translations: tuple[str, ...]
    sentence: str
    image: str
    used: str | None = None


def read_rows(path: Path, *, human: bool = False) -> Iterator[Row]:
    """Yield the rows of a file in order.

    Translations are lower-cased: some of those of 2018 have capitals, all sentences are in lower case.

    Raises:
        FormatError: a line has not five columns, or one is empty; names file and line.
    """
    columns = HUMAN if human else COLUMNS
    for number, line in enumerate(read_lines(path), 1):
        where = f"{path}:{number}"
        cells = [cell.strip() for cell in line.split(BETWEEN)]
        if len(cells) != len(columns):
            raise FormatError(
                f"{where}: {len(cells)} columns; expected {len(columns)}, separated by {BETWEEN!r}: "
                f"{', '.join(columns)}."
            )
        if "" in cells:
            raise FormatError(f"{where}: the column of the {columns[cells.index('')]} is empty.")
        used = None
        if human:
            used = USED.get(cells.pop())
            if used is None:
                raise FormatError(f"{where}: the last column is {line[-20:]!r}; expected yes or no.")
        # In order, and each once: two spellings may become one.
        words = tuple(dict.fromkeys(cells[1].lower().split()))
        # The picture is the last column of both forms, once `used` is taken off.
        yield Row(cells[0], words, cells[2], cells[-1], used)


def read_json_rows(path: Path, lang: str) -> Iterator[Row]:
    """Yield the rows of MM-BERT's JSON lines.

    Raises:
        FormatError: a field is missing or empty; names file, line and field.
    """
    names = ("word_en", f"word_{lang}", "caption_en", "image")
    columns = read_columns(path, names)
    for word, translations, sentence, image in zip(*(columns[name] for name in names), strict=True):
        yield Row(word, tuple(dict.fromkeys(translations.lower().split())), sentence, image)


class Reference(NamedTuple):
    """A word to translate: line of the translated test set, from 0, and the right translations."""

    word: str
    translations: tuple[str, ...]
    line: int


def read_references(path: Path) -> Iterator[Reference]:
    """Yield the rows of `EN??_MLTD_test2018.txt`: word, translations and a line number, separated by blanks.

    Raises:
        FormatError: a row has fewer than three items, or the last is no line number; names file and line.
    """
    for number, line in enumerate(read_lines(path), 1):
        items = line.split()
        last = items[-1] if len(items) > 2 else ""
        # isdigit() alone accepts digits that int() refuses; nine digits are more than any file has lines.
        if not (last.isascii() and last.isdigit() and len(last) < 10):
            raise FormatError(
                f"{path}:{number}: got {line[-40:]!r}; expected a word, translations and a line number."
            )
        yield Reference(items[0], tuple(items[1:-1]), int(last))


def found_in(sentence: str, translations: Sequence[str], *, inside: bool) -> str:
    """Return the first right translation that occurs in a sentence; an empty string if none does.

    Args:
        inside: also inside of words, as the official evaluation of French counts.
    """
    # `in` looks for a part of a string, but for a whole item of a list.
    words = sentence if inside else sentence.split()
    return next((word for word in translations if word in words), "")
