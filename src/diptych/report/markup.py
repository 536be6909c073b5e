"""Parts of HTML pages: escaped text, tables, intervals, and the page around them, without scripts."""

import base64
import math
from collections.abc import Callable, Collection, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory
from unicodedata import category

from diptych.evaluate import Estimate
from diptych.files import atomic_file
from diptych.report.page import drawable

# Neither scripts nor requests: whatever a stranger's text holds, the page can run and fetch nothing.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
WIDTH, LEFT, RIGHT, ROW, BOTTOM = 720, 250, 150, 22, 26  # of a figure of intervals, in pixels
NAME = 42  # characters of a name in a figure


def plain(text: str) -> str:
    """Escape what a stranger wrote; control and formatting characters, which reorder lines, are replaced."""
    shown = "".join(
        "\N{REPLACEMENT CHARACTER}" if category(one) in ("Cc", "Cf") and one not in "\n\t" else one
        for one in drawable(text)
    )
    return escape(shown, quote=True)


def table(head: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: Collection[int] = ()) -> str:
    """A table of escaped cells; `numbers` are the columns of numbers, from 0."""
    cells = "".join(
        f'<th scope="col"{" class=number" * (at in numbers)}>{plain(one)}</th>' for at, one in enumerate(head)
    )
    body = "".join(
        "<tr>" + "".join(_cell(one, number=at in numbers) for at, one in enumerate(row)) + "</tr>"
        for row in rows
    )
    return f"<table><thead><tr>{cells}</tr></thead><tbody>{body}</tbody></table>"


def _cell(text: str, *, number: bool) -> str:
    if number:
        return f'<td class="number">{plain(text)}</td>'
    return f'<td><bdi dir="auto">{plain(text)}</bdi></td>'


def section(title: str, *parts: str) -> str:
    """A section of a page; the parts are HTML."""
    return f"<section><h2>{plain(title)}</h2>{''.join(parts)}</section>"


def paragraph(text: str, *, note: bool = False) -> str:
    """A paragraph of escaped text."""
    return f"<p{' class=note' * note}>{plain(text)}</p>"


def interval(value: Estimate, digits: int = 3) -> str:
    """A value with its interval in words."""
    if math.isnan(value.value):
        return "undefined"
    ends = "" if math.isnan(value.low) else f" [{value.low:.{digits}f}, {value.high:.{digits}f}]"
    return f"{value.value:.{digits}f}{ends}"


def interval_figure(rows: Sequence[tuple[str, Estimate]], title: str, *, chance: float | None = None) -> str:
    """Draw values with their intervals below each other, as SVG; a dashed line marks chance.

    Filled and hollow signs are not needed to read it: every row has its numbers beside it.
    """
    shown = [(name, value) for name, value in rows if not math.isnan(value.value)]
    if not shown:
        return ""
    ends = [end for _, one in shown for end in (one.value, one.low, one.high) if not math.isnan(end)]
    ends += [] if chance is None else [chance]
    # Whole tenths, so that the ticks are at numbers that can be said.
    low, high = math.floor(min(ends) * 10) / 10, math.ceil(max(ends) * 10) / 10
    # A single value at a tenth would divide by 0.
    high = high if high > low else low + 0.1
    width, height = WIDTH - LEFT - RIGHT, ROW * len(shown)

    def at(value: float) -> str:
        return f"{LEFT + (value - low) / (high - low) * width:.1f}"

    steps = round((high - low) * 10)
    ticks = [low + number / 10 for number in range(0, steps + 1, max(1, steps // 5))]
    marks = [
        f'<line class="grid" x1="{at(one)}" x2="{at(one)}" y1="0" y2="{height}"/>'
        f'<text class="tick" x="{at(one)}" y="{height + 16}">{one:.1f}</text>'
        for one in ticks
    ]
    if chance is not None:
        marks.append(f'<line class="chance" x1="{at(chance)}" x2="{at(chance)}" y1="0" y2="{height}"/>')
    for number, (name, one) in enumerate(shown):
        y = ROW * number + ROW / 2
        short = name if len(name) <= NAME else f"{name[: NAME - 1]}\N{HORIZONTAL ELLIPSIS}"
        marks.append(f'<text x="0" y="{y + 4:g}">{plain(short)}</text>')
        if not math.isnan(one.low):
            marks.append(
                f'<line class="reach" x1="{at(one.low)}" x2="{at(one.high)}" y1="{y:g}" y2="{y:g}"/>'
            )
        marks.append(f'<circle cx="{at(one.value)}" cy="{y:g}" r="4"/>')
        marks.append(f'<text x="{WIDTH - RIGHT + 12}" y="{y + 4:g}">{interval(one)}</text>')
    size = f"0 0 {WIDTH} {height + BOTTOM}"
    return (
        f'<figure><svg class="intervals" viewBox="{size}" role="img" aria-label="{plain(title)}">'
        f"{''.join(marks)}</svg><figcaption>{plain(title)}</figcaption></figure>"
    )


def drawn_image(draw: Callable[[Path], None], said: str) -> str:
    """A figure that is drawn into the page itself.

    Args:
        draw: writes a PNG to the path that it gets.
        said: what the figure shows, for people who cannot see it.
    """
    with TemporaryDirectory() as folder:
        place = Path(folder) / "figure.png"
        draw(place)
        data = base64.b64encode(place.read_bytes()).decode()
    return f'<img class="curves" alt="{plain(said)}" src="data:image/png;base64,{data}">'


def write_page(path: Path | str, body: str, *, kind: str, title: str, note: str = "") -> None:
    """Write a page with everything inside.

    Args:
        body: HTML.
        kind: what the page is, in one word; a comment in its second line says so.
        note: below the title.
    """
    style = "".join(
        (files("diptych.report") / f"{name}.css").read_text(encoding="utf-8")
        for name in ("evidence", "markup")
    )
    with atomic_file(path, "w", encoding="utf-8", newline="\n") as file:
        file.write(
            f'<!doctype html>\n<!-- diptych {kind} -->\n<html lang="en"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f'<meta http-equiv="Content-Security-Policy" content="{POLICY}"><title>{plain(title)}</title>'
            f"<style>{style}</style></head><body><header><h1>{plain(title)}</h1>"
            f"{paragraph(note, note=True) if note else ''}</header>{body}</body></html>\n"
        )
