"""Compute metrics with confidence intervals; compare several files and draw their curves.

try:
  diptych evaluate runs/a/predictions/dev_seen.csv --root memes --split dev_seen
  diptych evaluate a.csv b.csv --root memes --split dev_seen --curves curves.png
"""

import argparse
from pathlib import Path
from typing import Any

from diptych.cli.data import chosen_data, node_of_files
from diptych.cli.options import add_data, add_json, add_overwrite, add_root
from diptych.cli.output import as_json, table
from diptych.errors import ConfigError


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "files", type=Path, nargs="+", help="prediction files; each is compared with the first"
    )
    add_root(parser, required=True)
    parser.add_argument("--split", required=True, help="the split of the predictions")
    parser.add_argument(
        "--answers", type=Path, help="file with withheld labels (default: SPLIT.answers.jsonl)"
    )
    parser.add_argument("--threshold", type=float, default=0.5, help="for accuracy and F1 (default: 0.5)")
    parser.add_argument("--positive", metavar="CLASS", help="positive class (default: the second of two)")
    parser.add_argument("--form", help="form of decision (default: recorded in the files, or detected)")
    parser.add_argument("--samples", type=int, default=2000, help="bootstrap resamples (default: 2000)")
    parser.add_argument("--curves", type=Path, help="draw ROC, precision-recall and calibration as a PNG")
    add_overwrite(parser, "replace the PNG if it exists")
    add_data(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    from diptych.ensemble import read_predictions
    from diptych.evaluate import compare, evaluate
    from diptych.files import require_new, reserved

    if arguments.samples < 1:
        raise ConfigError(f"--samples is {arguments.samples}; expected at least 1.")
    if arguments.curves is not None:
        picture = {"overwrite": arguments.overwrite, "kind": "a PNG picture", "inputs": arguments.files}
        # Before minutes of resampling; `reserved` below looks again.
        require_new(arguments.curves, **picture)
    node, where = node_of_files(arguments.files)  # a table needs the column names that were used in training
    data = chosen_data(arguments, arguments.root, node, where)
    dataset = data.open_labeled(arguments.root, arguments.split, arguments.answers)
    # The different targets are few, so this costs nothing even for millions of examples.
    if not any(target is not None for target, _, _ in dataset.table.targets()):
        raise ConfigError(
            f"{dataset.files[0]}: none of its {len(dataset)} {dataset.noun}s has a label; metrics need them. "
            f"Add --answers FILE{_or_put(data.kind.answers_file(arguments.root, arguments.split))}."
        )
    # With the data set, whose official format the files may have.
    named = {str(path): read_predictions(path, dataset=dataset) for path in arguments.files}
    options: dict[str, Any] = {"threshold": arguments.threshold, "samples": arguments.samples}
    options |= {"form": arguments.form, "positive": arguments.positive or dataset.positive}
    results = {name: evaluate(predictions, dataset, **options) for name, predictions in named.items()}
    first, *others = named  # the first file is the baseline of all comparisons
    comparisons = {name: compare(named[name], named[first], dataset, **options) for name in others}
    if arguments.curves is not None:
        from diptych.report import curves

        with reserved(arguments.curves, **picture):
            curves(named, dataset, arguments.curves, positive=options["positive"])
    if arguments.json:
        as_json(
            {
                "results": {name: result.as_dict() for name, result in results.items()},
                "compared_with_first": {name: result.as_dict() for name, result in comparisons.items()},
            }
        )
        return 0
    for name, result in results.items():
        for title, (columns, rows) in result.tables().items():
            table(
                name if title == result.name else f"{name}, {title}", columns, rows, numbers=len(columns) - 1
            )
        print(result.summary())
    for name, comparison in comparisons.items():
        columns, rows = comparison.table()
        table(f"{name} minus {first}", columns, rows, numbers=len(columns) - 1)
    if arguments.curves is not None:
        print(f"wrote {arguments.curves}")
    return 0


def _or_put(answers: Path | None) -> str:
    return "" if answers is None else f", or put the labels into {answers}"
