"""Show versions, devices and extras, and what each missing extra is needed for."""

import argparse

from diptych.cli.options import add_json
from diptych.cli.output import as_json


def configure(parser: argparse.ArgumentParser) -> None:
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    from diptych.doctor import diagnose

    # Imports of broken packages are caught there: this verb must work where nothing else does.
    diagnosis = diagnose()
    if arguments.json:
        as_json(diagnosis.as_dict())
        return 0
    for line in diagnosis.lines():
        print(line)
    return 0
