"""Make training views without copies, as Vilio does, and say why each meme is left out.

Writes train.jsonl (without copies, with the new memes of dev_unseen), traindev.jsonl (and dev_seen),
pretrain.jsonl (everything) and report.json into a new folder that links pictures and features of the old one.
The data set stays as it is; a second run changes nothing.

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

SHOWN = 20


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("root", type=Path, help="folder of a data set")
    parser.add_argument("out", type=Path, help="a new folder, or one of an earlier run")
    parser.add_argument(
        "--known", action="store_true", help="leave out the 34 ids of the challenge that Vilio lists"
    )
    parser.add_argument(
        "--near", type=int, default=0, help="leave out pictures that differ in at most so many of 64 bits"
    )
    parser.add_argument("--cache", type=Path, help="file that keeps the hashes (default: OUT/hashes.json)")
    add_data(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    kind = chosen_data(arguments, arguments.root).kind
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
    if report.decisions:
        rows = [
            (one.reason, ", ".join(one.ids), ", ".join(one.dropped) or "-", one.view if one.dropped else "-")
            for one in report.decisions[:SHOWN]
        ]
        table("", ("reason", "memes", "left out", "of"), rows)
    if len(report.decisions) > SHOWN:
        print(f"and {len(report.decisions) - SHOWN} more in {arguments.out / 'report.json'}")
    table("", ("split", "memes"), [(name, f"{n:,}") for name, n in report.given.items()], numbers=1)
    table("", ("view", "memes"), [(name, f"{n:,}") for name, n in report.views.items()], numbers=1)
    print(
        f"{'wrote' if report.changed else 'unchanged:'} {arguments.out}; hashed {report.hashed:,} picture(s)"
    )
    return 0
