"""Compare the scores of new examples with those of before; needs no labels.

For each label, how far the scores have moved; with --policy also the share of each action, and how many
positive examples there seem to be now; with --root and --splits also the lengths of the texts.

try:
  diptych drift runs/a/predictions/dev_seen.npz runs/a/predictions/test_seen.npz --policy policy.yaml
  diptych drift dev.npz week.npz --root memes --splits dev_seen,test_seen
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from diptych.cli.data import chosen_data, node_of_files
from diptych.cli.options import add_data, add_json, add_policy, add_root
from diptych.cli.output import as_json, table
from diptych.cli.policy import model_of_file
from diptych.errors import ConfigError

if TYPE_CHECKING:
    from diptych.calibrate import Drift


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("reference", type=Path, help="prediction file of before, such as that of dev")
    parser.add_argument("live", type=Path, help="prediction file of new examples")
    add_policy(parser)
    add_root(parser, "whose texts are compared, too")
    parser.add_argument("--splits", help="the splits of the two files, as A,B")
    add_data(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    from dataclasses import asdict

    from diptych.calibrate import Policy, drift
    from diptych.ensemble import read_together

    files = [arguments.reference, arguments.live]
    # One without the other would be ignored without a word.
    if (arguments.root is None) != (arguments.splits is None):
        raise ConfigError("--root and --splits belong together: the texts of two splits of a data set.")
    policy = None if arguments.policy is None else Policy.load(arguments.policy)
    texts = None if arguments.root is None else _texts(arguments, files)
    # Together, so that a CSV without names of classes takes those of the other file.
    predictions = read_together(files)
    if policy is not None:
        for path, one in zip(files, predictions, strict=True):
            # Both files: scores of two models differ without any drift.
            policy.require_model(model_of_file(path, one))
    found = drift(*predictions, policy=policy, texts=texts)
    if arguments.json:
        as_json(asdict(found))
        return 0
    _show(found)
    return 0


def _texts(arguments: argparse.Namespace, files: list[Path]) -> tuple[list[str], list[str]]:
    splits = arguments.splits.split(",")
    if len(splits) != len(files):
        raise ConfigError(f"--splits is {arguments.splits!r}; expected two splits, as A,B.")
    data = chosen_data(arguments, arguments.root, *node_of_files(files))
    before, after = (
        # Labels are not read, so live examples need none.
        [pair.text for example in data.open(arguments.root, split) for pair in example.pairs]
        for split in splits
    )
    return before, after


def _show(found: "Drift") -> None:
    shifts = {f"scores of {label}": one for label, one in found.scores.items()}
    shifts |= {} if found.lengths is None else {"length of texts": found.lengths}
    rows = [
        (name, f"{one.stability:.3f}", one.level, f"{one.distance:.3f}", f"{one.p:.2g}")
        for name, one in shifts.items()
    ]
    columns = ("", "stability index", "level", "KS distance", "p")
    table("", columns, rows, numbers=4)
    # One table for both: shares of actions and of positives are read together.
    shares = {
        **found.actions,
        **{f"positive: {label}, estimated": two for label, two in found.prevalence.items()},
    }
    if shares:
        parts = [(name, *(f"{share:.1%}" for share in two)) for name, two in shares.items()]
        table("", ("share", "before", "now"), parts, numbers=2)
