"""Style of all figures.

The colors are those of Okabe and Ito, which are distinguishable with every kind of color vision. No
information is shown by color alone.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from matplotlib import font_manager, rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from diptych.files import atomic_file

INK, MUTED, LINE, PAPER = "#1d1d22", "#62626d", "#d9d9e0", "#f4f4f7"
RIGHT, WRONG = "#0072B2", "#D55E00"
SERIES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#1d1d22")
# One fewer than colors, so that pairs of color and dash repeat only after 42 lines.
DASHES = ("-", "--", "-.", (0, (1, 1)), (0, (5, 1, 1, 1, 1, 1)), (0, (7, 2)))
DPI = 150
# Fallback order: a character is drawn with the first font that has it.
FONTS = (
    "DejaVu Sans",
    "Noto Sans",
    "Noto Sans CJK JP",
    "Noto Sans Arabic",
    "Noto Sans Devanagari",
    "Symbola",
)
SETTINGS = {
    "font.size": 9,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "lines.linewidth": 1.8,
    "legend.frameon": False,
    "text.parse_math": False,  # a dollar sign is text
    "svg.fonttype": "none",
}


@contextmanager
def drawing(path: Path | str, *, width: float, height: float) -> Iterator[Figure]:
    """Yield a figure of `width` x `height` inches; write it to `path` as PNG if the block succeeds."""
    # Only installed fonts are named: matplotlib warns about every other one.
    installed = set(font_manager.get_font_names())
    fonts = [name for name in FONTS if name in installed] or ["sans-serif"]
    settings: Any = {**SETTINGS, "font.family": fonts}
    with rc_context(settings), warnings.catch_warnings():
        # A character that no installed font has is drawn as a box; users cannot do anything about that.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure = Figure(figsize=(width, height), dpi=DPI)
        # Without pyplot, which keeps figures in memory and may look for a display.
        FigureCanvasAgg(figure)
        yield figure
        with atomic_file(path) as file:
            # Without the version of matplotlib, so that equal figures are equal files.
            figure.savefig(file, format="png", metadata={"Software": None})
