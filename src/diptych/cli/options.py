"""Options that several verbs share, each declared once."""

import argparse
from pathlib import Path


def add_overwrite(parser: argparse.ArgumentParser, what: str) -> None:
    """Add --overwrite; `what` is its help, such as `replace the file if it exists`."""
    # Off everywhere: nothing of the user's is replaced unasked.
    parser.add_argument("--overwrite", action="store_true", help=what)


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add --json, which replaces the tables."""
    parser.add_argument("--json", action="store_true", help="print the result as JSON, for programs")


def add_device(parser: argparse.ArgumentParser, of: str = "", *, int8: bool = False) -> None:
    """Add --device and --precision; `of` says what is computed, such as `of predictions`.

    Args:
        int8: whether 8-bit weights are a choice. They have no gradients and are for predictors alone.
    """
    of = f" {of}" if of else ""
    # `auto` is decided where torch is imported: help must not load it.
    parser.add_argument("--device", default="auto", help=f"device{of}: cpu, cuda, ... (default: GPU, if any)")
    choices = ("32", "bf16", "int8") if int8 else ("32", "bf16")
    # What pays depends on the processor; the page on prediction has the numbers.
    more = "; bf16 needs units for it, int8 is for CPUs without" if int8 else ""
    parser.add_argument(
        "--precision", choices=choices, default="32", help=f"precision{of} (default: 32{more})"
    )


def add_policy(parser: argparse.ArgumentParser) -> None:
    """Add --policy, a file of `diptych calibrate`."""
    parser.add_argument("--policy", type=Path, help="decide by this policy, a file of `diptych calibrate`")


def add_lines(parser: argparse.ArgumentParser, words: str) -> None:
    """Add --lines, which of the lines in a picture make up its text, and --words, which puts back spaces."""
    parser.add_argument(
        "--words",
        type=Path,
        metavar="FILE",
        help="vocabulary or list of words, one per line and the most frequent first: puts back the spaces "
        f"that are lost between capitals (default: {words})",
    )
    parser.add_argument(
        "--lines",
        choices=("captions", "all"),
        default="captions",
        help="read lines that make up the text: captions, or also signs and watermarks (default: captions)",
    )


def add_ocr(parser: argparse.ArgumentParser, what: str, *, words: str = "the model's vocabulary") -> None:
    """Add --ocr, --lines and --words; `what` is the help of --ocr, `words` the default of --words."""
    parser.add_argument("--ocr", action="store_true", help=what)
    add_lines(parser, words)


def add_batch_size(parser: argparse.ArgumentParser, of: str = "") -> None:
    """Add --batch-size, in examples."""
    of = f" {of}" if of else ""
    parser.add_argument(
        "--batch-size", type=int, default=32, help=f"batch size{of}, in examples (default: 32)"
    )


def add_root(parser: argparse.ArgumentParser, what: str = "", *, required: bool = False) -> None:
    """Add --root; `what` extends its help, such as `(default: the one trained on)`."""
    text = f"folder of the data set {what}".strip()
    parser.add_argument("--root", type=Path, required=required, help=text)


def add_data(
    parser: argparse.ArgumentParser,
    what: str = "the data set (default: detected from the files)",
    *,
    settings: bool = True,
) -> None:
    """Add --data, the name of a data set, and with `settings` --set for the settings of its splits."""
    parser.add_argument("--data", metavar="NAME", help=what)
    if settings:
        parser.add_argument(
            "--set",
            metavar="KEY=VALUE",
            action="append",
            default=[],
            help="a setting of the data set, such as lang=fr or image=false",
        )


def add_out(
    parser: argparse.ArgumentParser, what: str, *, default: Path | None = None, required: bool = False
) -> None:
    """Add --out, the place for results."""
    parser.add_argument("--out", type=Path, default=default, required=required, help=what)
