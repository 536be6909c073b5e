"""Predictions under audit: against blind baselines, on confounders, and in slices."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from diptych.audit.blind import Blind
from diptych.audit.sheet import Sheet
from diptych.audit.twins import Twins
from diptych.calibrate import Policy, Slice
from diptych.calibrate.bands import Band
from diptych.calibrate.slices import slices_of
from diptych.ensemble import read_predictions
from diptych.errors import ConfigError, FormatError
from diptych.evaluate import Difference, Estimate, compare, evaluate, with_targets
from diptych.metrics import auroc, delong_test, wilson_interval
from diptych.predictions import Predictions, respell

MANY = 3  # groups of text lengths
HALF: Band = (0.5, 0.5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """One prediction file.

    Args:
        measure: main measure of its form of decision.
        blind: the best blind baseline on this split, and the model minus the baseline, tested on the same
            examples; None without one.
        ordered: by side (`picture`, `text`), the share of pairs of confounders in which the positive one has
            the higher score; `both` are pairs, half of which a model that reads one side would get right.
        slices: of two classes, by length of the text, twins in the training split, groups of the data set and
            groups that were given.
    """

    file: str
    split: str
    count: int
    measure: str
    value: Estimate
    blind: tuple[str, Difference] | None
    ordered: Mapping[str, Estimate]
    slices: tuple[Slice, ...]


def place(path: Path, sheet: Sheet) -> tuple[str, Predictions]:
    """Read a prediction file and find the split whose ids it has.

    Raises:
        FormatError: it has the ids of no split; names the one that fits best.
    """
    # The official formats of a data set are read by any of its splits; an .npz needs none.
    # The longest name first: that of `dev` is part of `dev_unseen`.
    named = next((name for name in sorted(sheet.splits, key=len, reverse=True) if name in path.stem), None)
    predictions = read_predictions(path, dataset=sheet.datasets[named or sheet.splits[-1]]).unique()
    fits: dict[str, int] = {}
    for split, dataset in sheet.datasets.items():
        ids = set(dataset.ids)
        spelled = set(respell(predictions.ids, ids))
        fits[split] = len(spelled & ids)
        # Splits may have the same ids, such as a cleaned view without a change; then the file says which it
        # is.
        if spelled == ids and predictions.meta.get("split") in (None, split):
            return split, predictions.align(dataset.ids)
    best = max(fits, key=lambda split: fits[split])
    said = predictions.meta.get("split")
    raise FormatError(
        f"{path}: its {len(predictions):,} ids are not those of a split of {sheet.root}; {fits[best]:,} "
        f"of them are among the {len(sheet.datasets[best]):,} of {best}"
        + (f", and it says that it is of {said!r}" if said is not None else "")
        + ". Expected predictions of all examples of one split."
    )


def judge(
    path: Path,
    split: str,
    predictions: Predictions,
    twins: Twins,
    blind: Blind,
    *,
    policy: Policy | None = None,
    groups: Mapping[str, Mapping[str, str]] | None = None,
    samples: int = 2000,
) -> Judged:
    """Audit one prediction file.

    Args:
        split: of the predictions; both as `place` returns them.
        policy: whose thresholds slices are measured at; by default a score above one half is positive.
        groups: further groups by column and id.

    Raises:
        FormatError: the predictions do not fit.
        ConfigError: the split has no labels, or the policy is of another model.
    """
    sheet = twins.sheet
    dataset = sheet.datasets[split]
    if sheet.release[split] == "withheld":
        raise ConfigError(
            f"{path}: {split} has no labels, so nothing can be measured. Audit a labeled split."
        )
    if policy is not None:
        policy.require_model(predictions.model)
    result = evaluate(predictions, dataset, positive=dataset.positive, samples=samples)
    measure = next(iter(result.metrics))
    rival = _rival(predictions, blind, sheet, split, samples)
    truth = None
    if result.form == "binary" and result.positive is not None:
        joined, gold = with_targets(predictions, dataset)
        truth = np.array([target == result.positive for target in gold])
        scores = joined.column(result.positive).astype(np.float64)
    return Judged(
        file=str(path),
        split=split,
        count=result.count,
        measure=measure,
        value=result[measure],
        blind=rival,
        ordered={}
        if truth is None
        else _ordered(twins, split, dict(zip(joined.ids, scores, strict=True)), str(result.positive)),
        slices=()
        if truth is None
        else _slices(
            twins, split, joined.ids, scores, truth, policy, str(result.positive), groups or {}, samples
        ),
    )


def _rival(
    predictions: Predictions, blind: Blind, sheet: Sheet, split: str, samples: int
) -> tuple[str, Difference] | None:
    """The best blind baseline of the split, and how far the model is above it."""
    rivals = [one for one in blind.baselines if one.split == split]
    if not rivals or predictions.scores is None:
        return None
    # The strongest: a model that only beats the weaker one may read one side.
    best = max(rivals, key=lambda one: one.value.value)
    dataset, rival = sheet.datasets[split], blind.scored[best.reads, split]
    if best.measure != "auroc" or dataset.positive is None:
        both = compare(predictions, rival, dataset, positive=dataset.positive, samples=samples)
        return (best.reads, both[best.measure]) if best.measure in both.metrics else None
    # The one test that is needed; `compare` would resample all measures of two classes.
    joined, gold = with_targets(predictions, dataset)
    truth = np.array([target == dataset.positive for target in gold])
    scores = [one.column(dataset.positive) for one in (joined, rival.align(joined.ids))]
    found = delong_test(truth, *scores)
    first, second = (auroc(truth, one) for one in scores)
    return best.reads, Difference(
        first=first, second=second, difference=found.difference, low=found.low, high=found.high, p=found.p
    )


def _ordered(twins: Twins, split: str, scores: Mapping[str, float], positive: str) -> dict[str, Estimate]:
    """Share of confounder pairs whose positive example has the higher score, by what the pair shares."""
    sheet = twins.sheet
    hits: dict[str, list[float]] = {"picture": [], "text": []}
    for first, second, side in twins.confounders(split):
        labels = [sheet.labels[row] for row in (first, second)]
        # The labels differ, so exactly one of both is the positive one.
        if positive in labels:
            above, below = (first, second) if labels[0] == positive else (second, first)
            gap = scores[sheet.ids[above]] - scores[sheet.ids[below]]
            hits[side].append(0.5 if gap == 0 else float(gap > 0))
    found = {}
    for side, values in hits.items():
        if values:
            # A tie counts half, as in the AUROC; the interval is that of as many hits.
            low, high = wilson_interval(round(sum(values)), len(values))
            found[side] = Estimate(value=sum(values) / len(values), low=low, high=high)
    return found


def _slices(
    twins: Twins,
    split: str,
    ids: Sequence[str],
    scores: Float[ndarray, " N"],
    truth: Bool[ndarray, " N"],
    policy: Policy | None,
    positive: str,
    groups: Mapping[str, Mapping[str, str]],
    samples: int,
) -> tuple[Slice, ...]:
    # Errors need a threshold, and one half is none for scores that are no probabilities.
    if not truth.any() or truth.all() or not ((scores >= 0) & (scores <= 1)).all():
        return ()
    probabilities, band = scores, HALF
    if policy is not None:
        if positive not in policy.labels:
            raise ConfigError(f"the policy decides on {', '.join(policy.labels)}, and not on {positive!r}.")
        rule = policy.labels[positive]
        probabilities, band = rule.map(scores), (rule.allow, rule.block)
    columns = built_in_groups(twins, split) | dict(groups)
    # Every group has a bootstrap of its own, of which the page shows two digits: 500 are enough.
    return slices_of(
        scores, truth, probabilities, band=band, ids=ids, groups=columns, samples=min(samples, 500)
    )


def built_in_groups(twins: Twins, split: str) -> dict[str, dict[str, str]]:
    """Groups that every data set has, by column and id; a column with one group is left out."""
    sheet = twins.sheet
    rows = sheet.rows(split)
    train = sheet.splits.index(sheet.data.train) if sheet.data.train in sheet.splits else None
    lengths = np.array([len(sheet.texts[row].split()) for row in rows])
    # By thirds of this split: fixed lengths could leave a group without examples.
    ends = np.quantile(lengths, (1 / MANY, 2 / MANY)) if len(lengths) else np.zeros(2)
    names = [f"1: up to {ends[0]:.0f} words", f"2: up to {ends[1]:.0f} words", "3: longer"]
    found = {
        "length of the text": {
            # A length that equals an end belongs below it, as `up to` says.
            sheet.ids[row]: names[int(np.searchsorted(ends, count))]
            for row, count in zip(rows, lengths, strict=True)
        },
        "group of the data set": {
            example.id: example.group for example in sheet.datasets[split] if example.group is not None
        },
    }
    if train is not None and split != sheet.data.train:
        for what, nodes in (
            ("picture in the training split", twins.pictures),
            ("text in the training split", twins.words),
        ):
            if any(nodes.of):
                found[what] = {
                    sheet.ids[row]: "yes" if nodes.in_split(row, (sheet.split[row], None), train) else "no"
                    for row in rows
                }
    return {column: named for column, named in found.items() if len(set(named.values())) > 1}
