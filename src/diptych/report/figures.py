"""Curves of classifiers and training runs."""

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from numpy import ndarray

from diptych.errors import ConfigError, FormatError, nearest
from diptych.evaluate import Binary, Evaluation, Options, evaluate, with_targets
from diptych.metrics import measure_named, precision_recall_points, roc_points
from diptych.predictions import Predictions
from diptych.report.style import DASHES, MUTED, SERIES, WRONG, drawing
from diptych.types import Dataset

Points = list[tuple[float, float]]
NOT_METRICS = ("step", "epoch", "lr", "time", "second", "seconds", "speed")  # words in names of other columns


def curves(
    named_predictions: Mapping[str, Predictions],
    targets: Mapping[str, Any] | Dataset,
    path: Path | str,
    *,
    positive: str | None = None,
    subset: bool = False,
    samples: int = 2000,
    seed: int = 0,
) -> None:
    """Draw the ROC, precision-recall and reliability curves of several classifiers as one PNG.

    The legend shows each name with its AUROC and 95 % interval. Reliability is drawn for probabilities only.
    For the other arguments see `diptych.evaluate.evaluate`.

    Raises:
        ConfigError: there is nothing to draw.
        FormatError: as in `evaluate`, or the gold targets have a single class.
    """
    if not named_predictions:
        raise ConfigError("there is nothing to draw; expected at least one set of predictions.")
    with drawing(path, width=12.6, height=4.7 + 0.22 * len(named_predictions)) as figure:
        grid = figure.add_gridspec(
            1, 3, left=0.05, right=0.985, top=0.95, bottom=1 - 4.2 / figure.get_figheight(), wspace=0.2
        )
        axes = [figure.add_subplot(grid[0, column]) for column in range(3)]
        lines, labels = [], []
        for number, (name, predictions) in enumerate(named_predictions.items()):
            result = evaluate(
                predictions,
                targets,
                form="binary",
                positive=positive,
                subset=subset,
                samples=samples,
                seed=seed,
            )
            if result.positives in (0, result.count):
                raise FormatError(f"{name}: all {result.count} examples have one class; curves need both.")
            # `evaluate` returns numbers only; the curves need the joined scores.
            joined, gold = with_targets(predictions, targets, subset=subset)
            shown = Binary([joined], gold, Options(positive=positive))
            lines.append(_plot_classifier(axes, shown.truth, shown.scores[0], result, line_style(number)))
            labels.append(_legend(name, result))
        unit_square(axes[0], "ROC", "false-positive rate", "true-positive rate", diagonal=True)
        unit_square(axes[1], "Precision and recall", "recall", "precision", diagonal=False)
        x, y = f"predicted probability of {result.positive}", f"share of {result.positive}"
        unit_square(axes[2], "Reliability", x, y, diagonal=True)
        figure.legend(lines, labels, loc="lower left", bbox_to_anchor=(0.04, 0.01), handlelength=3.4)


def history(
    metrics: Path | str | Sequence[Mapping[str, Any]],
    path: Path | str,
    *,
    metric: str | None = None,
    best: Literal["max", "min"] | None = None,
    title: str = "",
) -> None:
    """Draw the losses and one validation metric of a training run over steps, and mark the best value.

    Args:
        metrics: the `metrics.csv` of a run, or its rows; values may be missing or empty.
        metric: column to draw; None means the first that is not a loss, step, learning rate or time.
        best: whether higher (`max`) or lower (`min`) is better; None infers it from the name.

    Raises:
        FormatError: there is nothing to draw.
        ConfigError: there is no such column.
    """
    rows = metrics if isinstance(metrics, Sequence) and not isinstance(metrics, str) else _read_rows(metrics)
    series = _series(rows)
    losses = {name: points for name, points in series.items() if "loss" in name.lower()}
    others = [name for name in series if name not in losses and not _is_clock(name)]
    if metric is not None and metric not in series:
        raise ConfigError(
            f"there is no metric {metric!r}; the run has {tuple(series)}.{nearest(metric, series)}"
        )
    metric = metric or next(iter(others), None)
    if not losses and metric is None:
        raise FormatError(
            f"{_where(metrics)}: no loss and no metric found; expected the metrics.csv of a training run."
        )
    panels = bool(losses) + (metric is not None)
    with drawing(path, width=5.4 * panels + 0.4, height=3.9) as figure:
        axes = figure.subplots(1, panels, sharex=True, squeeze=False)[0]
        if losses:
            for number, (name, points) in enumerate(losses.items()):
                # Many markers would hide the line.
                marker = "o" if len(points) <= 40 else ""
                axes[0].plot(
                    *zip(*points, strict=True),
                    marker=marker,
                    markersize=3.5,
                    label=name,
                    **line_style(number),
                )
            axes[0].set(title="Loss", xlabel="step")
            axes[0].legend()
        if metric is not None:
            _plot_metric(axes[-1], metric, series[metric], best)
        if title:
            figure.suptitle(title, x=0.02, ha="left", weight="bold", size=12)
        figure.tight_layout()


def _plot_classifier(
    axes: Sequence[Axes],
    truth: Bool[ndarray, " N"],
    scores: Float[ndarray, " N"],
    result: Evaluation,
    line: Mapping[str, Any],
) -> Line2D:
    roc, recall, reliability = axes
    (drawn,) = roc.plot(*roc_points(truth, scores), **line)
    # In steps: precision is not linear between two thresholds, so a straight line would flatter.
    recall.plot(*precision_recall_points(truth, scores), drawstyle="steps-post", **line)
    recall.axhline(float(truth.mean()), color=MUTED, linewidth=1, linestyle=":")  # chance
    probabilities = [each.probability for each in result.reliability]
    frequencies = [each.frequency for each in result.reliability]
    reliability.plot(probabilities, frequencies, marker="o", markersize=4, **line)
    return drawn


def line_style(number: int) -> dict[str, Any]:
    return {"color": SERIES[number % len(SERIES)], "linestyle": DASHES[number % len(DASHES)]}


def _legend(name: str, result: Evaluation) -> str:
    auroc = result.metrics["auroc"]
    parts = [f"AUROC {auroc.value:.3f} ({auroc.low:.3f} to {auroc.high:.3f})"]
    parts.append(f"average precision {result.metrics['average_precision'].value:.3f}")
    if "calibration_error" in result.metrics:
        parts.append(f"calibration error {result.metrics['calibration_error'].value:.3f}")
    shown = name if len(name) <= 48 else f"{name[:47]}\N{HORIZONTAL ELLIPSIS}"
    return f"{shown}:  {',  '.join(parts)}"


def unit_square(axes: Axes, title: str, x: str, y: str, *, diagonal: bool) -> None:
    if diagonal:
        axes.plot((0, 1), (0, 1), color=MUTED, linewidth=1, linestyle=":", zorder=1)
    axes.set(title=title, xlabel=x, ylabel=y, xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")


def _plot_metric(axes: Axes, name: str, points: Points, best: str | None) -> None:
    steps, values = zip(*points, strict=True)
    axes.plot(steps, values, color=SERIES[0], marker="o", markersize=3.5)
    # Without the prefix `val/` of the log.
    higher = best == "max" if best else measure_named(name.rpartition("/")[2]).higher
    top = int(np.argmax(values) if higher else np.argmin(values))
    axes.plot(steps[top], values[top], marker="*", markersize=15, color=WRONG, markeredgecolor="white")
    axes.set(title=f"{name}: best {values[top]:.4g} at step {steps[top]:g}", xlabel="step")
    axes.margins(y=0.12)


def _read_rows(path: Path | str) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8-sig") as file:
        return list(csv.DictReader(file))


def _series(rows: Sequence[Mapping[str, Any]]) -> dict[str, Points]:
    """Points (step, value) of every numeric column; rows without a step use their row number."""
    series: dict[str, Points] = {}
    for number, row in enumerate(rows):
        step = _finite(row.get("step"))
        for name, text in row.items():
            if (value := _finite(text)) is not None:
                # Empty cells are left out: losses and validations are on different lines.
                series.setdefault(name, []).append((float(number) if step is None else step, value))
    return series


def _finite(text: Any) -> float | None:
    try:
        value = float(text)
    except (TypeError, ValueError):
        return None
    return value if math.isfinite(value) else None


def _is_clock(name: str) -> bool:
    return any(word in name.lower().replace("/", "_").split("_") for word in NOT_METRICS)


def _where(metrics: Path | str | Sequence[Mapping[str, Any]]) -> str:
    return str(metrics) if isinstance(metrics, Path | str) else f"{len(metrics)} rows"
