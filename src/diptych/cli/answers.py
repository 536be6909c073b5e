"""Make the list of answers that a model can give, from a split of a data set.

The list has the answers that are the best one of at least --minimum examples, the most frequent first. Its
coverage is the accuracy of a model that always gives the best answer of the list. Training on a data set
that comes with a list of answers uses that one.

try:
  diptych answers DATA answers.json --data vqa --split train+val
  diptych train experiment=vqa/lxmert root=DATA task.answers=answers.json
"""

import argparse
from pathlib import Path

from diptych.cli.data import chosen_data
from diptych.cli.options import add_data, add_overwrite
from diptych.errors import ConfigError
from diptych.files import reserved


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("root", type=Path, help="folder of a data set")
    parser.add_argument(
        "out", type=Path, help="a new file: NAME.json for a JSON list, else one answer per line"
    )
    parser.add_argument("--split", default="train", help="split whose answers are counted (default: train)")
    parser.add_argument("--minimum", type=int, default=9, help="examples per answer, at least (default: 9)")
    add_data(parser)
    add_overwrite(parser, "replace the file if it exists")


def run(arguments: argparse.Namespace) -> int:
    from diptych.data.stream import count_targets
    from diptych.datasets.answer_table import coverage, learn_answers, write_answers

    if arguments.minimum < 1:
        raise ConfigError(f"--minimum is {arguments.minimum}; expected at least 1.")
    options = {"overwrite": arguments.overwrite, "kind": "a list of answers", "inputs": [arguments.root]}
    # Reserved before the split is read, which may take minutes.
    with reserved(arguments.out, **options):
        dataset = chosen_data(arguments, arguments.root).open(arguments.root, arguments.split)
        # Used twice, for the list and for its coverage; columns give each different target once.
        counted = [*count_targets(dataset)]
        answers = learn_answers(counted, arguments.minimum)
        write_answers(arguments.out, answers)
    print(f"wrote {arguments.out}: {len(answers):,} answers. {coverage(answers, counted)}.")
    return 0
