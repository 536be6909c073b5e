"""Prediction files of Multi30k: translations line by line or as submitted."""

import re
from collections.abc import Sequence
from pathlib import Path

from diptych.datasets.photographs import image_name
from diptych.datasets.sentences import read_lines, write_lines
from diptych.errors import FormatError
from diptych.predictions import Predictions

# <INSTITUTION>_<task>_<METHOD>_<type>, as the shared task names its files
SUBMISSION = re.compile(r"[^_]+_(?P<task>[123])_(?P<method>.+)_(?P<type>[CU])")
COLUMNS = 5


def write_translations(predictions: Predictions, path: Path, *, images: Sequence[str]) -> None:
    """Write one translation per line.

    A file called `INSTITUTION_TASK_METHOD_TYPE.tsv` is written in the format of the shared task: method,
    image, translation, task and type, separated by tabs.

    Args:
        images: lines of the list of images.

    Raises:
        FormatError: the predictions have no texts.
    """
    if predictions.texts is None:
        raise FormatError(f"{path}: the predictions have no texts; expected those of a task that translates.")
    lines: Sequence[str] = predictions.texts
    if named := SUBMISSION.fullmatch(path.stem) if path.suffix == ".tsv" else None:
        if len(images) != len(lines):
            raise FormatError(
                f"{path}: {len(lines)} translations of {len(images)} images; expected one each."
            )
        begin, ends = named["method"], f"{named['task']}\t{named['type']}"
        # a tab inside of a sentence would begin a column
        lines = [
            f"{begin}\t{image}\t{' '.join(line.split())}\t{ends}"
            for image, line in zip(images, lines, strict=True)
        ]
    write_lines(path, lines)


def read_translations(
    path: Path, ids: Sequence[str], *, where: str, images: Sequence[str] = ()
) -> Predictions:
    """Read a file of `write_translations`; an empty line is an empty translation.

    Args:
        images: lines of the list of images, if it is known, which those of a TSV must name.

    Raises:
        FormatError: the number of lines is not that of the ids, or a line of a TSV has not five columns or
            names another image.
    """
    # Lines are joined to ids by place; only those of a TSV say what they are.
    lines = read_lines(path)
    if len(lines) != len(ids):
        raise FormatError(
            f"{path}: {len(lines):,} lines, but {where} has {len(ids):,} sentences; expected one line each. "
            "Is the file of another split?"
        )
    if path.suffix == ".tsv":
        rows = [_cells(line, f"{path}:{number}") for number, line in enumerate(lines, 1)]
        for number, (row, image) in enumerate(zip(rows, images, strict=False), 1):
            if image_name(row[1]) != image_name(image):
                raise FormatError(
                    f"{path}:{number}: image {row[1]!r:.80}, but {where} has {image!r:.80} in this line. "
                    "Is the file of another split?"
                )
        # Only the third column is the translation.
        lines = [row[2] for row in rows]
    return Predictions(ids=tuple(ids), texts=tuple(line.strip() for line in lines))


def _cells(line: str, where: str) -> list[str]:
    cells = line.split("\t")
    if len(cells) != COLUMNS:
        raise FormatError(f"{where}: {len(cells)} columns; expected {COLUMNS}, separated by tabs.")
    return cells
