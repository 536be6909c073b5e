"""AUROC and flipped answers under attacks."""

from pathlib import Path

import numpy as np

from diptych.audit.robust import Robustness
from diptych.report.style import MUTED, RIGHT, WRONG, drawing


def attack_chart(found: Robustness, path: Path | str) -> None:
    """Draw AUROC and the share of flipped answers of every attack as a PNG, with intervals."""
    attacks = found.attacks
    rows = np.arange(len(attacks))[::-1]  # the first on top
    with drawing(path, width=9.6, height=1.3 + 0.3 * len(attacks)) as figure:
        left, right = figure.subplots(1, 2, sharey=True)
        panels = (
            (left, "AUROC", RIGHT, "o", [(one.auroc, one.interval) for one in attacks]),
            (right, "answers that flip", WRONG, "s", [(one.flips, one.flips_interval) for one in attacks]),
        )
        for axes, title, color, marker, values in panels:
            middle = np.array([value for value, _ in values])
            # Rounding may put an end of an interval beyond its value.
            reach = np.maximum([(value - low, high - value) for value, (low, high) in values], 0).T
            axes.errorbar(middle, rows, xerr=reach, fmt=marker, color=color, elinewidth=1.2, capsize=2)
            axes.set(title=title, xlim=(-0.02, 1.02))
        # The memes as they are, against which each row is read.
        left.axvline(attacks[0].auroc, color=MUTED, linewidth=1, linestyle=":")
        left.set_yticks(rows, [one.name for one in attacks])
        figure.tight_layout()
