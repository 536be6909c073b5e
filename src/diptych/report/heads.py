"""Figures of attention maps: all heads as small maps, and one head with its picture."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jaxtyping import Float, UInt8
from matplotlib.colors import LinearSegmentedColormap, to_rgba
from matplotlib.patches import Rectangle
from numpy import ndarray

from diptych.explain import PairMaps, Place
from diptych.report.memes import read_picture
from diptych.report.page import Page, drawable
from diptych.report.style import INK, LINE, MUTED, drawing
from diptych.report.views import NAMES, blocks

# Lengths in inches.
MARGIN, TITLE, LABEL, THUMBNAIL, SPACE = 0.3, 0.75, 1.15, 0.62, 0.06
CELLS, LETTER, NAME, PICTURE, GAP = (0.17, 0.34), 0.072, 1.7, 5.2, 0.35  # CELLS: least and most
MOST = 40  # rows and columns of the map of one head
HEAT = LinearSegmentedColormap.from_list("heat", ["#ffffff", "#cfa5dd", "#6a1b9a", "#2d0650"])
STRONG = "#6a1b9a"


def heads_figure(pair: PairMaps, path: Path | str, *, view: str, chosen: tuple[int, int], title: str) -> None:
    """Draw a grid of small maps, a row for each layer and a column for each head, as one PNG.

    All maps have one scale, from 0 to the largest weight of the view.

    Args:
        chosen: layer and head with a frame: numbers among the blocks of the view and among the heads.
    """
    shown = blocks(pair, view)
    most = max(len(block.weights) for block in shown)
    step, top = THUMBNAIL + SPACE, float(max(block.weights.max() for block in shown))
    width = max(2 * MARGIN + LABEL + (most + 1) * step, 6.0)
    height = 2 * MARGIN + TITLE + 0.2 + len(shown) * step
    with drawing(path, width=width, height=height) as figure:
        page = Page(figure, width=width, height=height)
        note = f"{NAMES[view]}: rows look at columns; darkest = {top:.0%} of a position's attention"
        _title(page, title, note, width=width, height=height)
        below = height - MARGIN - TITLE - 0.2
        for column in range(most + 1):
            middle = MARGIN + LABEL + column * step + THUMBNAIL / 2
            name = "mean" if column == most else str(column + 1)
            page.text(middle, below + 0.1, name, size=8, color=MUTED, align="center")
        for row, block in enumerate(shown):
            bottom = below - (row + 1) * step + SPACE
            page.text(MARGIN, bottom + THUMBNAIL / 2, page.fit(block.layer.title, LABEL, size=8), size=8)
            # The mean stands in the last column, even beside a layer with fewer heads.
            maps = {**dict(enumerate(block.weights)), most: block.weights.mean(0)}
            for column, weights in maps.items():
                left = MARGIN + LABEL + column * step
                place = (left, bottom, THUMBNAIL, THUMBNAIL)
                _heat(page, weights, place, top, framed=(row, column) == chosen)


def head_figure(pair: PairMaps, path: Path | str, *, view: str, chosen: tuple[int, int], title: str) -> None:
    """Draw the pictures with numbered boxes, and the map of one head with names, as one PNG.

    Boxes are shaded by the mean attention that they get, or give if only they look.
    """
    block = blocks(pair, view)[chosen[0]]
    weights = block.weights[chosen[1]][:MOST, :MOST]
    rows, columns = block.rows[:MOST], block.columns[:MOST]
    names = [[label(pair.places[number]) for number in numbers] for numbers in (rows, columns)]
    # Room for the longest name, in inches; what does not fit is shortened.
    beside, above = (min(NAME, LETTER * max(map(len, some)) + 0.15) for some in names)
    sheets = [_Sheet.of(pair, number) for number in range(len(pair.images))]
    most = max((sheet.height for sheet in sheets), default=0.0)
    cell = min(CELLS[1], max(CELLS[0], (most - above) / len(rows)))
    tall, wide = len(rows) * cell, len(columns) * cell
    left = MARGIN + (PICTURE + GAP if sheets else 0.0) + beside
    width = max(left + wide + MARGIN, 6.0)
    height = 2 * MARGIN + TITLE + max(sum(sheet.height + SPACE for sheet in sheets), tall + above)
    with drawing(path, width=width, height=height) as figure:
        page, top = Page(figure, width=width, height=height), float(weights.max())
        note = f"{block.layer.title}, head {chosen[1] + 1}; {NAMES[view]}; darkest = {top:.0%}"
        _title(page, title, note, width=width, height=height)
        high = height - MARGIN - TITLE
        shares, below = _shares(pair, weights, rows, columns), high
        for number, sheet in enumerate(sheets):
            _picture(page, pair, number, sheet, shares, (MARGIN, below))
            below -= sheet.height + SPACE
        _heat(page, weights, (left, high - above - tall, wide, tall), top, framed=False)
        for row, name in enumerate(names[0]):
            text = page.fit(name, beside - 0.1, size=8)
            page.text(left - 0.07, high - above - (row + 0.5) * cell, text, size=8, align="right")
        for column, name in enumerate(names[1]):
            text, x = page.fit(name, above - 0.1, size=8), left + (column + 0.5) * cell
            page.axes.text(x, high - above + 0.07, text, size=8, rotation=90, ha="center", va="bottom")


@dataclass(frozen=True, slots=True)
class _Sheet:
    """A picture at its size on the figure, in inches; without pixels, the reason."""

    pixels: UInt8[ndarray, "h w 3"] | None
    note: str
    width: float
    height: float

    @classmethod
    def of(cls, pair: PairMaps, number: int) -> "_Sheet":
        pixels = read_picture(pair.images[number])
        if isinstance(pixels, str):
            return cls(None, pixels, PICTURE, 0.75 * PICTURE)
        rows, columns = pixels.shape[:2]
        scale = PICTURE / max(rows, columns)
        return cls(pixels, "", columns * scale, rows * scale)


def label(place: Place) -> str:
    """Name of a position; of a token inside of a word, after a hyphen."""
    name = drawable(f"-{place.name.removeprefix('##')}" if place.joins else place.name)
    return f"{place.number} {name}".strip() if place.number else name


def _title(page: Page, title: str, note: str, *, width: float, height: float) -> None:
    room = width - 2 * MARGIN
    page.text(MARGIN, height - MARGIN - 0.12, page.fit(title, room, size=14, bold=True), size=14, bold=True)
    page.text(MARGIN, height - MARGIN - 0.45, page.fit(note, room), color=MUTED)


def _heat(
    page: Page,
    weights: Float[ndarray, "Q K"],
    place: tuple[float, float, float, float],
    top: float,
    *,
    framed: bool,
) -> None:
    left, bottom, width, height = place
    limits = page.axes.get_xlim(), page.axes.get_ylim()
    page.axes.imshow(
        weights,
        extent=(left, left + width, bottom, bottom + height),
        cmap=HEAT,
        vmin=0,
        # A map without any attention would have the range 0 to 0.
        vmax=top or 1,
        aspect="auto",
        interpolation="nearest",
    )
    page.axes.set(xlim=limits[0], ylim=limits[1])  # imshow() changes what defines the layout
    edge, line = (INK, 2.2) if framed else (LINE, 0.6)
    page.axes.add_patch(
        Rectangle((left, bottom), width, height, fill=False, edgecolor=edge, linewidth=line, zorder=3)
    )


def _shares(
    pair: PairMaps, weights: Float[ndarray, "Q K"], rows: Sequence[int], columns: Sequence[int]
) -> dict[int, float]:
    """Mean attention that each region gets; where only regions look, the mean that they give."""
    if any(pair.places[number].side == "regions" for number in columns):
        return dict(zip(columns, weights.mean(0).tolist(), strict=True))
    return dict(zip(rows, weights.mean(1).tolist(), strict=True))


def _picture(
    page: Page,
    pair: PairMaps,
    number: int,
    sheet: _Sheet,
    shares: dict[int, float],
    corner: tuple[float, float],
) -> None:
    """Draw a picture and its boxes; `corner` is the upper left one."""
    left, high = corner
    page.rectangle(left, high - sheet.height, sheet.width, sheet.height, color=LINE)
    if sheet.pixels is None:
        middle = left + sheet.width / 2, high - sheet.height / 2
        page.text(*middle, sheet.note, color=MUTED, align="center")
    else:
        page.picture(sheet.pixels, left, high - sheet.height, sheet.width, sheet.height)
    # The scale begins anew for each picture, so that its strongest box is always visible.
    mine = [n for n, place in enumerate(pair.places) if place.box and place.picture == number]
    top = max([shares.get(n, 0.0) for n in mine], default=0.0) or 1.0
    for n in sorted(mine, key=lambda n: shares.get(n, 0.0)):  # the strongest last, above the others
        _box(page, pair.places[n], sheet, shares.get(n, 0.0) / top, corner)


def _box(page: Page, place: Place, sheet: _Sheet, strength: float, corner: tuple[float, float]) -> None:
    x1, y1, x2, y2 = place.box or (0, 0, 0, 0)
    # Boxes count from the top, the page from the bottom.
    left, high = corner[0] + x1 * sheet.width, corner[1] - y1 * sheet.height
    wide, tall = (x2 - x1) * sheet.width, (y2 - y1) * sheet.height
    color = STRONG if strength > 0.5 else "white"
    fill = to_rgba(STRONG, 0.6 * strength)
    page.axes.add_patch(
        Rectangle((left, high - tall), wide, tall, facecolor=fill, edgecolor=color, linewidth=1.2, zorder=3)
    )
    ground = STRONG if strength > 0.5 else "#000000aa"
    frame = {"facecolor": ground, "edgecolor": "none", "pad": 1}
    page.axes.text(left, high, str(place.number), size=7, color="white", va="top", zorder=4, bbox=frame)
