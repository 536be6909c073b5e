"""Everything that is measured: `make bench`, or `python -m bench NAME ...` for some of it.

Every module here without an underscore has `rows()`, which yields (what, ours, the other way, ratio) as it
goes, and a fifth cell, made by `promise`, where a limit is promised. The other way is plain code or another
library doing the same work, or the floor that the hardware sets (FLOPs, bytes); ratio is how many times
faster (or smaller) ours is. Promises that are missed are listed at the end; the exit code is 1 then.
"""

import os
import platform
import sys
import time
import traceback
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

from bench._timing import MISSED
from rich.console import Console
from rich.table import Table

WIDTH = 150  # of what no terminal shows


def main(wanted: Sequence[str]) -> int:
    """Print one table per module; 1 when a module failed or is unknown."""
    found = sorted(path.stem for path in Path(__file__).parent.glob("*.py") if not path.stem.startswith("_"))
    if unknown := sorted(set(wanted) - set(found)):
        print(f"bench: there is no {', '.join(unknown)}; there are {', '.join(found)}.", file=sys.stderr)
        return 1
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # as the command line does
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # torch's profiler announces itself
    console = Console(highlight=False)
    console = console if console.is_terminal else Console(highlight=False, width=WIDTH)
    began = time.perf_counter()
    console.print(
        f"Python {platform.python_version()}, torch {version('torch')}, {os.cpu_count()} cores, load "
        f"{os.getloadavg()[0]:.1f}. Ratio: how many times faster (or smaller) ours is; above 1 is good."
    )
    problems = [problem for name in wanted or found for problem in measure(name, console)]
    console.print(f"measured in {time.perf_counter() - began:.0f} s, load {os.getloadavg()[0]:.1f}")
    if problems:
        console.print(f"{len(problems)} problem(s):", *problems, sep="\n  ", markup=False)
    else:
        console.print("Every promise is kept.")
    return int(bool(problems))


def measure(name: str, console: Console) -> list[str]:
    """Run one module and print its table; returns what failed and which promises are missed."""
    table = Table(title=name, title_justify="left")
    for column in ("what", "ours", "the other way"):
        table.add_column(column, overflow="fold")
    table.add_column("ratio", justify="right", no_wrap=True)
    table.add_column("promised", no_wrap=True)
    problems: list[str] = []
    try:
        with console.status(f"{name} ..."):
            for row in import_module(f"bench.{name}").rows():
                cells = tuple(map(str, row))
                table.add_row(*cells)
                if not console.is_terminal:  # which would show nothing for minutes
                    print(f"{name}: {' | '.join(cells)}", file=sys.stderr, flush=True)
                if cells[4:] and cells[4].endswith(MISSED):
                    problems.append(f"{name}: {cells[0]}: {cells[1]}; promised {cells[4]}")
    except Exception as error:
        problems.append(f"{name}: failed ({type(error).__name__}: {error})")
        traceback.print_exc()
    console.print(table)
    return problems


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
