"""What a measurement says: estimates with intervals, per class and per group, and differences of two."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from diptych.metrics.classification import ReliabilityBin
from diptych.metrics.measures import measure_named

Cells = tuple[tuple[str, ...], list[tuple[str, ...]]]
"""Column titles, and the rows below them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A measured value and its 95 % bootstrap interval; nan where the measure is undefined."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupEstimate(Estimate):
    """The same of the `count` examples of a group."""

    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A measure of two sets of predictions, first minus second with its 95 % interval, and a p-value.

    `p` is two-sided: DeLong's test for AUROC of two classes, a permutation test for every other measure.
    """

    first: float
    second: float
    difference: float
    low: float
    high: float
    p: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """How good predictions are.

    Args:
        form: name of the kind of decision, in `FORMS`.
        metrics: by name, the main one first; calibration error and Brier score only of probabilities.
        samples: resamples behind every interval, drawn from `seed`.
        by_class: of several classes or labels: number of examples, precision, recall, F1, AUROC of each.
        by_group: the main measure in each group of examples.
        positive: of two classes, and what follows: the one to be found; all others count as negative.
        threshold: scores from here on are decided positive; also of several labels.
        confusion: number of true and false positives and negatives at `threshold`.
        reliability: ten bins of about equally many examples; empty unless scores are probabilities.
    """

    name: str
    form: str
    count: int
    metrics: Mapping[str, Estimate]
    samples: int
    seed: int
    by_class: Mapping[str, Mapping[str, int | float]] = field(default_factory=dict)
    by_group: Mapping[str, GroupEstimate] = field(default_factory=dict)
    positive: str | None = None
    threshold: float | None = None
    positives: int | None = None
    confusion: Mapping[str, int] = field(default_factory=dict)
    reliability: tuple[ReliabilityBin, ...] = ()

    def __getitem__(self, name: str) -> Estimate:
        """The metric of this name."""
        return self.metrics[name]

    @property
    def prevalence(self) -> float | None:
        """Share of positives in [0, 1]."""
        return None if self.positives is None else self.positives / self.count

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values; undefined measures are None."""
        return _plain_dict(asdict(self) | {"prevalence": self.prevalence})

    def table(self) -> Cells:
        """One row per metric: title, value, interval."""
        rows: list[tuple[str, ...]] = [
            (measure_named(name).title, *_cells(each)) for name, each in self.metrics.items()
        ]
        return ("metric", "value", "95 % interval"), rows

    def tables(self) -> dict[str, Cells]:
        """By title: the table of metrics, that of classes, and that of groups, as far as there are such."""
        tables = {self.name: self.table()}
        if self.by_class:
            names = list(next(iter(self.by_class.values())))
            columns = (
                "class",
                *("examples" if name == "count" else measure_named(name).title for name in names),
            )
            tables["per class"] = (
                columns,
                [
                    (
                        label,
                        *(
                            f"{value:d}" if isinstance(value, int) else _number(value)
                            for value in each.values()
                        ),
                    )
                    for label, each in self.by_class.items()
                ],
            )
        if self.by_group:
            main = measure_named(next(iter(self.metrics))).title
            tables[f"{main} per group"] = (
                ("group", "examples", main, "95 % interval"),
                [(group, str(each.count), *_cells(each)) for group, each in self.by_group.items()],
            )
        return tables

    def summary(self) -> str:
        """Counts in words."""
        if self.prevalence is None:
            return f"{self.count} examples."
        c = self.confusion
        return (
            f"{self.count} examples, {self.positives} {self.positive} ({self.prevalence:.1%}). At threshold "
            f"{self.threshold:g}: {c['true_positive']} found, {c['false_negative']} missed, "
            f"{c['false_positive']} false alarms, {c['true_negative']} rightly passed."
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Two sets of predictions for the same examples; fields as in `Evaluation`."""

    first: str
    second: str
    form: str
    count: int
    metrics: Mapping[str, Difference]
    samples: int
    seed: int
    positive: str | None = None
    threshold: float | None = None
    positives: int | None = None

    def __getitem__(self, name: str) -> Difference:
        """The difference in the metric of this name."""
        return self.metrics[name]

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values; undefined measures are None."""
        return _plain_dict(asdict(self))

    def table(self) -> Cells:
        """One row per metric: title, both values, difference, interval, p-value."""
        rows: list[tuple[str, ...]] = [
            (
                measure_named(name).title,
                _number(each.first),
                _number(each.second),
                _number(each.difference, sign="+"),
                f"{_number(each.low, sign='+')} to {_number(each.high, sign='+')}",
                "< 0.001" if each.p < 0.001 else _number(each.p),
            )
            for name, each in self.metrics.items()
        ]
        return ("metric", self.first, self.second, "difference", "95 % interval", "p"), rows


def _cells(estimate: Estimate) -> tuple[str, str]:
    return _number(estimate.value), f"{_number(estimate.low)} to {_number(estimate.high)}"


def _number(value: float, *, sign: str = "") -> str:
    return "undefined" if np.isnan(value) else f"{value:{sign}.4f}"


def _plain_dict(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _plain(value) for key, value in values.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return _plain_dict(value)
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and np.isnan(value) else value
