"""Look for what is wrong with a data set before it costs an hour.

Reads every annotation file, opens every picture, looks up every image in the feature store. Exit code 1 when
something is wrong, 0 when there are warnings and notes only.

try:
  diptych check memes
  diptych check memes --features memes/features --json
"""

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from diptych.cli.data import add_data, chosen_data
from diptych.cli.screen import as_json, progress, table

if TYPE_CHECKING:
    from diptych.check import SplitSummary
    from diptych.check.report import Spread


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("root", type=Path, help="folder of a data set")
    parser.add_argument(
        "--features", type=Path, help="a feature store, or boxes.jsonl (default: ROOT/features)"
    )
    parser.add_argument("--splits", help="comma-separated (default: all that are there)")
    add_data(parser)
    parser.add_argument("--json", action="store_true", help="machine-readable")


def run(arguments: argparse.Namespace) -> int:
    from diptych.check import check, picture_files
    from diptych.data import BoxSource, read_boxes
    from diptych.features import FeatureStore
    from diptych.types import RegionSource

    folder = arguments.features
    if folder is None and (arguments.root / "features").is_dir():
        folder = arguments.root / "features"
    data = chosen_data(arguments, arguments.root)
    splits = arguments.splits.split(",") if arguments.splits else None
    source: RegionSource | None = None
    if folder is not None and folder.suffix == ".jsonl":
        source = BoxSource(picture_files(arguments.root, data, splits), given=read_boxes(folder))
    elif folder is not None:
        source = FeatureStore(folder)
    with progress("looking") as advance:
        report = check(
            arguments.root,
            data=data,
            features=source,
            splits=splits,
            progress=advance,
        )
    if arguments.json:
        as_json(asdict(report))
        return 0 if report.ok else 1
    columns = ("split", f"{data.kind.noun}s", "pictures", "labels", "words", "width", "height", "regions")
    table("", columns, [_row(split) for split in report.splits])
    for finding in report.findings:
        examples = ", ".join(finding.examples) + (", ..." if finding.count > len(finding.examples) else "")
        print(f"{finding.severity}: {finding.what} ({finding.count}): {examples}\n    {finding.advice}")
    counts = {name: sum(one.severity == name for one in report.findings) for name in ("error", "warning")}
    print(f"{counts['error']} error(s), {counts['warning']} warning(s)")
    return 0 if report.ok else 1


def _row(split: "SplitSummary") -> tuple[object, ...]:
    labels = "  ".join(f"{name} {count:,}" for name, count in split.labels.items())
    spreads = (split.words, split.widths, split.heights, split.regions)
    return split.split, f"{split.examples:,}", f"{split.pictures:,}", labels, *map(_spread, spreads)


def _spread(spread: "Spread | None") -> str:
    """Smallest to largest, the median between."""
    if spread is None:
        return "-"
    low, middle, high = spread
    return f"{low:g}" if low == high else f"{low:g}..{middle:g}..{high:g}"
