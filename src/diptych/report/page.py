"""A figure with a layout in inches, and text that is wrapped and truncated to fit."""

from bisect import bisect_left
from collections.abc import Callable
from typing import Any, Literal

from jaxtyping import UInt8
from matplotlib.backends.backend_agg import FigureCanvasAgg, RendererAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.patches import FancyBboxPatch, Rectangle
from numpy import ndarray

from diptych.report.style import DPI, INK, PAPER

LONGEST = 400  # longer texts are truncated before they are measured; no place on a page fits more characters


class Page:
    """Draws on a figure. Coordinates are inches from the lower left corner."""

    def __init__(self, figure: Figure, *, width: float, height: float) -> None:
        figure.set_facecolor(PAPER)
        self.axes = figure.add_axes((0, 0, 1, 1))
        self.axes.set_axis_off()
        self.axes.set(xlim=(0, width), ylim=(0, height), autoscale_on=False)
        assert isinstance(figure.canvas, FigureCanvasAgg)
        self.renderer: RendererAgg = figure.canvas.get_renderer()  # type: ignore[no-untyped-call]

    def text(
        self,
        x: float,
        y: float,
        text: str,
        *,
        size: int = 9,
        bold: bool = False,
        color: str = INK,
        align: Literal["left", "center", "right"] = "left",
    ) -> None:
        """Draw one line of text, vertically centered at `y`."""
        self.axes.text(
            x, y, drawable(text), size=size, weight=_weight(bold), color=color, ha=align, va="center_baseline"
        )

    def rectangle(self, left: float, bottom: float, width: float, height: float, *, color: str) -> None:
        self.axes.add_patch(Rectangle((left, bottom), width, height, color=color, linewidth=0))

    def frame(
        self, left: float, bottom: float, width: float, height: float, *, color: str, dashed: bool
    ) -> None:
        """Draw a white card with a colored border."""
        self.axes.add_patch(
            FancyBboxPatch(
                (left, bottom),
                width,
                height,
                boxstyle="round,pad=0,rounding_size=0.07",
                facecolor="white",
                edgecolor=color,
                linewidth=1.8,
                linestyle=(0, (4, 2)) if dashed else "-",
            )
        )

    def picture(
        self, pixels: UInt8[ndarray, "h w 3"], left: float, bottom: float, width: float, height: float
    ) -> None:
        """Draw the whole picture, scaled to fit and centered in the rectangle."""
        rows, columns = pixels.shape[:2]
        scale = min(width / columns, height / rows)
        left += (width - columns * scale) / 2
        bottom += (height - rows * scale) / 2
        extent = (left, left + columns * scale, bottom, bottom + rows * scale)
        # imshow() changes the limits of the axes, which define the layout.
        limits = self.axes.get_xlim(), self.axes.get_ylim()
        self.axes.imshow(pixels, extent=extent, aspect="auto", interpolation="antialiased", zorder=2)
        self.axes.set(xlim=limits[0], ylim=limits[1])

    def fit(self, text: str, width: float, *, size: int = 9, bold: bool = False) -> str:
        """Truncate `text` to one line of at most `width` inches."""
        return "".join(self.wrap(text, width, 1, size=size, bold=bold))

    def wrap(self, text: str, width: float, lines: int, *, size: int = 9, bold: bool = False) -> list[str]:
        """Wrap `text` to at most `lines` lines of `width` inches; an ellipsis replaces the rest."""
        font = FontProperties(size=size, weight=_weight(bold))

        def fits(line: str) -> bool:
            measure: Any = self.renderer.get_text_width_height_descent
            return bool(measure(line, font, ismath=False)[0] <= width * DPI)  # a dollar sign is text

        return wrap(text, fits, lines)


def wrap(text: str, fits: Callable[[str], bool], lines: int) -> list[str]:
    """Wrap `text` at spaces, and inside a word only if the word does not fit on a line.

    Args:
        fits: whether a line is short enough. If it does not fit, longer lines must not fit either.
    """
    # Cut before split(), which would copy all of a huge text; runs of spaces leave enough.
    rest = drawable(" ".join(text[: 4 * LONGEST].split())[:LONGEST])
    wrapped: list[str] = []
    while rest and len(wrapped) < lines:
        # Binary search for the longest prefix that fits, since measuring text is slow.
        end = max(1, bisect_left(range(1, len(rest) + 1), True, key=lambda n: not fits(rest[:n])))
        # The last line may end within a word: an ellipsis follows anyway.
        more = end < len(rest) and len(wrapped) < lines - 1
        if more and (space := rest.rfind(" ", 1, end + 1)) > 0:
            end = space
        wrapped.append(rest[:end].rstrip())
        rest = rest[end:].lstrip()
    if rest and wrapped:
        last = wrapped[-1]
        while last and not fits(f"{last}\N{HORIZONTAL ELLIPSIS}"):
            last = last[:-1].rstrip()
        wrapped[-1] = f"{last}\N{HORIZONTAL ELLIPSIS}"
    return wrapped


def drawable(text: str) -> str:
    """Replace unpaired surrogates, which JSON can hold and fonts refuse, by `?`."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _weight(bold: bool) -> Literal["bold", "normal"]:
    return "bold" if bold else "normal"
