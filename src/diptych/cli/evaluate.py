"""Compute metrics with confidence intervals; compare several files and draw their curves.

try:
  diptych evaluate runs/a/predictions/dev_seen.csv --root memes --split dev_seen
  diptych evaluate a.csv b.csv --root memes --split dev_seen --curves curves.png
  diptych evaluate without.npz with.npz --root mlt --split test_2016_flickr --cases 20
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from diptych.cli.data import chosen_data, node_of_files
from diptych.cli.options import add_data, add_json, add_overwrite, add_root
from diptych.cli.output import as_json, table
from diptych.errors import ConfigError

if TYPE_CHECKING:
    from diptych.evaluate import Case, Comparison, Evaluation

RECORDS = (".npz", ".csv", ".json", ".jsonl")  # suffixes of prediction files that are no plain sentences


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
    parser.add_argument(
        "--fold", action="store_true", help="compat: fold translations to ASCII as MM-BERT's evaluation does"
    )
    parser.add_argument("--form", help="form of decision (default: recorded in the files, or detected)")
    parser.add_argument("--samples", type=int, default=2000, help="bootstrap resamples (default: 2000)")
    parser.add_argument("--curves", type=Path, help="draw ROC, precision-recall and calibration as a PNG")
    parser.add_argument(
        "--cases",
        type=int,
        metavar="N",
        help="list up to N examples that a file answers better than the first",
    )
    add_overwrite(parser, "replace the PNG if it exists")
    add_data(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    from diptych.ensemble import read_predictions
    from diptych.evaluate import changed_cases, compare, evaluate
    from diptych.files import require_new, reserved

    for name in ("samples", "cases"):
        if (value := getattr(arguments, name)) is not None and value < 1:
            raise ConfigError(f"--{name} is {value}; expected at least 1.")
    if arguments.cases is not None and len(arguments.files) < 2:
        raise ConfigError(f"--cases compares {arguments.files[0]} with other files; name one more.")
    if arguments.curves is not None:
        picture = {"overwrite": arguments.overwrite, "kind": "a PNG picture", "inputs": arguments.files}
        # Before minutes of resampling; `reserved` below looks again.
        require_new(arguments.curves, **picture)
    node, where = node_of_files(arguments.files)  # a table needs the column names that were used in training
    plain = node is None and all(path.suffix not in RECORDS for path in arguments.files)
    data = chosen_data(arguments, arguments.root, node, where, sentences=plain)
    dataset = data.open_labeled(arguments.root, arguments.split, arguments.answers)
    # The different targets are few, so this costs nothing even for millions of examples.
    if not any(target is not None for target, _, _ in dataset.table.targets()):
        raise ConfigError(
            f"{dataset.files[0]}: none of its {len(dataset)} {dataset.noun}s has a label; metrics need them. "
            f"Add --answers FILE{_or_put(data.kind.answers_file(arguments.root, arguments.split))}."
        )
    # With the data set, whose official format the files may have.
    named = {str(path): read_predictions(path, dataset=dataset) for path in arguments.files}
    options = {name: getattr(arguments, name) for name in ("threshold", "samples", "fold", "form")}
    # The data set knows what is to be found; the order of two names does not.
    options["positive"] = arguments.positive or dataset.positive
    results = {name: evaluate(predictions, dataset, **options) for name, predictions in named.items()}
    first, *others = named  # the first file is the baseline of all comparisons
    comparisons = {name: compare(named[name], named[first], dataset, **options) for name in others}
    most = arguments.cases
    cases = {name: changed_cases(named[first], named[name], dataset) for name in others} if most else {}
    if arguments.curves is not None:
        from diptych.report import curves

        with reserved(arguments.curves, **picture):
            curves(named, dataset, arguments.curves, positive=options["positive"])
    # The files may differ in thousands of examples, of which a person reads a few.
    shown = {name: every[:most] for name, every in cases.items()}
    if arguments.json:
        content = {
            "results": {name: result.as_dict() for name, result in results.items()},
            "compared_with_first": {name: result.as_dict() for name, result in comparisons.items()},
        }
        listed = {name: [asdict(one) for one in every] for name, every in shown.items()}
        as_json(content | ({"cases": listed} if most else {}))
        return 0
    _tables(results, comparisons, first)
    for name in cases:
        _list(cases[name], most, (first, name))
    if arguments.curves is not None:
        print(f"wrote {arguments.curves}")
    return 0


def _tables(results: Mapping[str, "Evaluation"], comparisons: Mapping[str, "Comparison"], first: str) -> None:
    for name, result in results.items():
        for title, (columns, rows) in result.tables().items():
            table(
                name if title == result.name else f"{name}, {title}", columns, rows, numbers=len(columns) - 1
            )
        print(result.summary())
    for name, comparison in comparisons.items():
        columns, rows = comparison.table()
        table(f"{name} minus {first}", columns, rows, numbers=len(columns) - 1)


def _list(cases: Sequence["Case"], most: int, names: tuple[str, str]) -> None:
    """Print the examples that the second file answers better, and count those that it answers worse."""
    better = [case for case in cases if case.gain > 0]
    rows = [(case.id, case.text, case.target, case.first, case.second) for case in better[:most]]
    columns = ("example", "text", "right", *(Path(name).stem for name in names))
    if Path(names[0]).stem == Path(names[1]).stem:
        columns = ("example", "text", "right", "first", "second")
    table(f"answered better by {names[1]}", columns, rows)
    print(f"{len(better)} examples are answered better, {len(cases) - len(better)} worse.")


def _or_put(answers: Path | None) -> str:
    return "" if answers is None else f", or put the labels into {answers}"
