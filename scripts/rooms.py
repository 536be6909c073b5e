"""Draw the rooms of the package and who may import whom, from `.importlinter` and the docstrings.

python scripts/rooms.py          write docs/images/rooms.svg
"""

import ast
import configparser
import re
import sys
import textwrap
from html import escape
from pathlib import Path

ROOT = Path(__file__).parent.parent
PICTURE = ROOT / "docs" / "images" / "rooms.svg"
WIDTH, GAP, LINE, LETTERS = 1080, 10, 15, 6.1  # pixels; LETTERS is the width of one of the small ones
MODULES = 6  # in one row, so that the longest name fits


def layers() -> list[list[str]]:
    """The rooms of each layer that exist, the highest layer first."""
    parser = configparser.ConfigParser()
    parser.read(ROOT / ".importlinter", encoding="utf-8")
    lines = parser["importlinter:contract:layers"]["layers"].split("\n")
    found = [re.findall(r"diptych\.(\w+)", line) for line in lines]
    rows = [[room for room in row if source(room) is not None] for row in found]
    merged: list[list[str]] = []
    for row in filter(None, rows):
        alone = [room for room in (*row, *(merged[-1] if merged else ())) if is_folder(room)]
        if (
            merged and not alone and len(merged[-1]) + len(row) <= MODULES
        ):  # single modules of several layers in one row, to save space
            merged[-1] += row
        else:
            merged.append(row)
    return merged


def is_folder(room: str) -> bool:
    path = source(room)
    return path is not None and path.name == "__init__.py"


def source(room: str) -> Path | None:
    package = ROOT / "src" / "diptych"
    places = (package / room / "__init__.py", package / f"{room}.py")
    return next((place for place in places if place.exists()), None)


def description(room: str) -> str:
    """The first sentence of the room's docstring."""
    path = source(room)
    assert path is not None
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return re.split(r"(?<=\.) |\n\n", text)[0].replace("\n", " ").rstrip(".:") if is_folder(room) else ""


def picture() -> str:
    """The SVG. A room imports only from rows below; of modules that share a row, only from later ones."""
    parts, top = [], GAP
    for row in layers():
        width = (WIDTH - GAP * (len(row) + 1)) / len(row)
        texts = [textwrap.wrap(description(room), int((width - 16) / LETTERS)) for room in row]
        height = 28 + LINE * max(map(len, texts)) + 2 * any(texts)
        for place, (room, lines) in enumerate(zip(row, texts, strict=True)):
            left = GAP + place * (width + GAP)
            kind = "name" if is_folder(room) else "module"
            parts.append(
                f'<rect x="{left:.0f}" y="{top}" width="{width:.0f}" height="{height}" rx="6"/>'
                f'<text class="{kind}" x="{left + 8:.0f}" y="{top + 19}">{room}</text>'
            )
            for number, line in enumerate(lines):
                y = top + 36 + number * LINE
                parts.append(f'<text x="{left + 8:.0f}" y="{y}">{escape(line)}</text>')
        top += height + GAP
    style = (
        "rect{fill:#f4f6f8;stroke:#8a97a6}text{font:12px Helvetica,Arial,sans-serif;fill:#1d2733}"
        ".name,.module{font-weight:bold}.name{font-size:14px}"
    )
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {top}" width="{WIDTH}" role="img">'
    title = "<title>The rooms of diptych; each imports only from the rows below</title>"
    back = f'<rect width="{WIDTH}" height="{top}" style="fill:#fff;stroke:none"/>'
    return "\n".join([head, title, f"<style>{style}</style>", back, *parts, "</svg>", ""])


if __name__ == "__main__":
    PICTURE.write_text(picture(), encoding="utf-8")
    sys.stdout.write(f"wrote {PICTURE.relative_to(ROOT)}\n")
