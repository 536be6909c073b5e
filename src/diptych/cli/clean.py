"""Make training views without duplicates, as Vilio does, and report why each meme is left out.

Writes to a new folder, which links to the pictures and features of the data set:
  train.jsonl     the training split without duplicates, plus the new memes of dev_unseen
  traindev.jsonl  the same plus dev_seen
  pretrain.jsonl  all memes
  report.json     the reasons
The data set itself stays unchanged. Running it again changes nothing.

try:
  diptych clean memes memes-clean
  diptych clean memes memes-clean --known --near 4
"""

import argparse
from dataclasses import asdict
from pathlib import Path

from diptych.cli.data import chosen_data
from diptych.cli.options import add_data, add_json
from diptych.cli.output import as_json, progress, table

SHOWN = 20  # decisions printed; report.json has all


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("root", type=Path, help="folder of a data set")
    parser.add_argument("out", type=Path, help="a new folder, or one of an earlier run")
    parser.add_argument(
        "--known", action="store_true", help="leave out the 34 ids of the challenge that Vilio lists"
    )
    parser.add_argument(
        "--near", type=int, default=0, help="leave out pictures whose 64-bit hashes differ in at most N bits"
    )
    parser.add_argument("--cache", type=Path, help="file that caches the hashes (default: OUT/hashes.json)")
    add_data(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    # The base class says which data sets can be cleaned.
    kind = chosen_data(arguments, arguments.root).kind
    # Hashes are cached: a second call with other options takes seconds.
    with progress("hashing pictures") as advance:
        report = kind.clean(
            arguments.root,
            arguments.out,
            known=arguments.known,
            near=arguments.near,
            cache=arguments.cache,
            progress=advance,
        )
    if arguments.json:
        as_json(asdict(report))
        return 0
    # Reasons first, sizes last, where a terminal shows them without scrolling.
    if report.decisions:
        rows = [
            (
                decision.reason,
                ", ".join(decision.ids),
                ", ".join(decision.dropped) or "-",
                decision.view if decision.dropped else "-",
            )
            for decision in report.decisions[:SHOWN]
        ]
        table("", ("reason", "memes", "left out", "from view"), rows)
    if len(report.decisions) > SHOWN:
        print(f"and {len(report.decisions) - SHOWN} more in {arguments.out / 'report.json'}")
    table("", ("split", "memes"), [(name, f"{n:,}") for name, n in report.given.items()], numbers=1)
    table("", ("view", "memes"), [(name, f"{n:,}") for name, n in report.views.items()], numbers=1)
    print(
        f"{'wrote' if report.changed else 'unchanged:'} {arguments.out}; hashed {report.hashed:,} picture(s)"
    )
    return 0
