"""Everything that is measured: `make bench`, or `python -m bench NAME ...` for some of it.

Every module here without an underscore has `rows()`, which yields (what, ours, the other way, ratio) as it
goes, and a fifth cell, a `Promise`, where a limit is promised. The other way is plain code or another library
doing the same work; ratio is how many times faster (or smaller) ours is. In the end stands every promise that
was missed, and then the exit code is 1.
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

from bench._timing import Promise, Row
from rich.console import Console
from rich.table import Table

WIDTH = 150  # of what no terminal shows


def main(wanted: Sequence[str]) -> int:
    """Print one table per module; 1 when a module failed or is unknown, or a promise was missed."""
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
    rows: list[tuple[str, Row]] = []
    failed = [name for name in wanted or found if not measure(name, console, rows)]
    ended = f"failed: {', '.join(failed)}" if failed else "all measured"
    console.print(f"{ended}; {time.perf_counter() - began:.0f} s, load {os.getloadavg()[0]:.1f}")
    missed = report(console, rows)
    return int(bool(failed or missed))


def measure(name: str, console: Console, rows: list[tuple[str, Row]]) -> bool:
    """Run one module and note its rows; False when it failed."""
    table = Table(title=name, title_justify="left")
    for column in ("what", "ours", "the other way"):
        table.add_column(column, overflow="fold")
    table.add_column("ratio", justify="right", no_wrap=True)
    table.add_column("promised", no_wrap=True)
    good = True
    try:
        with console.status(f"{name} ..."):
            for row in import_module(f"bench.{name}").rows():
                table.add_row(*map(str, row))
                rows.append((name, row))
    except Exception:
        good = False
        traceback.print_exc()
    console.print(table)
    return good


def report(console: Console, rows: Sequence[tuple[str, Row]]) -> int:
    """Print how many promises were kept, and each that was not; the number of those."""
    promised = [(name, row, row[-1]) for name, row in rows if isinstance(row[-1], Promise)]
    missed = [(name, row, promise) for name, row, promise in promised if not promise.kept]
    console.print(f"promises: {len(promised) - len(missed)} of {len(promised)} kept")
    for name, row, promise in missed:
        console.print(f"MISSED {name}: {row[0]}: {row[1]}, {row[3]}; promised {promise.limit}", markup=False)
    return len(missed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
