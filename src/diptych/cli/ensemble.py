"""Blend prediction files, joined by id.

Reads the .npz and .csv files of diptych, and the .csv files of Vilio (log-probabilities, logits).

The methods mean, power, rank, geometric and logit blend files of one split into one file. The methods
simplex, greedy, loop and stack fit a blend on a labeled split and apply it to all splits. FILES are then
those of all members and splits, or folders of them, and --out is a new folder with FIN_SPLIT.csv and
report.json.

try:
  diptych ensemble a/test_seen.npz b/test_seen.npz --out average/test_seen.csv
  diptych ensemble a.csv b.csv c.csv --method rank --weights 2,1,1 --out ranks.csv
  diptych ensemble runs/*/predictions --method loop --root memes --out blend
  diptych ensemble a.csv vlm_test_seen.npz --method logit --missing renormalize --out average.npz
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from diptych.cli.data import chosen_data
from diptych.cli.options import add_data, add_out, add_overwrite, add_root
from diptych.cli.output import table
from diptych.errors import ConfigError, first_five

if TYPE_CHECKING:
    from diptych.ensemble import FitReport

METHODS = ("mean", "power", "rank", "geometric", "logit")
FITTED = ("simplex", "greedy", "loop", "stack")


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", type=Path, nargs="+", help="prediction files, or folders of them")
    add_out(parser, "a new .csv or .npz file, or a new folder", required=True)
    parser.add_argument("--method", choices=(*METHODS, *FITTED), default="mean", help="default: mean")
    parser.add_argument("--power", type=float, default=2.0, help="exponent of --method power (default: 2)")
    parser.add_argument("--weights", help="comma-separated, one number per file (default: equal)")
    parser.add_argument(
        "--kind",
        choices=("probability", "log_probability", "logit"),
        help="what the numbers of .csv files are (default: detected from their range)",
    )
    add_root(parser, "whose labels the blend is fitted on")
    parser.add_argument("--dev", default="dev_seen", help="split to fit on (default: dev_seen)")
    parser.add_argument(
        "--incomplete",
        choices=("stop", "drop"),
        default="stop",
        help="if a member has no predictions for some split: stop, or drop the member (default: stop)",
    )
    parser.add_argument(
        "--missing",
        choices=("stop", "renormalize"),
        default="stop",
        help="if a member lacks examples: stop, or let the others share its weight there (default: stop)",
    )
    parser.add_argument("--non-negative", action="store_true", help="of --method stack: no negative weights")
    parser.add_argument(
        "--steps", type=int, default=3000, help="evaluations of a simplex search (default: 3000)"
    )
    add_data(parser)
    parser.add_argument("--compat", action="store_true", help="Vilio's arithmetic (mean, simplex, loop)")
    add_overwrite(parser, "replace the result if it exists")


def run(arguments: argparse.Namespace) -> int:
    from diptych.files import reserved

    # Vilio has no other methods, so there is nothing to reproduce.
    if arguments.compat and arguments.method not in ("mean", "simplex", "loop"):
        raise ConfigError(f"--compat with --method {arguments.method}; expected mean, simplex or loop.")
    if arguments.non_negative and arguments.method != "stack":
        raise ConfigError(f"--non-negative with --method {arguments.method}; expected --method stack.")
    if arguments.compat and arguments.missing != "stop":
        raise ConfigError("--compat with --missing renormalize; Vilio needs all examples of every member.")
    if arguments.method in FITTED:
        return _fit(arguments)
    options = {"overwrite": arguments.overwrite, "kind": "a prediction file", "inputs": arguments.files}
    # For the whole of the work, so that two calls cannot write the same file.
    with reserved(arguments.out, **options):
        return _average_as_vilio(arguments) if arguments.compat else _average(arguments)


def _average(arguments: argparse.Namespace) -> int:
    from diptych.ensemble import agreement, blend, read_together, write_predictions

    members = read_together(arguments.files, kind=arguments.kind)
    blended = blend(
        members,
        method=arguments.method,
        power=arguments.power,
        weights=_weights(arguments.weights),
        missing=arguments.missing,
    )
    write_predictions(blended, arguments.out)
    _show_missing("", blended.meta.get("missing", {}), len(blended))
    if len(members) > 1:
        matrix = agreement(members, missing=arguments.missing)  # shows which members add something
        rows = [
            (path, *(f"{value:.3f}" for value in row))
            for path, row in zip(arguments.files, matrix, strict=True)
        ]
        columns = ["rank correlation", *(str(number) for number in range(1, len(rows) + 1))]
        table("", columns, rows, numbers=len(rows))
    print(f"wrote {arguments.out}: {len(blended)} examples, {arguments.method} of {len(members)} file(s)")
    return 0


def _average_as_vilio(arguments: argparse.Namespace) -> int:
    from diptych.ensemble import write_predictions
    from diptych.ensemble.vilio import average_files

    average, files = average_files(arguments.files)
    write_predictions(average, arguments.out)
    # Vilio's dictionary of files overwrites members whose names differ in the last characters only.
    unused = sorted(path.name for path in set(arguments.files) - set(files))
    more = f"; like Vilio, without {', '.join(unused)}" if unused else ""
    print(f"wrote {arguments.out}: {len(average)} examples, raw mean of {len(files)} file(s){more}")
    return 0


def _fit(arguments: argparse.Namespace) -> int:
    from diptych.ensemble import fit_blend, read_members, write_blend
    from diptych.files import atomic_folder, require_new

    options = {"overwrite": arguments.overwrite, "kind": "a blend", "inputs": arguments.files}
    require_new(arguments.out, **options)  # before minutes of fitting, not after them
    if arguments.root is None:
        raise ConfigError(f"--method {arguments.method} fits labels; add --root FOLDER, the data set.")
    if arguments.steps < 1:
        raise ConfigError(f"--steps is {arguments.steps}; expected at least 1.")
    if arguments.weights is not None:
        raise ConfigError(f"--method {arguments.method} fits the weights; remove --weights.")
    # Settings are checked before: opening the data and the files takes longest.
    data = chosen_data(arguments, arguments.root)
    dev = data.open(arguments.root, arguments.dev)
    members = read_members(
        arguments.files,
        kind="raw" if arguments.compat else arguments.kind,  # Vilio blends unconverted numbers
        classes=dev.labels,
        splits=data.splits(arguments.root),
        incomplete=arguments.incomplete,
        missing=arguments.missing,
    )
    blends, report = fit_blend(
        members,
        dev.truth(),
        dev=arguments.dev,
        method=arguments.method,
        steps=arguments.steps,
        compat=arguments.compat,
        non_negative=arguments.non_negative,
    )
    for split, lacking in members.missing.items():
        _show_missing(f" of {split}", lacking, len(blends[split]))
    # One folder, because a blend and the report on its fit belong together.
    with atomic_folder(arguments.out, **options) as folder:
        write_blend(folder, blends, report)
    _show(report)
    print(f"wrote {arguments.out}: {', '.join(f'FIN_{split}.csv' for split in blends)}, report.json")
    return 0


def _show(report: "FitReport") -> None:
    for name, splits in report.dropped.items():
        print(f"dropped {name}: it has no predictions for {', '.join(splits)}")
    for name in report.constant:
        # Usually a broken member, which no number of a blend would show.
        print(f"{name} gives every meme of {report.dev} the same score")
    for number, result in enumerate(report.rounds, 1):
        rows = [
            (name, f"{area:.4f}", f"{result.weights[name]:.3f}" if name in result.weights else "dropped")
            for name, area in result.aurocs.items()
        ]
        columns = (f"round {number}", f"AUROC on {report.dev}", "weight")
        table("", columns, rows, numbers=2)
    name, area = report.best_member
    rows = [("fitted on the same rows", *_interval(report.in_sample))]
    if report.out_of_fold is not None:
        rows.append(("out of fold", *_interval(report.out_of_fold)))
    table("", (f"{report.method} on {report.rows} memes", "AUROC", "95% interval"), rows, numbers=2)
    print(f"best member: {name}, AUROC {area:.4f}")
    if report.out_of_fold is None or report.optimism is None:
        print("no out-of-fold estimate: a class has fewer than two memes")
        return
    print(f"optimism: {report.optimism:+.4f}; on new memes expect the out-of-fold AUROC, not the fitted one")
    # Said plainly: the fitted number alone would always recommend the blend.
    if report.out_of_fold[0] <= area:
        print("out of fold, the blend does not beat its best member")


def _show_missing(of: str, lacking: Mapping[str, Sequence[str]], count: int) -> None:
    for name, ids in lacking.items():
        print(f"{name} lacks {len(ids)} of {count} examples{of} ({first_five(ids)})")


def _interval(measured: tuple[float, float, float]) -> tuple[str, str]:
    value, low, high = measured
    return f"{value:.4f}", f"{low:.4f} to {high:.4f}"


def _weights(text: str | None) -> list[float] | None:
    if text is None:
        return None
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise ConfigError(f"--weights is {text!r}; expected numbers such as 2,1,1.") from None
