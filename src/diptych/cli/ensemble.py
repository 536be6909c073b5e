"""Average prediction files, joined on id.

Reads the .npz and .csv files of diptych, and the csv files of Vilio (log-probabilities, logits).

try:
  diptych ensemble a/test_seen.npz b/test_seen.npz --out average/test_seen.csv
  diptych ensemble a.csv b.csv c.csv --method rank --weights 2,1,1 --out ranks.csv
"""

import argparse
from pathlib import Path

from diptych.cli.screen import table
from diptych.errors import ConfigError

METHODS = ("mean", "power", "rank", "geometric", "logit")


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", type=Path, nargs="+", help="prediction files of one split")
    parser.add_argument("--out", type=Path, required=True, help="a new .csv or .npz file")
    parser.add_argument("--method", choices=METHODS, default="mean", help="default: mean")
    parser.add_argument("--power", type=float, default=2.0, help="exponent of --method power (default: 2)")
    parser.add_argument("--weights", help="comma-separated, one number per file (default: equal)")
    parser.add_argument(
        "--kind",
        choices=("probability", "log_probability", "logit"),
        help="what the numbers of csv files are (default: told from the numbers)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the file if it exists")


def run(arguments: argparse.Namespace) -> int:
    from diptych.ensemble import agreement, blend, read_predictions, write_predictions
    from diptych.files import require_new

    require_new(arguments.out, overwrite=arguments.overwrite)
    members = [read_predictions(path, kind=arguments.kind) for path in arguments.files]
    blended = blend(
        members, method=arguments.method, power=arguments.power, weights=_weights(arguments.weights)
    )
    write_predictions(blended, arguments.out)
    if len(members) > 1:
        matrix = agreement(members)
        rows = [
            (path, *(f"{value:.3f}" for value in row))
            for path, row in zip(arguments.files, matrix, strict=True)
        ]
        columns = ["rank correlation", *(str(number) for number in range(1, len(rows) + 1))]
        table("", columns, rows, numbers=len(rows))
    print(f"wrote {arguments.out}: {len(blended)} examples, {arguments.method} of {len(members)} file(s)")
    return 0


def _weights(text: str | None) -> list[float] | None:
    if text is None:
        return None
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise ConfigError(f"--weights is {text!r}; expected numbers such as 2,1,1.") from None
