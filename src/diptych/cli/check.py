"""Find problems in a data set before training does.

Reads every annotation file, opens every picture, looks up every image in the feature store. The exit code is
1 if there are errors, 0 if there are only warnings and notes. For a table (CSV, TSV, JSON lines) it guesses
the meaning of the columns and prints the settings to train on it.

try:
  diptych check memes
  diptych check t/labels.csv
  diptych check memes --features memes/features --json
"""

import argparse
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from diptych.cli.data import chosen_data
from diptych.cli.options import add_data, add_json
from diptych.cli.output import as_json, progress, table
from diptych.errors import FormatError

if TYPE_CHECKING:
    from diptych.check import SplitSummary
    from diptych.check.report import Spread
    from diptych.datasets import Data

MANY, SHOWN = 20, 5  # answers of questions are thousands: beyond so many names, only the first are shown
ROLES = ("id", "image", "text", "label", "split", "group", "weight")


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("root", type=Path, help="folder of a data set, or a table of your own")
    parser.add_argument(
        "--features", type=Path, help="a feature store, or boxes.jsonl (default: ROOT/features)"
    )
    parser.add_argument("--splits", help="comma-separated (default: all splits of the data set)")
    add_data(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    # With --data, a file would be the wrong kind of root, which opening it says.
    if arguments.root.is_file() and arguments.data is None:
        return _table(arguments)
    return _check(arguments, arguments.root, chosen_data(arguments, arguments.root))


def _table(arguments: argparse.Namespace) -> int:
    """Guess the meaning of a table's columns, then check it with that guess."""
    from diptych.datasets import Data, Table, guess_table

    guess = guess_table(arguments.root)
    target = f"{Table.__module__}.{Table.__qualname__}"
    data = Data(node={"_target_": target, **guess.settings}, why="a guess", train=guess.splits[0])
    if not arguments.json:
        shown = {
            role: ", ".join([name] if isinstance(name, str) else name) for role, name in guess.columns.items()
        }
        rows = [(role, shown.get(role, "-"), f"data.columns.{role}") for role in ROLES]
        table("", ("meaning", "column (guessed)", "setting to change it"), rows)
    code = _check(arguments, arguments.root.parent, data)  # paths in a table are relative to its folder
    if not arguments.json:
        print(f"\n{guess.words()}")
    return code


def _check(arguments: argparse.Namespace, root: Path, data: "Data") -> int:
    from diptych.check import check, picture_files
    from diptych.data import BoxSource, read_boxes
    from diptych.features import FeatureStore
    from diptych.types import RegionSource

    folder = arguments.features
    if folder is None and (root / "features").is_dir():
        folder = root / "features"
    splits = arguments.splits.split(",") if arguments.splits else None
    source: RegionSource | None = None
    if folder is not None and folder.suffix == ".jsonl":  # boxes for an end-to-end model
        # Boxes alone do not show the sizes of pictures, so their files are needed.
        source = BoxSource(picture_files(root, data, splits), given=read_boxes(folder))
    elif folder is not None:
        source = FeatureStore(folder)
    elif data.train in (splits or data.splits(root)):
        with suppress(FormatError):  # of annotations, which the check itself reports
            source = data.open(root, data.train).regions
    with progress("checking") as advance:
        report = check(
            root,
            data=data,
            features=source,
            splits=splits,
            progress=advance,
        )
    if arguments.json:
        as_json(asdict(report))
        return 0 if report.ok else 1
    columns = ["split", f"{data.kind.noun}s", "pictures", "labels", "words", "width", "height", "regions"]
    rows = [_row(split) for split in report.splits]
    # Most data sets have no groups, and a column of dashes would hide the others.
    if any(split.groups for split in report.splits):
        columns.insert(3, "groups")
        rows = [
            (*row[:3], _counts(split.groups), *row[3:])
            for row, split in zip(rows, report.splits, strict=True)
        ]
    table("", columns, rows)
    for finding in report.findings:
        examples = ", ".join(finding.examples) + (", ..." if finding.count > len(finding.examples) else "")
        print(f"{finding.severity}: {finding.what} ({finding.count}): {examples}\n    {finding.advice}")
    counts = {
        name: sum(finding.severity == name for finding in report.findings) for name in ("error", "warning")
    }
    print(f"{counts['error']} error(s), {counts['warning']} warning(s)")
    return 0 if report.ok else 1


def _row(split: "SplitSummary") -> tuple[object, ...]:
    spreads = (split.words, split.widths, split.heights, split.regions)
    return (
        split.split,
        f"{split.examples:,}",
        f"{split.pictures:,}",
        _counts(split.labels),
        *map(_spread, spreads),
    )


def _counts(counts: Mapping[str, int]) -> str:
    """Names with their numbers: all of a few, of many the most frequent ones."""
    shown = (
        sorted(counts.items(), key=lambda pair: -pair[1])[:SHOWN] if len(counts) > MANY else counts.items()
    )
    more = f"  and {len(counts) - SHOWN:,} more" if len(counts) > MANY else ""
    return "  ".join(f"{name} {count:,}" for name, count in shown) + more


def _spread(spread: "Spread | None") -> str:
    """Format minimum, median and maximum."""
    if spread is None:
        return "-"
    low, middle, high = spread
    return f"{low:g}" if low == high else f"{low:g}..{middle:g}..{high:g}"
