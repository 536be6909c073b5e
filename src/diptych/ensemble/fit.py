"""Blends fitted on a labeled split, with an out-of-fold estimate of their AUROC on new examples."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any, Literal, get_args

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray
from sklearn.model_selection import StratifiedKFold

from diptych.ensemble.arithmetic import OURS, Arithmetic, Scores
from diptych.ensemble.blend import identity, stack_scores
from diptych.ensemble.loop import Round, apply_rounds, one_search, ranks_among, two_round_loop
from diptych.ensemble.members import Members
from diptych.ensemble.search import STEPS, greedy_search, simplex_search
from diptych.ensemble.stacking import area_of, stack
from diptych.ensemble.vilio import VILIO
from diptych.errors import ConfigError, FormatError, first_five, nearest
from diptych.metrics import auroc, bootstrap_interval
from diptych.predictions import Predictions, respell

Searched = Literal["simplex", "greedy", "loop"]
Fitted = Literal[Searched, "stack"]
Fit = Callable[..., tuple[Scores, tuple[Round, ...]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class FitReport:
    """Result of a fit.

    Args:
        rows: number of examples of dev.
        dropped: members left out, and the splits they lack.
        missing: ids that members lack, by split and member.
        constant: members that give all rows the same score.
        in_sample: (AUROC, low, high) on the rows of the fit, with a bootstrap interval; optimistic.
        out_of_fold: the same, where each row is scored by a blend fitted without it. None if `folds` is
            below 2, or a class has fewer than two rows.
        best_member: name and AUROC of the member with the highest AUROC on dev.
        threshold: scores from this value on get the positive answer; fitted on dev.
        held_out: predictions of dev, each row by a blend fitted without it, on the scale of the result; for
            calibration. None as `out_of_fold`, and with `compat`.
    """

    method: str
    dev: str
    rows: int
    rounds: tuple[Round, ...]
    dropped: dict[str, tuple[str, ...]]
    constant: tuple[str, ...]
    in_sample: tuple[float, float, float]
    out_of_fold: tuple[float, float, float] | None
    best_member: tuple[str, float]
    threshold: float
    missing: Mapping[str, Mapping[str, tuple[str, ...]]] = field(default_factory=dict)
    held_out: Predictions | None = field(default=None, repr=False)

    @property
    def optimism(self) -> float | None:
        """In-sample minus out-of-fold AUROC."""
        return None if self.out_of_fold is None else self.in_sample[0] - self.out_of_fold[0]

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON, without the rows of `held_out`."""
        values = asdict(replace(self, held_out=None)) | {"optimism": self.optimism}
        del values["held_out"]
        return values


# Example of `loop` with members A to E: round 1 makes 4 blends of them. Round 2 has 9 columns, keeps the 5
# with the best AUROC on dev, and finds their weights; that weighted mean is the result.
def fit_blend(
    members: Members,
    truth: Mapping[str, int | None],
    *,
    dev: str,
    method: Fitted = "loop",
    folds: int = 5,
    steps: int = STEPS,
    compat: bool = False,
    non_negative: bool = False,
) -> tuple[dict[str, Predictions], FitReport]:
    """Fit a blend on `dev`, and apply it to all splits; returns predictions by split, and the report.

    `simplex`: weighted mean by Vilio's search. `greedy`: weighted mean by forward selection. `loop`: Vilio's
    two rounds. The first computes the mean, mean square, mean rank and simplex blend of the members. The
    second takes these and the members as columns, drops all but the best five, and computes their simplex
    blend; a logistic fit on dev turns it into a probability. `stack`: logistic regression on the members'
    log-odds with a small penalty, which also takes members that lack rows.

    Scales and ranks come from dev, so the score of a row does not depend on other rows of its split.

    Args:
        truth: labels of `dev` by id, 1 for positive examples.
        folds: number of folds of the out-of-fold estimate; below 2, none is made.
        steps: number of evaluations of each simplex search.
        compat: use Vilio's arithmetic; the files must be read with kind `raw`.
        non_negative: no member of `stack` gets a negative coefficient.

    Raises:
        FormatError: ids of labels and of dev differ, a label is missing, or there are not two classes.
        ConfigError: an unknown method or split, one class in dev, or a member lacks rows that are needed.
    """
    names, arithmetic = members.names, VILIO if compat else OURS
    fit = _fitter(method, names, steps=steps, arithmetic=arithmetic, non_negative=non_negative)
    columns = _columns(members, dev, arithmetic, method)
    labels = _labels(members.predictions[dev][0].ids, truth, dev)
    scores, rounds = fit(columns, labels, dev=dev)  # on all rows of dev; folds are for the estimate only
    finish = arithmetic.finish if method == "loop" else _unchanged
    held_out, finished = _out_of_fold(fit, finish, columns[dev], labels, folds)  # `scores` saw their labels
    scores = finish(scores, labels, dev)
    threshold = arithmetic.threshold(labels, scores[dev])  # of the finished scores, to which it is applied
    report = FitReport(
        method=method,
        dev=dev,
        rows=len(labels),
        rounds=rounds,
        dropped=dict(members.dropped),
        constant=_constant(names, columns[dev]),
        in_sample=_measured(labels, scores[dev]),
        out_of_fold=None if held_out is None else _measured(labels, held_out),
        best_member=_best(names, columns[dev], labels),
        threshold=threshold,
        missing=members.missing,
    )
    made = partial(_predictions, members, report=report, arithmetic=arithmetic, non_negative=non_negative)
    blends = {split: made(split, values) for split, values in scores.items()}
    if finished is not None and not compat:
        report = replace(report, held_out=made(dev, finished))
    return blends, report


@dataclass(frozen=True, slots=True, kw_only=True)
class FittedBlend:
    """A blend whose weights are known, which scores new rows without a search; see `fit_once`.

    Args:
        names: members, in the order of their scores in a call.
        dev: scores of the members on the rows of the fit, which define scales and ranks.
        rounds: of the fit.
        finish: from the blended score to the result.
        threshold: scores from this value on get the positive answer.
    """

    names: tuple[str, ...]
    dev: Float[ndarray, "K M"]
    rounds: tuple[Round, ...]
    finish: Callable[[ndarray], ndarray]
    threshold: float

    def __call__(self, scores: Float[ndarray, "K N"]) -> Float[ndarray, " N"]:
        """Blend the members' probabilities of the positive class."""
        return self.finish(apply_rounds(scores, self.dev, self.rounds, names=self.names))


def fit_once(
    members: Members, truth: Mapping[str, int | None], *, dev: str, method: Searched = "loop"
) -> FittedBlend:
    """Fit a blend as `fit_blend` does, to keep it: it gives new rows the same scores, one at a time.

    Raises:
        FormatError, ConfigError: as `fit_blend`.
    """
    _, report = fit_blend(members, truth, dev=dev, method=method, folds=0)
    columns = _columns(members, dev, OURS, method)[dev]
    labels = _labels(members.predictions[dev][0].ids, truth, dev)
    plain = apply_rounds(columns, columns, report.rounds, names=members.names)
    return FittedBlend(
        names=members.names,
        dev=columns,
        rounds=report.rounds,
        finish=OURS.curve(plain, labels) if method == "loop" else np.asarray,
        threshold=report.threshold,
    )


def _require_whole(members: Members, method: str) -> None:
    if (lost := [name for gaps in members.missing.values() for name in gaps]) and method != "stack":
        raise ConfigError(
            f"{lost[0]} lacks examples, and --method {method} needs all; fit with --method stack, or blend "
            "without labels, such as with --method logit."
        )


def _constant(names: Sequence[str], columns: Float[ndarray, "K N"]) -> tuple[str, ...]:
    pairs = zip(names, columns, strict=True)
    return tuple(name for name, row in pairs if np.nanmax(row) == np.nanmin(row))


def _best(
    names: Sequence[str], columns: Float[ndarray, "K N"], truth: Bool[ndarray, " N"]
) -> tuple[str, float]:
    singles = {name: area_of(truth, row) for name, row in zip(names, columns, strict=True)}
    return max(singles.items(), key=lambda single: single[1])


def _unchanged(scores: Scores, truth: Bool[ndarray, " N"], dev: str) -> Scores:
    return scores


def _columns(members: Members, dev: str, arithmetic: Arithmetic, method: str) -> dict[str, ndarray]:
    """Return the scores of the last class, by split."""
    _require_whole(members, method)
    if dev not in members.predictions:
        splits = list(members.predictions)
        raise ConfigError(
            f"no member predicts the split {dev!r}; expected one of {splits}.{nearest(dev, splits)}"
        )
    joined = {
        split: stack_scores(predictions, gaps=split in members.missing)
        for split, predictions in members.predictions.items()
    }
    if (count := joined[dev].shape[2]) != 2:
        raise FormatError(
            f"{dev}: the members have {count} classes; only two can be fitted. Use --method mean."
        )
    for scores in joined.values():
        arithmetic.require(scores, members.names)
    # The second class alone: of two classes, the other adds nothing.
    return {split: scores[:, :, -1] for split, scores in joined.items()}


def _fitter(
    method: Fitted, names: Sequence[str], *, steps: int, arithmetic: Arithmetic, non_negative: bool
) -> Fit:
    if method not in get_args(Fitted):
        known = get_args(Fitted)
        raise ConfigError(f"method is {method!r}; expected one of {known}.{nearest(method, known)}")
    if method == "stack":
        return partial(stack, names=names, non_negative=non_negative)
    if non_negative:
        raise ConfigError(f"method {method} has no negative weights; non_negative is for stack.")
    if method == "loop":
        return partial(two_round_loop, names=names, steps=steps, arithmetic=arithmetic)
    search = (
        partial(simplex_search, steps=steps, area=arithmetic.area) if method == "simplex" else greedy_search
    )
    return partial(one_search, names=names, search=search)


def _labels(ids: Sequence[str], truth: Mapping[str, int | None], dev: str) -> Bool[ndarray, " N"]:
    # data sets write ids as 01235, spreadsheets as 1235
    truth = dict(zip(respell(tuple(truth), ids), truth.values(), strict=True))
    missing = [key for key in ids if truth.get(key) is None]
    extra = truth.keys() - set(ids)
    if missing or extra:
        raise FormatError(
            f"{dev}: {len(missing)} predicted example(s) have no label ({first_five(missing)}), and "
            f"{len(extra)} labeled example(s) no prediction ({first_five(sorted(extra))}); expected the same "
            "examples. Predict the whole split with every model."
        )
    labels = np.array([truth[key] == 1 for key in ids])
    if labels.all() or not labels.any():
        raise ConfigError(
            f"all {len(ids)} examples of {dev} have the label {int(labels[0])}; fitting weights needs both "
            "classes. Use --method mean, which needs no labels."
        )
    return labels


def _out_of_fold(
    fit: Fit,
    finish: Callable[[Scores, ndarray, str], Scores],
    columns: Float[ndarray, "K N"],
    truth: Bool[ndarray, " N"],
    folds: int,
) -> tuple[Float[ndarray, " N"], Float[ndarray, " N"]] | tuple[None, None]:
    """Score every row by a blend fitted without it; None if there are too few rows for two folds.

    The first scores are ranks among the rows of the fit, in (0, 1]: each fold has other weights, so plain
    scores of different folds do not rank together. The second are the finished scores, which can be
    calibrated: a threshold, unlike an AUROC, is applied to one blend.
    """
    # Each fold needs a row of each class.
    folds = min(folds, int(truth.sum()), int((~truth).sum()))
    if folds < 2:
        return None, None
    scores, finished = np.empty(len(truth)), np.empty(len(truth))
    # stratified, or a fold could lack a class; the fixed seed makes the estimate reproducible
    for rest, held in StratifiedKFold(folds, shuffle=True, random_state=0).split(truth, truth):
        blended, _ = fit({"rest": columns[:, rest], "held": columns[:, held]}, truth[rest], dev="rest")
        scores[held] = ranks_among(blended["held"], blended["rest"]) / len(rest)
        finished[held] = finish(blended, truth[rest], "rest")["held"]
    return scores, finished


def _measured(truth: Bool[ndarray, " N"], scores: Float[ndarray, " N"]) -> tuple[float, float, float]:
    return auroc(truth, scores), *bootstrap_interval(truth, scores, auroc)


def _predictions(
    members: Members,
    split: str,
    scores: Float[ndarray, " N"],
    *,
    report: FitReport,
    arithmetic: Arithmetic,
    non_negative: bool,
) -> Predictions:
    first = members.predictions[split][0]
    negative, positive = first.classes or ("0", "1")
    raw = first.meta.get("kind") == "raw"
    answers: tuple[str, ...] | None
    answers = tuple(positive if value >= report.threshold else negative for value in scores)
    if split == report.dev:
        answers = arithmetic.dev_answers(members, split, [*report.rounds[-1].weights], answers)
    # Other coefficients are another blend, for which the policy of this one means nothing.
    how = {"non_negative": True} if non_negative else {}
    meta = {
        "method": report.method,
        "members": list(members.names),
        "fitted_on": report.dev,
        "compat": arithmetic.compat,
        **({"kind": "raw"} if raw else {}),
        **how,
        **identity(members.predictions[report.dev], report.method, report.dev, arithmetic.compat, *how),
    }
    return Predictions(
        ids=first.ids,
        # raw scores are log-probabilities or logits: the other class gets the negative instead of 1 - p
        scores=np.stack(((0 if raw else 1) - scores, scores), axis=1),
        answers=answers,
        classes=(negative, positive),
        meta=meta,
    )
