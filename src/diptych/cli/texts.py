"""Arguments and reading of the texts that `vocabulary` and `fasttext` learn from."""

import argparse
from pathlib import Path

from diptych.cli.data import chosen_data
from diptych.cli.options import add_data


def add_texts(parser: argparse.ArgumentParser) -> None:
    """Add the source of the texts, and the file to write."""
    parser.add_argument("root", type=Path, help="folder of a data set, or a file with one text per line")
    parser.add_argument("out", type=Path, help="a new file")
    parser.add_argument("--split", default="train", help="split to read texts from (default: train)")
    add_data(parser)


def read_texts(arguments: argparse.Namespace) -> list[str]:
    """Return the texts of a split, or the non-empty lines of a file."""
    from diptych.files import require_file

    if arguments.root.exists() and not arguments.root.is_dir():
        lines = (
            require_file(arguments.root, "one text per line")
            .read_text(encoding="utf-8-sig", errors="replace")  # one bad byte must not stop a large corpus
            .splitlines()
        )
        return [line for line in lines if line.strip()]
    data = chosen_data(arguments, arguments.root)
    # A list, because the verbs also tell the number of texts.
    return list(data.open(arguments.root, arguments.split).table.texts())
