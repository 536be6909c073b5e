"""What a cascade saves, and who decides in it."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from diptych.calibrate import CascadeReport
from diptych.report.style import INK, MUTED, RIGHT, SERIES, WRONG, drawing


def cascade_figure(report: CascadeReport, path: Path | str) -> None:
    """Draw two panels as a PNG.

    On the left, misses and wrong blocks of the members alone and of the cascade, with 95 % intervals, their
    costs, and the promised limit. On the right, which share of the examples each member allows, blocks and
    hands on.
    """
    with drawing(path, width=10.4, height=4.4) as figure:
        left, right = figure.subplots(1, 2, width_ratios=(1.25, 1))
        _errors(left, report)
        _shares(right, report)
        figure.tight_layout()


def _errors(axes: Axes, report: CascadeReport) -> None:
    cascade = report.cascade
    rows = {**{f"{name} alone": one for name, one in report.alone.items()}, "cascade": report.result}
    for number, (kind, color, marker) in enumerate((("missed", RIGHT, "o"), ("wrongly_blocked", WRONG, "s"))):
        for place, one in enumerate(rows.values()):
            rate = getattr(one, kind)
            ends = np.maximum([[rate.value - rate.low], [rate.high - rate.value]], 0)
            # Side by side, so that two kinds of errors at one cost do not hide each other.
            at = place + (number - 0.5) * 0.22
            axes.errorbar(
                100 * rate.value,
                at,
                xerr=100 * ends,
                color=color,
                marker=marker,
                markersize=6,
                elinewidth=1.2,
                linestyle="",
                label=kind.replace("_", " ") if not place else None,
            )
    axes.axvline(100 * cascade.max_miss, color=MUTED, linewidth=1, linestyle="--")
    axes.text(100 * cascade.max_miss, -0.62, " promised misses", color=MUTED, ha="left", va="center")
    labels = [f"{name}\n{one.cost.value:.3g} {cascade.unit}" for name, one in rows.items()]
    axes.set_yticks(range(len(rows)), labels)
    axes.set(title="Cost per example, and errors", xlabel="share of the class, %")
    # Upside down, so that the first row is on top.
    axes.set_ylim(len(rows) - 0.4, -0.8)
    axes.set_xlim(left=0)
    axes.legend(loc="lower right")


def _shares(axes: Axes, report: CascadeReport) -> None:
    for place, one in enumerate(report.shares):
        start = 0.0
        # Hatched and written on, for those who see no difference in color.
        handed = one.asked - one.allowed - one.blocked
        parts = (("allows", one.allowed, RIGHT, ""), ("blocks", one.blocked, WRONG, "//"))
        for name, share, color, hatch in (*parts, ("hands on", handed, SERIES[4], "..")):
            label = name if not place else None
            axes.barh(
                place,
                100 * share,
                left=100 * start,
                height=0.5,
                color=color,
                hatch=hatch,
                label=label,
                edgecolor="white",
            )
            # Below, the number is wider than its bar.
            if share > 0.09:
                middle = 100 * (start + share / 2)
                box = {"facecolor": "white", "edgecolor": "none", "pad": 1.5}
                axes.text(middle, place, f"{share:.0%}", ha="center", va="center", color=INK, bbox=box)
            start += share
    axes.set_yticks(range(len(report.shares)), [one.name for one in report.shares])
    axes.set(title="Who decides", xlabel="share of the examples, %", xlim=(0, 100))
    axes.set_ylim(len(report.shares) - 0.3, -0.6)
    axes.legend(loc="lower right")
