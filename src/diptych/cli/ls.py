"""List experiments, models and other settings.

try:
  diptych ls                  everything, one line each
  diptych ls model            one group
"""

import argparse

from diptych import conf
from diptych.cli.options import add_json
from diptych.cli.output import as_json
from diptych.errors import ConfigError, nearest

GROUPS = {
    "experiment": "diptych train experiment=NAME root=FOLDER",
    "model": "diptych train model=NAME ...",
    "data": "data=NAME",
    "task": "task=NAME",
    "optim": "optim=NAME",
    "schedule": "schedule=NAME",
    "averaging": "averaging=NAME",
    "trainer": "trainer=NAME",
    "debug": "debug=NAME",
    "study": "diptych study run NAME root=FOLDER",
}


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("group", nargs="?", help=f"one of {', '.join(GROUPS)} (default: all)")
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    if arguments.group is not None and arguments.group not in GROUPS:
        raise ConfigError(f"there is no group {arguments.group!r}.{nearest(arguments.group, GROUPS)}")
    groups = [arguments.group] if arguments.group else list(GROUPS)
    # From the first lines of the YAML files; composing them would import Hydra.
    summaries = {group: {name: conf.summary(group, name) for name in conf.names(group)} for group in groups}
    if arguments.json:
        as_json(summaries)
        return 0
    for group, entries in summaries.items():
        print(f"{group}   ({GROUPS[group]})")
        # Aligned per group, or one long name would push all texts to the right.
        width = max(map(len, entries), default=0)
        for name, text in entries.items():
            print(f"  {name:<{width}}  {text}".rstrip())
        print()
    return 0
