"""Look for what is wrong with a data set before it costs an hour.

Reads every annotation file, opens every picture, looks up every image in the feature store. Exit code 1 when
something is wrong, 0 when there are warnings and notes only.

try:
  diptych check memes
  diptych check memes --features memes/features --json
"""

import argparse
from pathlib import Path

from diptych.cli.screen import as_json, progress, table


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("root", type=Path, help="folder of a data set")
    parser.add_argument("--features", type=Path, help="a feature store (default: ROOT/features if it exists)")
    parser.add_argument("--splits", help="comma-separated (default: all that are there)")
    parser.add_argument("--json", action="store_true", help="machine-readable")


def run(arguments: argparse.Namespace) -> int:
    from diptych.check import check
    from diptych.features import FeatureStore

    folder = arguments.features
    if folder is None and (arguments.root / "features").is_dir():
        folder = arguments.root / "features"
    with progress("looking") as advance:
        report = check(
            arguments.root,
            features=None if folder is None else FeatureStore(folder),
            splits=arguments.splits.split(",") if arguments.splits else None,
            progress=advance,
        )
    if arguments.json:
        as_json(report.as_dict())
        return 0 if report.ok else 1
    columns, rows = report.table()
    table("splits", columns, rows, numbers=len(columns) - 1)
    for finding in report.findings:
        print(f"{finding.severity}: {finding}")
    errors = sum(finding.severity == "error" for finding in report.findings)
    warnings = sum(finding.severity == "warning" for finding in report.findings)
    print(f"{errors} error(s), {warnings} warning(s)")
    return 0 if report.ok else 1
