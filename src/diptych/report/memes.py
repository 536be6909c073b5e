"""One page of memes with the scores of every model, the surest mistakes first."""

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.patches import FancyBboxPatch, Rectangle
from numpy import ndarray
from PIL import Image, ImageOps

from diptych.errors import ConfigError, nearest
from diptych.report.style import DPI, INK, LINE, MUTED, PAPER, RIGHT, WRONG, drawing

# inches
MARGIN, GAP, PAD = 0.35, 0.22, 0.12
CARD, PICTURE, HEAD, BAR, LINE_HEIGHT = 3.1, 2.35, 0.34, 0.2, 0.165
TITLE, HEADING = 0.85, 0.42
TEXT_LINES = 3
CHECK, CROSS = "\N{CHECK MARK}", "\N{BALLOT X}"


@dataclass(frozen=True, slots=True, kw_only=True)
class MemeCard:
    """A meme and what models think of it.

    Args:
        image: file of the picture; None, or one that cannot be read, leaves a placeholder.
        target: name of the true class, None if unknown.
        scores: probability of the positive class in [0, 1] by name of the model.
    """

    image: Path | None
    text: str
    target: str | None
    scores: Mapping[str, float]


def meme_page(
    items: Sequence[MemeCard],
    path: Path | str,
    *,
    title: str,
    columns: int = 4,
    by: str | None = None,
    positive: str = "hateful",
    threshold: float = 0.5,
    count: int = 16,
) -> None:
    """Draw the most confident wrong and the most confident right memes as one PNG.

    Args:
        by: model whose decisions sort the memes; None means the first model of the first item.
        threshold: scores from here on are decided positive.
        count: number of memes; half of them wrong ones, where there are enough.

    Raises:
        ConfigError: there is no meme, or one has no score of the model `by`.
    """
    if not items or not items[0].scores:
        raise ConfigError("there is nothing to draw; expected at least one meme with a score.")
    by = by or next(iter(items[0].scores))
    for item in items:
        if by not in item.scores:
            names = tuple(item.scores)
            raise ConfigError(f"a meme has no score of {by!r}; expected one of {names}.{nearest(by, names)}")
    judge = Judge(positive=positive, threshold=threshold)
    sections = _sections(items, judge, by=by, count=count)
    models = list(dict.fromkeys(name for item in items for name in item.scores))
    card_height = HEAD + PICTURE + TEXT_LINES * LINE_HEIGHT + BAR * len(models) + 3 * PAD
    rows = [ceil(len(shown) / columns) for _, shown in sections]
    width = 2 * MARGIN + columns * CARD + (columns - 1) * GAP
    height = MARGIN + TITLE + sum(HEADING + n * (card_height + GAP) for n in rows)
    with drawing(path, width=width, height=height) as figure:
        page = Page(figure, width=width, height=height)
        top = height - MARGIN
        page.text(MARGIN, top, page.fit(title, width - 2 * MARGIN, size=17, weight="bold"), size=17, weight="bold")
        page.text(MARGIN, top - 0.42, _legend(by, positive, threshold), color=MUTED)
        top -= TITLE
        for (heading, shown), lines in zip(sections, rows, strict=True):
            page.text(MARGIN, top, heading, size=12, weight="bold")
            top -= HEADING
            for place, item in enumerate(shown):
                row, column = divmod(place, columns)
                left = MARGIN + column * (CARD + GAP)
                _draw_card(page, item, judge, by=by, models=models, left=left, top=top - row * (card_height + GAP), height=card_height)
            top -= lines * (card_height + GAP)


@dataclass(frozen=True, slots=True, kw_only=True)
class Judge:
    """Which decisions are right."""

    positive: str
    threshold: float

    def is_right(self, item: MemeCard, model: str) -> bool | None:
        """None where the truth is unknown."""
        if item.target is None:
            return None
        return (item.scores[model] >= self.threshold) == (item.target == self.positive)


class Page:
    """A figure whose units are inches from its lower left corner."""

    def __init__(self, figure: Figure, *, width: float, height: float) -> None:
        self.axes: Axes = figure.add_axes((0, 0, 1, 1))
        self.axes.set_axis_off()
        self.axes.set(xlim=(0, width), ylim=(0, height), autoscale_on=False)
        figure.set_facecolor(PAPER)
        assert isinstance(figure.canvas, FigureCanvasAgg)
        self.renderer = figure.canvas.get_renderer()

    def text(self, x: float, y: float, text: str, *, size: float = 9, weight: str = "normal", color: str = INK, align: str = "left", style: str = "normal") -> None:
        """Text whose upper edge is at `y`."""
        self.axes.text(x, y, text, size=size, weight=weight, color=color, ha=align, va="top", style=style)

    def fit(self, text: str, width: float, *, size: float, weight: str = "normal") -> str:
        """`text`, cut to one line of at most `width` inches."""
        return "".join(self.wrap(text, width, 1, size=size, weight=weight))

    def wrap(self, text: str, width: float, lines: int, *, size: float, weight: str = "normal") -> list[str]:
        """`text` in at most `lines` lines of `width` inches; an ellipsis stands for the rest."""
        font = FontProperties(family=None, size=size, weight=weight)

        def fits(line: str) -> bool:
            return self.renderer.get_text_width_height_descent(line, font, ismath=False)[0] <= width * DPI

        return wrap(text, fits, lines)
