"""Removal curves of explanations."""

from pathlib import Path

from diptych.explain import SHARES, Checked
from diptych.report.style import DASHES, MUTED, SERIES, drawing


def removal_chart(found: Checked, path: Path | str) -> None:
    """Draw the mean deletion and insertion curves of every method as a PNG."""
    with drawing(path, width=8.4, height=3.2) as figure:
        left, right = figure.subplots(1, 2, sharey=True)
        for number, (name, one) in enumerate(found.curves.items()):
            last = number == len(found.curves) - 1  # random orders, against which the others are read
            color = MUTED if last else SERIES[number]
            for axes, curve in ((left, one.deletion), (right, one.insertion)):
                axes.plot(SHARES, curve, color=color, linestyle=DASHES[number], label=name)
        left.set(title="deletion: low is good", xlabel="share hidden, what counts most first")
        right.set(title="insertion: high is good", xlabel="share shown, what counts most first")
        left.set(ylabel="probability of the answer", ylim=(0, 1.02))
        # Where no curve can be: what is shown first only raises the probability.
        right.legend(loc="lower right", fontsize=8)
        figure.tight_layout()
