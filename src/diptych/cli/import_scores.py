"""Import the answers of another program, such as a prompted model or a moderation service, as a member.

FILE has one JSON object per line: id, and p (a probability), logprobs (log-probabilities of yes and no),
verdict and confidence, or results (of OpenAI's moderation, also its batch files). Several lines of one id
become their mean log-odds. model, prompt, price and seconds of the lines are recorded; the prompt as a hash.

try:
  diptych import-scores vlm.jsonl --as llama-guard --root memes --split dev_seen
  diptych import-scores answers.jsonl --as omni --root memes --split dev_seen --categories hate,harassment
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from diptych.cli.data import chosen_data
from diptych.cli.options import add_data, add_out, add_overwrite, add_root
from diptych.errors import ConfigError, first_five

if TYPE_CHECKING:
    from diptych.ensemble import Imported


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, help="JSON with one answer per line")
    parser.add_argument("--as", dest="name", metavar="NAME", required=True, help="what the member is called")
    add_root(parser, required=True)
    parser.add_argument("--split", required=True, help="the split of the answers")
    parser.add_argument(
        "--categories", metavar="NAMES", help="of a moderation service, comma-separated (default: all)"
    )
    add_out(parser, "a new .npz file (default: NAME_SPLIT.npz)")
    add_overwrite(parser, "replace the file if it exists")
    add_data(parser)


def run(arguments: argparse.Namespace) -> int:
    from diptych.ensemble import read_foreign
    from diptych.files import require_name, reserved

    name = require_name(arguments.name, "--as")
    out = arguments.out or Path(f"{name}_{arguments.split}.npz")
    # Before the file is read.
    if out.suffix != ".npz":
        raise ConfigError(
            f"--out is {out}; expected a name that ends in .npz, which records where the scores are from."
        )
    options = {"overwrite": arguments.overwrite, "kind": "a prediction file", "inputs": [arguments.file]}
    # The name becomes part of a file's, hence `require_name` above.
    with reserved(out, **options):
        dataset = chosen_data(arguments, arguments.root).open(arguments.root, arguments.split)
        # Yes and no are two answers; of more classes, they do not say which.
        if len(dataset.labels) != 2 or dataset.positive is None:
            raise ConfigError(f"{dataset.name} is not of two classes; answers of yes or no need two.")
        # Answers are about the positive class; the other one is what remains.
        [negative] = (label for label in dataset.labels if label != dataset.positive)
        found = read_foreign(
            arguments.file,
            dataset.ids,
            name=name,
            classes=(negative, dataset.positive),
            categories=tuple(arguments.categories.split(",")) if arguments.categories else (),
            about={"split": dataset.split, "data": dataset.node},
        )
        found.predictions.save(out)
    _show(found)
    print(f"wrote {out}: {len(found.predictions)} examples")
    return 0


def _show(found: "Imported") -> None:
    count, meta = len(found.predictions), found.predictions.meta
    print(f"{found.rows} answers ({found.form}) on {count} examples")
    spread = [*meta["spread"].values()]
    if spread:
        print(
            f"{len(spread)} examples have several answers; the standard deviation of their log-odds is "
            f"{sum(spread) / len(spread):.2f} in the mean"
        )
    if found.bounded:
        print(
            f"{found.bounded} answers list one of yes and no; the least log-probability stands for the other"
        )
    if not found.recorded:
        print("almost every prompt is another one, so prompts are not recorded")
    origin = meta["imported"]
    for key, unit in (("price", ""), ("seconds", " s")):
        if (total := origin[key]) is not None:
            print(f"{key}: {total:g}{unit} in all, {total / count:.3g}{unit} per example")
    # No error: services refuse some examples, and a blend can do without them.
    if found.lacking:
        print(
            f"{len(found.lacking)} examples of the split have no answer ({first_five(found.lacking)}); blend "
            "with --missing renormalize"
        )
