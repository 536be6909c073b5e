"""A page of pictures with the regions that a detector found."""

from collections.abc import Sequence
from math import ceil
from pathlib import Path

from matplotlib.patches import Rectangle

from diptych.errors import ConfigError
from diptych.explain import region_words
from diptych.report.memes import read_picture
from diptych.report.page import Page
from diptych.report.style import INK, LINE, MUTED, SERIES, drawing
from diptych.types import FeatureMeta, Regions

# Lengths in inches.
MARGIN, GAP, TITLE, HEAD = 0.3, 0.3, 0.5, 0.3
CELL, NAMES, LINE_HEIGHT = 4.6, 2.4, 0.17
MOST = 24  # largest number of boxes drawn per picture


def region_page(
    pictures: Sequence[tuple[Path, Regions]],
    path: Path | str,
    *,
    meta: FeatureMeta,
    title: str,
    columns: int = 2,
) -> None:
    """Draw pictures with their boxes, and lists of the detected objects, best first, as one PNG.

    Args:
        pictures: picture files and their regions; at most `MOST` regions per picture are drawn.
        meta: names of classes and attributes. Missing names are replaced by numbers.
    """
    if not pictures:
        raise ConfigError("there is nothing to draw; expected at least one picture.")
    columns = min(columns, len(pictures))
    height = HEAD + max(CELL, MOST * LINE_HEIGHT)
    page_width = 2 * MARGIN + columns * (CELL + NAMES + GAP) - GAP
    page_height = 2 * MARGIN + TITLE + ceil(len(pictures) / columns) * (height + GAP) - GAP
    with drawing(path, width=page_width, height=page_height) as figure:
        page = Page(figure, width=page_width, height=page_height)
        page.text(
            MARGIN, page_height - MARGIN - 0.1, page.fit(title, page_width, size=14), size=14, bold=True
        )
        for number, (picture, regions) in enumerate(pictures):
            left = MARGIN + number % columns * (CELL + NAMES + GAP)
            top = page_height - MARGIN - TITLE - number // columns * (height + GAP)
            _draw(page, picture, regions, meta, left=left, top=top)


def _draw(page: Page, path: Path, regions: Regions, meta: FeatureMeta, *, left: float, top: float) -> None:
    more = f", the best {MOST} drawn" if len(regions) > MOST else ""
    page.text(left, top - HEAD / 2, page.fit(f"{path.name}: {len(regions)} regions{more}", CELL + NAMES))
    pixels = read_picture(path)
    place = left, top - HEAD - CELL
    page.rectangle(*place, CELL, CELL, color=LINE)
    if isinstance(pixels, str):
        page.text(left + CELL / 2, top - HEAD - CELL / 2, pixels, color=MUTED, align="center")
    else:
        page.picture(pixels, *place, CELL, CELL)
    # `Page.picture` centers the picture in its square; the boxes need the same offset.
    width, height = regions.size
    # By the longer side, as `Page.picture` fits the whole picture into the square.
    scale = CELL / max(width, height)
    # Pixels count from the top, the page from the bottom: hence y0 - y below.
    x0, y0 = left + (CELL - width * scale) / 2, top - HEAD - (CELL - height * scale) / 2
    shown = regions.first(MOST)
    for number, (x1, y1, x2, y2) in enumerate(shown.boxes.tolist()):
        color, corner = SERIES[number % len(SERIES)], (x0 + x1 * scale, y0 - y2 * scale)
        size = (x2 - x1) * scale, (y2 - y1) * scale
        page.axes.add_patch(Rectangle(corner, *size, fill=False, edgecolor=color, linewidth=1.3, zorder=3))
        line = top - HEAD - (number + 0.5) * LINE_HEIGHT
        page.rectangle(left + CELL + 0.1, line - 0.05, 0.1, 0.1, color=color)
        text = page.fit(describe(shown, number, meta), NAMES - 0.3, size=8)
        page.text(left + CELL + 0.27, line, text, size=8, color=INK)


def describe(regions: Regions, row: int, meta: FeatureMeta) -> str:
    """Describe a region by attribute, class and confidence, such as `red dog 0.83`."""
    words = region_words(regions, row, meta) or f"region {row + 1}"
    return words if regions.scores is None else f"{words} {regions.scores[row]:.2f}"
