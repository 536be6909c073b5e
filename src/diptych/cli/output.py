"""Output of the verbs: tables, JSON, and a progress bar."""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]], *, numbers: int = 0) -> None:
    """Print a table; the last `numbers` columns are right-aligned."""
    # importing Rich takes 0.1 s; `--help` must not wait for it
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    def plain(value: object) -> Text:
        # Strangers' ids and file names: Rich would read `[red]` as markup, a terminal obeys escape codes.
        return Text(visible(str(value)))

    grid = Table(title=plain(title) if title else None, box=SIMPLE_HEAD, title_justify="left", pad_edge=False)
    for index, name in enumerate(columns):
        right = index >= len(columns) - numbers
        grid.add_column(plain(name), justify="right" if right else "left", no_wrap=right, overflow="fold")
    for row in rows:
        grid.add_row(*map(plain, row))
    console = Console()
    # Piped output has no width, for which Rich takes 80 columns and wraps the rows; logs need them whole.
    Console(width=None if console.is_terminal else 160, highlight=False).print(grid)


def visible(text: str) -> str:
    """Escape control characters other than line feeds, because a terminal would obey them."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in text)


def as_json(values: Any) -> None:
    """Print values as JSON."""
    utf = (sys.stdout.encoding or "utf-8").lower().startswith("utf")
    # for characters outside of the encoding, `guarded` makes the stream write `\x`, which is not JSON
    json.dump(values, sys.stdout, indent=2, ensure_ascii=not utf, default=str)  # `str` is for paths
    print()


@contextmanager
def progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """Show a progress bar on a terminal, nothing elsewhere; yields a function of (done, total)."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)  # stdout is for results
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:
        task = bars.add_task(what, total=None, rate="")

        # The total comes with every call, because a source may learn its size only while it is read.
        def advance(done: int, total: int) -> None:
            speed = bars.tasks[0].speed
            bars.update(
                task,
                completed=done,
                total=total,
                rate=f"{speed:,.{0 if speed >= 10 else 2}f}/s" if speed else "",
            )

        yield advance
