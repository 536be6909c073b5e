"""Check the audit log of `diptych serve --audit`: was a line changed, removed or put in?

It names the first line that breaks the chain, over all files of the folder. Lines cut off at the end are not
noticed: note the last checksum elsewhere and compare.

try:
  diptych audit-log verify audit/
"""

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from diptych.cli.options import add_json


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=("verify",), help="what to do")
    parser.add_argument("folder", type=Path, help="the folder of the log")
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    from diptych.serve.audit import verify

    # 1 and not 2: the log was read, and what it says is that it was changed.
    found = verify(arguments.folder)
    if arguments.json:
        # `str` for the path of the broken line.
        print(json.dumps(asdict(found), default=str))
        return 1 if found.broken else 0
    if found.broken:
        path, line, why = found.broken
        print(f"{path}:{line}: {why}. The {found.lines} lines before it are in order.")
        return 1
    # Old files may have been removed on purpose; then only what is left can be checked.
    begin = "from the first line on" if found.whole else "earlier files are not here"
    print(f"{found.lines} lines in {found.files} files are in order, {begin}; last {found.last}")
    return 0
