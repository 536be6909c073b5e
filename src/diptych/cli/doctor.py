"""Versions, devices, extras, and what is missing for what."""

import argparse

from diptych.cli.screen import as_json


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="machine-readable")


def run(arguments: argparse.Namespace) -> int:
    from diptych.doctor import diagnose

    diagnosis = diagnose()
    if arguments.json:
        as_json(diagnosis.as_dict())
        return 0
    for line in diagnosis.lines():
        print(line)
    return 0
