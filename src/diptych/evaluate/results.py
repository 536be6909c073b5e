"""Results of an evaluation: estimates with intervals, per class and group, and differences of two sets."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from diptych.metrics.classification import ReliabilityBin
from diptych.metrics.measures import measure_named
from diptych.metrics.uncertainty import percentiles

Cells = tuple[tuple[str, ...], list[tuple[str, ...]]]
"""A table: column titles, and rows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A measured value and its 95 % bootstrap interval; nan where the measure is undefined."""

    value: float
    low: float
    high: float


def estimate(value: float, resampled: Float[ndarray, " S"]) -> Estimate:
    """A value with the interval of its bootstrap resamples."""
    low, high = percentiles(resampled)
    return Estimate(value=value, low=low, high=high)


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupEstimate(Estimate):
    """Estimate for a group of `count` examples."""

    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A measure of two sets of predictions: both values, their difference with a 95 % interval, a p-value.

    `p` is two-sided: DeLong's test for the AUROC of two classes, a permutation test for all other measures.
    """

    first: float
    second: float
    difference: float
    low: float
    high: float
    p: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """Measures of one set of predictions.

    Args:
        form: name of the form of decision, in `FORMS`.
        count: number of examples.
        metrics: estimates by name, the main one first. Calibration error and Brier score need probabilities.
        samples: number of bootstrap resamples per interval, drawn with `seed`.
        by_class: for several classes or labels, number of examples, precision, recall, F1 and AUROC of each.
        by_group: the main measure in each group of examples.
        breakdown: further official measures of the data set, by title of a table and name.
        positive: this and the following fields are for two classes: the positive class.
        threshold: smallest score that is decided positive; also set for multi-label predictions.
        positives: number of positive examples.
        confusion: numbers of true and false positives and negatives at `threshold`.
        reliability: ten bins with about equal numbers of examples; empty unless scores are probabilities.
        signatures: for translations, how sacrebleu computed each measure.
    """

    name: str
    form: str
    count: int
    metrics: Mapping[str, Estimate]
    samples: int
    seed: int
    # Fields of one form only are empty or None in the others, so that one class serves all forms.
    by_class: Mapping[str, Mapping[str, int | float]] = field(default_factory=dict)
    by_group: Mapping[str, GroupEstimate] = field(default_factory=dict)
    breakdown: Mapping[str, Mapping[str, GroupEstimate]] = field(default_factory=dict)
    positive: str | None = None
    threshold: float | None = None
    positives: int | None = None
    confusion: Mapping[str, int] = field(default_factory=dict)
    reliability: tuple[ReliabilityBin, ...] = ()
    signatures: Mapping[str, str] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Estimate:
        """Return the metric of this name."""
        return self.metrics[name]

    @property
    def prevalence(self) -> float | None:
        """Share of positives in [0, 1]."""
        return None if self.positives is None else self.positives / self.count

    def as_dict(self) -> dict[str, Any]:
        """Return JSON values; undefined measures are None."""
        return plain_dict(asdict(self) | {"prevalence": self.prevalence})

    def table(self) -> Cells:
        """Table with one row per metric: title, value, interval."""
        rows: list[tuple[str, ...]] = [
            (measure_named(name).title, *_cells(each)) for name, each in self.metrics.items()
        ]
        return ("metric", "value", "95 % interval"), rows

    def tables(self) -> dict[str, Cells]:
        """Tables by title: metrics, classes and groups, without empty ones."""
        tables = {self.name: self.table()}
        if self.by_class:
            # All classes have the same measures.
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
        main = measure_named(next(iter(self.metrics))).title
        for title, groups in ({f"{main} per group": self.by_group} | dict(self.breakdown)).items():
            if groups:
                tables[title] = (
                    ("group", "examples", title.partition(" per ")[0], "95 % interval"),
                    [(group, str(each.count), *_cells(each)) for group, each in groups.items()],
                )
        return tables

    def summary(self) -> str:
        """Describe the counts in a sentence; for translations, with the signatures of the measures."""
        if self.prevalence is None:
            signed = [f"{measure_named(name).title}: {one}" for name, one in self.signatures.items()]
            return "\n".join([f"{self.count} examples.", *signed])
        c = self.confusion
        return (
            f"{self.count} examples, {self.positives} {self.positive} ({self.prevalence:.1%}). At threshold "
            f"{self.threshold:g}: {c['true_positive']} found, {c['false_negative']} missed, "
            f"{c['false_positive']} false alarms, {c['true_negative']} rightly passed."
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Measures of two sets of predictions for the same examples; for the fields see `Evaluation`."""

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
    signatures: Mapping[str, str] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Difference:
        """Return the difference in the metric of this name."""
        return self.metrics[name]

    def as_dict(self) -> dict[str, Any]:
        """Return JSON values; undefined measures are None."""
        return plain_dict(asdict(self))

    def table(self) -> Cells:
        """Table with one row per metric: title, both values, difference, interval, p-value."""
        rows: list[tuple[str, ...]] = [
            (
                measure_named(name).title,
                _number(each.first),
                _number(each.second),
                _number(each.difference, sign="+"),
                f"{_number(each.low, sign='+')} to {_number(each.high, sign='+')}",
                # 2,000 permutations give no p below 0.0005, so more digits would promise too much.
                "< 0.001" if each.p < 0.001 else _number(each.p),
            )
            for name, each in self.metrics.items()
        ]
        return ("metric", self.first, self.second, "difference", "95 % interval", "p"), rows


def _cells(estimate: Estimate) -> tuple[str, str]:
    return _number(estimate.value), f"{_number(estimate.low)} to {_number(estimate.high)}"


def _number(value: float, *, sign: str = "") -> str:
    # A word, because nan in a table looks like a failure of the program.
    return "undefined" if np.isnan(value) else f"{value:{sign}.4f}"


def plain_dict(values: Mapping[str, Any]) -> dict[str, Any]:
    """JSON values, with None for nan."""
    return {key: _plain(value) for key, value in values.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return plain_dict(value)
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    # JSON has no NaN.
    return None if isinstance(value, float) and np.isnan(value) else value
