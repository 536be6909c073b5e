"""Reliability before and after calibration."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from diptych.calibrate import Calibration, LabelReport, Rule
from diptych.metrics import ReliabilityBin, wilson_interval
from diptych.report.figures import line_style, unit_square
from diptych.report.style import MUTED, drawing

SIDE = 4.4  # inches of a panel


def reliability_curves(calibration: Calibration, path: Path | str) -> None:
    """Draw one panel per label as a PNG: frequency against probability, as scored and calibrated.

    Bins have about equal mass, and bars are Wilson's 95 % intervals. Vertical lines are the policy's
    thresholds, as calibrated probabilities.
    """
    reports = calibration.reports
    with drawing(path, width=SIDE * len(reports) + 0.3, height=SIDE) as figure:
        panels = figure.subplots(1, len(reports), squeeze=False)[0]
        for axes, (label, report) in zip(panels, reports.items(), strict=True):
            _panel(axes, label, calibration.policy.labels[label], report)
        figure.tight_layout()


def _panel(axes: Axes, label: str, rule: Rule, report: LabelReport) -> None:
    names = ("as scored", f"{rule.map.method}, held out")
    for number, (name, bins) in enumerate(zip(names, report.curves, strict=True)):
        _curve(axes, name, number, bins)
    for threshold, ha in ((rule.allow, "right"), (rule.block, "left")):
        if threshold is not None:
            # Thresholds that allow or block everything lie a little outside of [0, 1].
            value = float(rule.map(np.clip(np.array([threshold]), 0, 1))[0])
            axes.axvline(value, color=MUTED, linewidth=1)
            # Above the panel: inside of it, points of sure scores lie below the words.
            word = "allow " if ha == "right" else " block"
            axes.annotate(word, (value, 1.01), ha=ha, va="bottom", color=MUTED, annotation_clip=False)
    unit_square(axes, "Reliability", f"probability of {label}", f"share of {label}", diagonal=True)
    axes.set_title(axes.get_title(loc="left"), pad=20)  # above the names of the thresholds
    axes.legend(loc="lower right")


def _curve(axes: Axes, name: str, number: int, bins: Sequence[ReliabilityBin]) -> None:
    shares = np.array([each.frequency for each in bins])
    ends = np.array([wilson_interval(round(each.frequency * each.count), each.count) for each in bins])
    axes.errorbar(
        [each.probability for each in bins],
        shares,
        # Rounding may put a share of 0 or 1 a little outside of its own interval.
        yerr=np.maximum(np.stack((shares - ends[:, 0], ends[:, 1] - shares)), 0),
        marker="o",
        markersize=4,
        elinewidth=1,
        label=name,
        **line_style(number),
    )
