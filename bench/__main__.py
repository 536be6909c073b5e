"""Everything that is measured: `make bench`, or `python -m bench NAME ...` for some of it.

Every other module of this folder has `rows()`, which yields (what, ours, other, ratio) as it goes; `other` is
plain code or another library doing the same work.
"""

import sys
import traceback
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from rich.console import Console
from rich.table import Table


def main(wanted: Sequence[str]) -> int:
    """Print one table per module; 1 when a module failed or is unknown."""
    found = sorted(path.stem for path in Path(__file__).parent.glob("*.py") if not path.stem.startswith("_"))
    if unknown := sorted(set(wanted) - set(found)):
        print(f"bench: there is no {', '.join(unknown)}; there are {', '.join(found)}.", file=sys.stderr)
        return 1
    failed = [name for name in wanted or found if not measure(name)]
    return int(bool(failed))


def measure(name: str) -> bool:
    """Run one module; False when it failed."""
    console = Console(highlight=False)
    table = Table("what", "ours", "other", "ratio", title=name, title_justify="left")
    good = True
    try:
        with console.status(f"{name} ..."):
            for row in import_module(f"bench.{name}").rows():
                table.add_row(*map(str, row))
    except Exception:
        good = False
        traceback.print_exc()
    console.print(table)
    return good


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
