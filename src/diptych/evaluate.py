"""Predictions and gold to numbers that say how far they can be trusted.

    evaluation = evaluate(predictions, gold)             one classifier
    comparison = compare(first, second, gold)            is the first better on the same examples?

Both join on ids, judge one class against the rest, and give plain JSON values and the cells of a table.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from diptych.errors import FormatError
from diptych.metrics.classification import (
    ReliabilityBin,
    accuracy,
    auroc,
    average_precision,
    brier,
    calibration_error,
    class_index,
    f1,
    reliability,
)
from diptych.metrics.uncertainty import (
    Metric,
    bootstrap_interval,
    delong_test,
    paired_interval,
    permutation_test,
)
from diptych.predictions import Predictions
from diptych.types import Dataset

Cells = tuple[tuple[str, ...], list[tuple[str, ...]]]
"""Column titles, and the rows below them."""

TITLES = {
    "auroc": "AUROC",
    "average_precision": "average precision",
    "accuracy": "accuracy",
    "f1": "F1",
    "calibration_error": "calibration error",
    "brier": "Brier score",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A measured value and its 95 % bootstrap interval; nan where the measure is undefined."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A measure of two classifiers, first minus second with its 95 % bootstrap interval, and a p-value.

    `p` is two-sided: DeLong's test for AUROC, a permutation test for every other measure.
    """

    first: float
    second: float
    difference: float
    low: float
    high: float
    p: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """How good a classifier is at telling `positive` from the rest.

    Args:
        metrics: by name, AUROC first; calibration error and Brier score only of probabilities.
        confusion: number of true and false positives and negatives at `threshold`.
        reliability: ten bins of about equally many examples; empty unless scores are probabilities.
        samples: resamples behind every interval, drawn from `seed`.
    """

    name: str
    positive: str
    threshold: float
    count: int
    positives: int
    metrics: Mapping[str, Estimate]
    confusion: Mapping[str, int]
    reliability: tuple[ReliabilityBin, ...]
    samples: int
    seed: int

    def __getitem__(self, name: str) -> Estimate:
        """The metric of this name."""
        return self.metrics[name]

    @property
    def prevalence(self) -> float:
        """Share of positives in [0, 1]."""
        return self.positives / self.count

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values; undefined measures are None."""
        return _plain_dict(asdict(self) | {"prevalence": self.prevalence})

    def table(self) -> Cells:
        """One row per metric: title, value, interval."""
        rows: list[tuple[str, ...]] = [
            (TITLES[name], _number(each.value), f"{_number(each.low)} to {_number(each.high)}")
            for name, each in self.metrics.items()
        ]
        return ("metric", "value", "95 % interval"), rows

    def summary(self) -> str:
        """Counts in words."""
        c = self.confusion
        return (
            f"{self.count} examples, {self.positives} {self.positive} ({self.prevalence:.1%}). At threshold "
            f"{self.threshold:g}: {c['true_positive']} found, {c['false_negative']} missed, "
            f"{c['false_positive']} false alarms, {c['true_negative']} rightly passed."
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Two classifiers on the same examples; `metrics` by name, AUROC first."""

    first: str
    second: str
    positive: str
    threshold: float
    count: int
    positives: int
    metrics: Mapping[str, Difference]
    samples: int
    seed: int

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
                TITLES[name],
                _number(each.first),
                _number(each.second),
                _number(each.difference, sign="+"),
                f"{_number(each.low, sign='+')} to {_number(each.high, sign='+')}",
                "< 0.001" if each.p < 0.001 else _number(each.p),
            )
            for name, each in self.metrics.items()
        ]
        return ("metric", self.first, self.second, "difference", "95 % interval", "p"), rows


def evaluate(
    predictions: Predictions,
    targets: Mapping[str, Any] | Dataset,
    *,
    positive: str = "hateful",
    threshold: float = 0.5,
    subset: bool = False,
    samples: int = 2000,
    seed: int = 0,
) -> Evaluation:
    """Measure predictions against gold.

    Args:
        targets: class name or index by example id, or a data set whose examples have targets.
        positive: the class that is to be found; all others count as negative.
        threshold: scores from here on are decided positive.
        subset: measure the examples that have both a prediction and a target, however few.
        samples: resamples behind every interval.

    Raises:
        FormatError: examples lack a prediction or a target, a target is no class, or a score is nan.
    """
    predictions, truth = join(predictions, targets, positive=positive, subset=subset)
    scores = _scores(predictions, positive)
    metrics = {}
    for name, metric in _metrics(threshold, probabilities=_are_probabilities(scores)).items():
        low, high = bootstrap_interval(truth, scores, metric, samples=samples, seed=seed)
        metrics[name] = Estimate(value=metric(truth, scores), low=low, high=high)
    return Evaluation(
        name=_name(predictions, "predictions"),
        positive=positive,
        threshold=threshold,
        count=len(truth),
        positives=int(np.count_nonzero(truth)),
        metrics=metrics,
        confusion=_confusion(truth, scores >= threshold),
        reliability=reliability(truth, scores) if _are_probabilities(scores) else (),
        samples=samples,
        seed=seed,
    )


def compare(
    first: Predictions,
    second: Predictions,
    targets: Mapping[str, Any] | Dataset,
    *,
    positive: str = "hateful",
    threshold: float = 0.5,
    subset: bool = False,
    samples: int = 2000,
    seed: int = 0,
) -> Comparison:
    """Measure two predictions of the same examples against gold, and whether they differ.

    Arguments and errors as in `evaluate`. The permutation tests exchange scores between the two, so both must
    be on one scale, as probabilities are; DeLong's test of the AUROC needs no such thing.
    """
    first, truth = join(first, targets, positive=positive, subset=subset)
    second, _ = join(second, targets, positive=positive, subset=subset)
    pair = _scores(first, positive), _scores(second.align(first.ids), positive)
    metrics = {}
    probabilities = all(map(_are_probabilities, pair))
    for name, metric in _metrics(threshold, probabilities=probabilities).items():
        values = [metric(truth, scores) for scores in pair]
        low, high = paired_interval(truth, *pair, metric, samples=samples, seed=seed)
        if metric is auroc:
            p = delong_test(truth, *pair).p
        else:
            p = permutation_test(truth, *pair, metric, samples=samples, seed=seed)
        metrics[name] = Difference(
            first=values[0], second=values[1], difference=values[0] - values[1], low=low, high=high, p=p
        )
    names = _name(first, "first"), _name(second, "second")
    if Path(names[0]).name != Path(names[1]).name:
        names = Path(names[0]).name, Path(names[1]).name
    return Comparison(
        first=names[0],
        second=names[1],
        positive=positive,
        threshold=threshold,
        count=len(truth),
        positives=int(np.count_nonzero(truth)),
        metrics=metrics,
        samples=samples,
        seed=seed,
    )


def join(
    predictions: Predictions, targets: Mapping[str, Any] | Dataset, *, positive: str, subset: bool = False
) -> tuple[Predictions, Bool[ndarray, " N"]]:
    """Predictions in the order of the gold, and which of them are `positive`.

    Raises:
        FormatError: says how many examples lack a prediction or a target, and the first of them.
    """
    predictions = predictions.unique()
    gold = {key: target for key, target in _targets(targets).items() if target is not None}
    predictions = predictions.spelled_like(gold)
    predicted = set(predictions.ids)
    both = [key for key in gold if key in predicted]
    name = _name(predictions, "predictions")
    if not subset or not both:
        _require_none([key for key in gold if key not in predicted], f"{name}: no prediction")
        _require_none([key for key in predictions.ids if key not in gold], f"{name}: no target")
    if not both:
        raise FormatError(f"{name}: there is no example to evaluate.")
    classes = predictions.classes or ()
    truth = [class_index(gold[key], classes, where=f"example {key}") for key in both]
    rows = {key: row for row, key in enumerate(predictions.ids)}
    predictions.column(positive)  # the error for a class that does not exist names those that do
    return predictions.select([rows[key] for key in both]), np.array(truth) == classes.index(positive)


def _targets(targets: Mapping[str, Any] | Dataset) -> Mapping[str, Any]:
    if isinstance(targets, Mapping):
        return targets
    return {example.id: example.target for example in (targets[index] for index in range(len(targets)))}


def _require_none(missing: Sequence[str], problem: str) -> None:
    if missing:
        first = f"{', '.join(missing[:5])}{', ...' if len(missing) > 5 else ''}"
        raise FormatError(
            f"{problem} for {len(missing)} example(s): {first}. Predict the split that is evaluated, use one "
            "with labels, or allow a subset."
        )


def _scores(predictions: Predictions, positive: str) -> Float[ndarray, " N"]:
    scores = predictions.column(positive)
    if (missing := np.flatnonzero(np.isnan(scores))).size:
        raise FormatError(
            f"{_name(predictions, 'predictions')}: {missing.size} score(s) are nan, the first that of "
            f"{predictions.ids[missing[0]]}; expected a number for every example."
        )
    return scores


def _are_probabilities(scores: Float[ndarray, " N"]) -> bool:
    return bool(((scores >= 0) & (scores <= 1)).all())


def _metrics(threshold: float, *, probabilities: bool) -> dict[str, Metric]:
    def decided(metric: Metric) -> Metric:
        return lambda truth, scores: metric(truth, scores >= threshold)

    metrics: dict[str, Metric] = {
        "auroc": auroc,
        "average_precision": average_precision,
        "accuracy": decided(accuracy),
        "f1": decided(f1),
    }
    return metrics | ({"calibration_error": calibration_error, "brier": brier} if probabilities else {})


def _confusion(truth: Bool[ndarray, " N"], decided: Bool[ndarray, " N"]) -> dict[str, int]:
    return {
        "true_positive": int(np.count_nonzero(truth & decided)),
        "false_positive": int(np.count_nonzero(~truth & decided)),
        "true_negative": int(np.count_nonzero(~truth & ~decided)),
        "false_negative": int(np.count_nonzero(truth & ~decided)),
    }


def _name(predictions: Predictions, otherwise: str) -> str:
    return str(predictions.meta.get("path") or otherwise)


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
