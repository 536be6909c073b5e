"""Fetch a bundle from the Hugging Face hub. It is checked before it appears; nothing in it is executed.

try:
  diptych pull hub:me/memes bundles/memes
  diptych pull hub:me/memes@v1 bundles/memes --overwrite
"""

import argparse
from pathlib import Path

from diptych.cli.options import add_overwrite


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", help="hub:owner/name, optionally with @revision")
    parser.add_argument("out", type=Path, help="a new folder")
    add_overwrite(parser, "replace a bundle")


def run(arguments: argparse.Namespace) -> int:
    from diptych.convert import pull_bundle

    print(f"{pull_bundle(arguments.source, arguments.out, overwrite=arguments.overwrite)}: a bundle")
    return 0
