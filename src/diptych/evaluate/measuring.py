"""Joins predictions with gold targets on ids and measures them according to their form of decision."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from diptych.errors import ConfigError, FormatError, first_five, nearest
from diptych.evaluate.answers import Answers
from diptych.evaluate.binary import Binary
from diptych.evaluate.boxes import Boxes
from diptych.evaluate.choices import Choices
from diptych.evaluate.classes import Classes
from diptych.evaluate.form import Form, Options, mean_measure
from diptych.evaluate.labels import Labels
from diptych.evaluate.results import Comparison, Difference, Estimate, Evaluation, GroupEstimate
from diptych.evaluate.translations import Translations
from diptych.metrics.uncertainty import row_interval
from diptych.predictions import Predictions
from diptych.types import Dataset

# Narrow forms come first: boxes also have answers, and labels and choices also have scores of classes.
FORMS: dict[str, type[Form]] = {
    "translations": Translations,
    "boxes": Boxes,
    "answers": Answers,
    "labels": Labels,
    "choices": Choices,
    "binary": Binary,
    "classes": Classes,
}
"""Forms by name. For predictions without an explicit form, the first one that fits is used."""


def evaluate(
    predictions: Predictions,
    targets: Mapping[str, Any] | Dataset,
    *,
    form: str | None = None,
    positive: str | None = None,
    threshold: float = 0.5,
    fold: bool = False,
    groups: Mapping[str, str | None] | None = None,
    subset: bool = False,
    samples: int = 2000,
    seed: int = 0,
) -> Evaluation:
    """Measure predictions against gold.

    Args:
        targets: targets by example id, or a data set whose examples have targets. A target is a class name or
            index, scores by label or answer, the number of a pair, or a box.
        form: name in `FORMS`. None uses the form stored in the predictions, else the first one that fits.
        positive: positive class, by default the second of two; all other classes are negative.
        threshold: smallest score that is decided positive.
        fold: compat: fold translations to ASCII as MM-BERT does; see `diptych.metrics.fold`.
        groups: group of each example id, such as a country; by default the groups of the data set.
        subset: measure only the examples that have both a prediction and a target.
        samples: number of bootstrap resamples per interval.

    Raises:
        FormatError: examples lack a prediction or target, a target does not fit the form, or a score is nan.
    """
    groups = _groups(targets) if groups is None else groups
    predictions, gold = with_targets(predictions, targets, subset=subset)
    options = Options(positive=positive, threshold=threshold, fold=fold)
    kind = form_of(predictions, gold, options, form)
    compared = as_compared(predictions, targets)
    whole = FORMS[kind]([compared], gold, options)
    by_group = {}
    for group, rows in _rows_by_group(predictions.ids, groups).items():
        # In the form of the whole: the few targets of a group might look like another form.
        part = FORMS[kind]([compared.select(rows)], [gold[row] for row in rows], options)
        # The main measure alone: intervals of all measures in all groups would take minutes.
        main = _estimate(part, next(iter(part.measures)), samples, seed)
        by_group[group] = GroupEstimate(value=main.value, low=main.low, high=main.high, count=len(rows))
    breakdown = _breakdown(predictions, targets, samples, seed)
    return Evaluation(
        name=_name(predictions, "predictions"),
        form=kind,
        count=len(gold),
        metrics={name: _estimate(whole, name, samples, seed) for name in whole.measures}
        # What has no title of its own joins the main table.
        | breakdown.pop("", {}),
        breakdown=breakdown,
        samples=samples,
        seed=seed,
        by_group=by_group,
        **whole.facts(),
        **whole.details(),
    )


def compare(
    first: Predictions,
    second: Predictions,
    targets: Mapping[str, Any] | Dataset,
    *,
    form: str | None = None,
    positive: str | None = None,
    threshold: float = 0.5,
    fold: bool = False,
    subset: bool = False,
    samples: int = 2000,
    seed: int = 0,
) -> Comparison:
    """Measure two sets of predictions for the same examples, and test whether they differ.

    For arguments and errors see `evaluate`. The permutation tests exchange predictions of the same example
    between the two sets, so scores must be on the same scale, such as probabilities. DeLong's test, which is
    used for the AUROC of two classes, does not need that.
    """
    first, gold = with_targets(first, targets, subset=subset)
    second, _ = with_targets(second, targets, subset=subset)
    options = Options(positive=positive, threshold=threshold, fold=fold)
    kind = form_of(first, gold, options, form)
    # Both are in the order of the targets, but with `subset` they may cover different examples.
    pair = [as_compared(one, targets) for one in (first, second.align(first.ids))]
    # One form over both sets, so that intervals and tests take the same rows of each.
    both = FORMS[kind](pair, gold, options)
    metrics = {}
    for name, measure in both.measures.items():
        values = both.value(name, 0), both.value(name, 1)
        low, high = row_interval(measure, both.strata, sets=2, samples=samples, seed=seed)
        metrics[name] = Difference(
            first=values[0],
            second=values[1],
            difference=values[0] - values[1],
            low=low,
            high=high,
            p=both.p_value(name, samples=samples, seed=seed),
        )
    names = _name(first, "first"), _name(second, "second")
    # File names are enough for the table unless they are equal.
    if Path(names[0]).name != Path(names[1]).name:
        names = Path(names[0]).name, Path(names[1]).name
    return Comparison(
        first=names[0],
        second=names[1],
        form=kind,
        count=len(gold),
        metrics=metrics,
        samples=samples,
        seed=seed,
        **both.facts(),
    )


def with_targets(
    predictions: Predictions, targets: Mapping[str, Any] | Dataset, *, subset: bool = False
) -> tuple[Predictions, list[Any]]:
    """Join predictions and targets on ids; both are returned in the order of the gold targets.

    Raises:
        FormatError: examples lack a prediction or a target; names their number and the first ones.
    """
    predictions = predictions.unique()
    # Examples without a label cannot be measured, and no prediction of them is asked for.
    gold = {key: target for key, target in _targets(targets).items() if target is not None}
    predictions = predictions.spelled_like(gold)
    predicted = set(predictions.ids)
    both = [key for key in gold if key in predicted]
    name = _name(predictions, "predictions")
    # Without any common example, the error says what is missing even if a subset would do.
    if not subset or not both:
        _require_none([key for key in gold if key not in predicted], f"{name}: no prediction")
        _require_none([key for key in predictions.ids if key not in gold], f"{name}: no target")
    if not both:
        raise FormatError(f"{name}: there is no example to evaluate.")
    rows = {key: row for row, key in enumerate(predictions.ids)}
    return predictions.select([rows[key] for key in both]), [gold[key] for key in both]


def _targets(targets: Mapping[str, Any] | Dataset) -> Mapping[str, Any]:
    if isinstance(targets, Mapping):
        return targets
    return {example.id: example.target for example in (targets[index] for index in range(len(targets)))}


def _groups(targets: Mapping[str, Any] | Dataset) -> Mapping[str, str | None]:
    if isinstance(targets, Mapping):
        return {}
    return {example.id: example.group for example in (targets[index] for index in range(len(targets)))}


def _rows_by_group(ids: Sequence[str], groups: Mapping[str, str | None]) -> dict[str, list[int]]:
    rows: dict[str, list[int]] = {}
    for row, key in enumerate(ids):
        if (group := groups.get(key)) is not None:
            rows.setdefault(group, []).append(row)
    return dict(sorted(rows.items()))


def _require_none(missing: Sequence[str], problem: str) -> None:
    if missing:
        first = first_five(missing)
        raise FormatError(
            f"{problem} for {len(missing)} example(s): {first}. Predict the split that is evaluated, use a "
            "split with labels, or allow a subset."
        )


def form_of(predictions: Predictions, gold: Sequence[Any], options: Options, name: str | None) -> str:
    """Name of the form of decision by which predictions are measured: `name`, if it is given."""
    if name is not None and name not in FORMS:
        raise ConfigError(f"there is no form {name!r}; expected one of {tuple(FORMS)}.{nearest(name, FORMS)}")
    # What the caller says, then what the task has recorded, then what fits.
    kind = name or predictions.form
    if kind not in FORMS:  # None, or a form of a newer version
        kind = next((known for known, form in FORMS.items() if form.fits(predictions, gold, options)), None)
    where = _name(predictions, "predictions")
    if kind is None:
        raise FormatError(
            f"{where}: the predictions have no class scores, answers, texts or boxes, so nothing can be "
            "measured."
        )
    scores = predictions.scores
    if scores is not None and (missing := np.flatnonzero(np.isnan(scores).any(axis=1))).size:
        raise FormatError(
            f"{where}: {missing.size} example(s) have nan scores, the first is "
            f"{predictions.ids[missing[0]]}; expected a number for every example."
        )
    return kind


def _estimate(form: Form, name: str, samples: int, seed: int) -> Estimate:
    low, high = row_interval(form.measures[name], form.strata, samples=samples, seed=seed)
    return Estimate(value=form.value(name), low=low, high=high)


def as_compared(predictions: Predictions, targets: Mapping[str, Any] | Dataset) -> Predictions:
    """The answers as the official evaluation of a data set spells them; see `Split.as_compared`."""
    # Plain targets have no official spelling.
    spell: Callable[[Predictions], tuple[str, ...]] | None = getattr(targets, "as_compared", None)
    if spell is None or predictions.answers is None:
        return predictions
    return replace(predictions, answers=spell(predictions))


def _breakdown(
    predictions: Predictions, targets: Mapping[str, Any] | Dataset, samples: int, seed: int
) -> dict[str, dict[str, GroupEstimate]]:
    """The further official measures of a data set; see `Split.breakdown`."""
    measured: Callable[[Predictions], Mapping[str, Any]] | None = getattr(targets, "breakdown", None)
    tables: dict[str, dict[str, GroupEstimate]] = {}
    for title, rows in (measured(predictions) if measured is not None else {}).items():
        tables[title] = {}
        for name, values in rows.items():
            # Units such as groups of examples are drawn as wholes,
            # because their examples depend on each other.
            strata = [np.arange(len(values))]
            low, high = row_interval(mean_measure([values]), strata, samples=samples, seed=seed)
            value = float(values.mean())
            tables[title][name] = GroupEstimate(value=value, low=low, high=high, count=len(values))
    return tables


def _name(predictions: Predictions, otherwise: str) -> str:
    return str(predictions.meta.get("path") or otherwise)
