"""The best candidates of some queries of a retrieval, with the right ones marked, as a PNG and as a page."""

import base64
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np
from PIL import Image

from diptych.files import atomic_file
from diptych.predict import Retrieval, Sides
from diptych.report.memes import CHECK, read_picture
from diptych.report.page import Page
from diptych.report.style import INK, LINE, MUTED, PAPER, RIGHT, drawing

TOP = 5  # candidates per query
NAMES = {"image": "images", "text": "texts", "source": "source sentences", "target": "target sentences"}
# Lengths in inches.
MARGIN, GAP, PAD, CELL, PICTURE, LABEL, TITLE, HEADING = 0.35, 0.16, 0.08, 2.15, 1.5, 0.3, 0.75, 0.5
LINES, LINE_HEIGHT = 7, 0.18
THUMBNAIL = (300, 220)  # largest size of a picture on the page, in pixels


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """A query or a candidate.

    Args:
        image: picture file; None for a text, and for a picture that the data set does not name.
        text: shown if it is not empty.
        label: rank and score of a candidate; rank of the right one of a query.
        right: whether this is a right candidate.
    """

    image: Path | None
    text: str
    label: str
    right: bool = False


def retrieval_page(found: Retrieval, folder: Path, *, queries: int = 6) -> None:
    """Write `top.png` and `top.html` with the best candidates of some queries in both directions.

    The queries are spread evenly over the split, so they are neither the best nor the worst ones. The page
    holds its pictures itself.

    Args:
        queries: number of queries of each direction.
    """
    sections = {
        direction: [*_rows(found, side, queries)] for side, direction in enumerate(found.sides.directions)
    }
    _draw(folder / "top.png", found, sections)
    with atomic_file(folder / "top.html", "w", encoding="utf-8") as file:
        file.writelines(_page(found, sections))


def _rows(found: Retrieval, side: int, queries: int) -> Iterator[list[Item]]:
    """Each query with its best candidates.

    Args:
        side: 0 for queries of the left side, 1 for those of the right one.
    """
    sides, direction = found.sides, found.sides.directions[side]
    rankings, ranks = found.rankings[direction], found.ranks[direction]
    assert rankings.rankings is not None and rankings.scores is not None
    number = {key: place for place, key in enumerate(sides.ids[1 - side])}
    count = len(sides.ids[side])
    for query in np.linspace(0, count - 1, min(queries, count)).round().astype(int).tolist():
        yield [
            _item(found, side, query, label=f"right one at rank {ranks[query]:,}"),
            *(
                _item(
                    found,
                    1 - side,
                    number[key],
                    label=f"{place}   {score:.2f}",
                    right=_belong(sides, side, query, number[key]),
                )
                for place, (key, score) in enumerate(
                    zip(rankings.rankings[query][:TOP], rankings.scores[query], strict=False), 1
                )
            ),
        ]


def _belong(sides: Sides, side: int, query: int, candidate: int) -> bool:
    left, right = (query, candidate) if side == 0 else (candidate, query)
    return bool(sides.owners[right] == left)


def _item(found: Retrieval, side: int, number: int, *, label: str, right: bool = False) -> Item:
    if side == 1:
        return Item(image=None, text=found.sides.right[number], label=label, right=right)
    pair = found.sides.left[number]
    key = pair.image if isinstance(pair.image, str) else None
    image = None if key is None else found.images.get(key)
    # A picture that is not there is named by its key.
    return Item(image=image, text=pair.text or (str(key) if image is None else ""), label=label, right=right)


def _titles(found: Retrieval, direction: str) -> tuple[str, str]:
    """Heading of a direction, and its measures."""
    query, _, candidate = direction.partition("_to_")
    measures = found.measures[direction]
    recalls = "   ".join(
        f"R@{name.removeprefix('recall@')} {100 * one.value:.1f} %"
        for name, one in measures.items()
        if name.startswith("recall@")
    )
    shown = f"{recalls}   median rank {measures['median_rank'].value:g}"
    return f"{NAMES[query].capitalize()} to {NAMES[candidate]}", shown


def _summary(found: Retrieval) -> str:
    rows, columns = found.sides.shape
    left, right = (NAMES[name] for name in found.sides.names)
    return f"{rows:,} {left} by {columns:,} {right}. {CHECK} and a blue frame mark right candidates."


def _draw(path: Path, found: Retrieval, sections: dict[str, list[list[Item]]]) -> None:
    row = PICTURE + LABEL + 2 * PAD
    width = 2 * MARGIN + (TOP + 1) * (CELL + GAP) - GAP
    rows = sum(map(len, sections.values()))
    height = 2 * MARGIN + TITLE + len(sections) * HEADING + rows * (row + GAP)
    with drawing(path, width=width, height=height) as figure:
        page = Page(figure, width=width, height=height)
        top = height - MARGIN
        page.text(MARGIN, top - 0.14, f"The best {TOP} candidates", size=17, bold=True)
        page.text(MARGIN, top - 0.5, _summary(found), color=MUTED)
        top -= TITLE
        for direction, lines in sections.items():
            heading, measures = _titles(found, direction)
            page.text(MARGIN, top - HEADING / 2, heading, size=12, bold=True)
            page.text(width - MARGIN, top - HEADING / 2, measures, color=MUTED, align="right")
            top -= HEADING
            for items in lines:
                for place, item in enumerate(items):
                    _draw_cell(page, item, MARGIN + place * (CELL + GAP), top, row, query=place == 0)
                top -= row + GAP


def _draw_cell(page: Page, item: Item, left: float, top: float, height: float, *, query: bool) -> None:
    if not query:
        color = RIGHT if item.right else LINE
        page.frame(left, top - height, CELL, height, color=color, dashed=False)
    inner, width = left + PAD, CELL - 2 * PAD
    sign = f"{CHECK} " if item.right else ""
    color = RIGHT if item.right else MUTED
    page.text(inner, top - PAD - LABEL / 2, f"{sign}{item.label}", bold=item.right, color=color)
    top -= LABEL + PAD
    pixels = None if item.image is None else read_picture(item.image)
    room = PICTURE
    if pixels is not None and item.text:  # a sentence with its picture
        room = PICTURE * 0.55
    if isinstance(pixels, str):
        page.text(inner + width / 2, top - room / 2, pixels, color=MUTED, align="center")
    elif pixels is not None:
        page.picture(pixels, inner, top - room, width, room)
    if item.text:
        start = top if pixels is None else top - room - PAD
        lines = LINES if pixels is None else 3
        for number, line in enumerate(page.wrap(item.text, width, lines)):
            page.text(inner, start - (number + 0.5) * LINE_HEIGHT, line, color=INK)


STYLE = f"""
body {{ font: 15px/1.4 system-ui, sans-serif; color: {INK}; background: {PAPER}; margin: 2rem; }}
h2 {{ margin: 2rem 0 .2rem; }} p {{ color: {MUTED}; margin: 0 0 .8rem; }}
.row {{ display: grid; grid-template-columns: repeat({TOP + 1}, minmax(8rem, 1fr)); gap: .8rem; }}
.row {{ margin-bottom: 1rem; }}
.item {{ background: white; border: 1px solid {LINE}; border-radius: .4rem; padding: .5rem; }}
.query {{ background: none; border-color: transparent; }}
.right {{ border: 4px solid {RIGHT}; }}
.label {{ color: {MUTED}; font-size: .85em; }} .right .label {{ color: {RIGHT}; font-weight: bold; }}
img {{ width: 100%; height: 9rem; object-fit: contain; }}
"""


def _page(found: Retrieval, sections: dict[str, list[list[Item]]]) -> Iterator[str]:
    """A page that needs no other file; texts of strangers are escaped."""
    yield '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>Retrieval</title>'
    yield f"<style>{STYLE}</style></head><body>\n<h1>The best {TOP} candidates</h1>"
    yield f"<p>{escape(_summary(found))}</p>\n"
    for direction, rows in sections.items():
        heading, measures = _titles(found, direction)
        yield f"<h2>{escape(heading)}</h2><p>{escape(measures)}</p>\n"
        for items in rows:
            yield f'<div class="row">{"".join(_cells(items))}</div>\n'
    yield "</body></html>\n"


def _cells(items: Sequence[Item]) -> Iterator[str]:
    for place, item in enumerate(items):
        kind = "item right" if item.right else "item" if place else "item query"
        sign = f"{CHECK} right, " if item.right else ""
        picture = "" if item.image is None else _embedded(item.image)
        yield (
            f'<div class="{kind}"><div class="label">{sign}{escape(item.label)}</div>'
            f"{picture}<div>{escape(item.text)}</div></div>"
        )


def _embedded(path: Path) -> str:
    """The picture as part of the page, or the reason why it cannot be read."""
    pixels = read_picture(path)
    if isinstance(pixels, str):
        return f"<div>({escape(pixels)})</div>"
    small = Image.fromarray(pixels)
    small.thumbnail(THUMBNAIL)
    stream = io.BytesIO()
    small.save(stream, "JPEG", quality=85)
    data = base64.b64encode(stream.getvalue()).decode()
    return f'<img alt="{escape(path.name)}" src="data:image/jpeg;base64,{data}">'
