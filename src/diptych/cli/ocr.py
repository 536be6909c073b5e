"""Read the words in pictures, and write them as JSON lines with `id`, `img`, `text` and the lines' boxes.

`text` has the captions: lines at least half as high as the tallest one. With --split, the read texts are
compared with those of a data set (character error rate). An interrupted run continues with --resume, which
also adds new pictures to a finished file.

try:
  diptych ocr memes/img --out memes/ocr.jsonl
  diptych ocr memes/img --out memes/ocr.jsonl --root memes --split dev_seen
  diptych ocr pictures.txt --out words.jsonl --lines all --side 960 --bad skip
"""

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diptych.cli.data import chosen_data
from diptych.cli.options import add_data, add_json, add_lines, add_out, add_overwrite, add_root
from diptych.cli.output import as_json, progress, table
from diptych.cli.words import spaced
from diptych.errors import ConfigError

if TYPE_CHECKING:
    from diptych.datasets import Split
    from diptych.detect.words import WordsReport


def configure(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("images", type=Path, help="a folder of pictures, or a .txt file with one per line")
    add_out(parser, "JSON-lines file to write", required=True)
    add_lines(parser, "none")
    add("--side", type=int, default=480, help="pixels in which words are looked for (default: 480)")
    add("--bad", choices=("stop", "skip"), default="stop", help="if a picture cannot be read (default: stop)")
    add("--worst", type=int, default=5, metavar="N", help="list the N worst texts of --split (default: 5)")
    add("--resume", action="store_true", help="continue an interrupted run, or add to a finished one")
    add_overwrite(parser, "replace a file of words")
    add_root(parser, "whose texts are compared")
    add("--split", help="the split whose texts are compared")
    add_data(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    from diptych.detect.listing import list_pictures
    from diptych.detect.rapid import RapidReader
    from diptych.detect.words import read_words

    for name, least in (("side", 32), ("worst", 0)):
        if (value := getattr(arguments, name)) < least:
            raise ConfigError(f"--{name} is {value}; expected at least {least}.")
    if (arguments.root is None) != (arguments.split is None):
        raise ConfigError("--root and --split belong together: both say which texts are compared.")
    dataset = None
    if arguments.root is not None:  # before minutes of reading
        dataset = chosen_data(arguments, arguments.root).open(arguments.root, arguments.split)
    pictures = list_pictures(arguments.images)
    with RapidReader(side=arguments.side) as engine, progress("reading words") as advance:
        reader = spaced(engine, arguments)
        report = read_words(
            pictures,
            arguments.out,
            reader,
            chosen=arguments.lines,
            bad=arguments.bad,
            resume=arguments.resume,
            overwrite=arguments.overwrite,
            progress=advance,
        )
    compared = None if dataset is None else _compare(report, dataset)
    if arguments.json:
        # The texts are in the file; thousands of them are no summary.
        values = {name: value for name, value in asdict(report).items() if name != "texts"}
        as_json(values | ({} if compared is None else {"errors": asdict(compared[0])}))
        return 0
    speed = f", {report.computed / report.seconds:.3g}/s" if report.computed else ""
    print(f"wrote {report.path}: {len(report.texts):,} pictures, {report.empty:,} without words")
    print(f"{report.computed:,} pictures read in {report.seconds:.1f} s{speed} ({reader.identity()})")
    if report.bad:
        print(f"{len(report.bad):,} picture(s) skipped:")
        print("\n".join(f"  {fault}" for fault in report.bad[:5]) + "\n  ..." * (len(report.bad) > 5))
    if compared is not None:
        _show(*compared, arguments)
    return 0


def _compare(report: "WordsReport", dataset: "Split") -> tuple[Any, list[tuple[str, str, str]]]:
    """Return the character errors, and id, given text and read text of the examples that were read."""
    from diptych.metrics import character_errors

    rows = [
        (example.id, pair.text, report.texts[dataset.images[pair.image].stem])
        for example in dataset
        # By the stem of the file, which is what the words are stored under.
        for pair in example.pairs
        if isinstance(pair.image, str) and pair.text.strip()
        if dataset.images[pair.image].stem in report.texts
    ]
    if not rows:
        raise ConfigError(
            f"{dataset.files[0]}: no {dataset.noun} has a text and a picture among those of {report.path}; "
            f"the words are written."
        )
    return character_errors([read for _, _, read in rows], [given for _, given, _ in rows]), rows


def _show(errors: Any, rows: list[tuple[str, str, str]], arguments: argparse.Namespace) -> None:
    from diptych.metrics.characters import edits, plainly

    shares = [(f"{100 * value:.2f} %") for value in (errors.rate, errors.low, errors.high, errors.unspaced)]
    measures = [
        ("character error rate", f"{shares[0]} [{shares[1]}, {shares[2]}]"),
        ("without spaces", shares[3]),
        ("texts without an error", f"{100 * errors.exact:.1f} %"),
    ]
    table(f"{arguments.split}: {errors.count:,} texts", ("measure", "value"), measures, numbers=1)
    # The most errors and not the highest rate, which short texts would win.
    wrong = [(edits(plainly(read), plainly(given)), id, given, read) for id, given, read in rows]
    wrong = sorted((row for row in wrong if row[0]), key=lambda row: -row[0])[: arguments.worst]
    if wrong:
        table("the worst", ("errors", "id", "given", "read"), wrong)
