"""Vilio's arithmetic, used with `compat`.

Vilio blends the numbers in its files without conversion: log-probabilities of its PyTorch members, and logits
of ERNIE-ViL.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray
from sklearn.metrics import roc_curve

from diptych.ensemble.arithmetic import Arithmetic, Scores
from diptych.ensemble.blend import stack_scores
from diptych.ensemble.files import read_together
from diptych.ensemble.loop import weighted_mean
from diptych.ensemble.members import Members, name_of
from diptych.predictions import Predictions


class VilioArithmetic(Arithmetic):
    """Takes any numbers and returns no probabilities. Each split has its own scale and ranks."""

    compat = True

    def require(self, joined: Float[ndarray, "M N C"], names: Sequence[str]) -> None:
        """Accept any scores."""

    def area(self, truth: Bool[ndarray, " N"]) -> Callable[[ndarray], float]:
        """Return AUROC with scikit-learn's rounding; see `rounded_area_under`."""
        return rounded_area_under(truth)

    def reference(self, columns: Float[ndarray, "K N"], dev: Float[ndarray, "K M"]) -> Float[ndarray, "K _"]:
        """Return the split itself, so scores depend on all its rows."""
        return columns

    def finish(self, scores: Scores, truth: Bool[ndarray, " N"], dev: str) -> Scores:
        """Return the scores unchanged."""
        return scores

    def threshold(self, truth: Bool[ndarray, " N"], scores: Float[ndarray, " N"]) -> float:
        """Return the threshold with the best accuracy for equally many examples of both classes."""
        alarms, hits, thresholds = roc_curve(truth, scores)
        # Vilio counts 250 examples per class, about those of dev_seen; the constants keep its rounding
        return float(thresholds[np.argmax((hits * 250 + (1 - alarms) * 250) / 500)])

    def dev_answers(
        self, members: Members, dev: str, kept: Sequence[str], answers: tuple[str, ...]
    ) -> tuple[str, ...] | None:
        """Return the labels in the first file that the last round did not drop, as Vilio does."""
        predictions = members.predictions[dev]
        number = next(number for number, name in enumerate(members.names) if name in kept)
        return predictions[number].align(predictions[0].ids).answers


VILIO = VilioArithmetic()


def rounded_area_under(truth: Bool[ndarray, " N"]) -> Callable[[Float[ndarray, " N"]], float]:
    """Return AUROC as a function of scores, bit for bit with the rounding of scikit-learn's `roc_auc_score`.

    Vilio's search keeps the first of equal values, so a difference in the last bit changes its result.
    """

    def area(scores: ndarray) -> float:
        # From the highest score down, as the curve goes from "none positive" to "all".
        order = np.argsort(scores)[::-1]
        ends = np.append(np.flatnonzero(np.diff(scores[order])), len(order) - 1)  # last row of each tie
        hits = truth[order].cumsum()[ends].astype(np.float64)
        alarms = 1 + ends - hits
        # roc_curve drops points on straight segments; summing fewer trapezoids rounds differently
        corners = np.ones(len(ends), dtype=bool)
        corners[1:-1] = (np.diff(hits, 2) != 0) | (np.diff(alarms, 2) != 0)
        high, wide = (np.append(0.0, steps[corners]) for steps in (hits, alarms))
        return float(np.trapezoid(high / high[-1], wide / wide[-1]))

    return area


def average_raw(members: Sequence[Predictions], *, labels: Predictions | None = None) -> Predictions:
    """Compute Vilio's family average: the mean of the numbers in the files, with the labels of one file.

    The members must be read with kind `raw`. `kept_files` returns the files that Vilio averages.

    Args:
        labels: predictions that provide the answers; None means the first member. Vilio takes those of the
            first file by name, even if it does not average that file.
    """
    columns = stack_scores(members)[:, :, -1]
    scores = weighted_mean(columns, np.full(len(members), 1 / len(members)))
    answers = (labels or members[0]).align(members[0].ids).answers
    # raw numbers do not sum to one; the negative gives the other class the reverse order
    meta = {**members[0].meta, "kind": "raw"}  # also of an `.npz`, which has probabilities
    return replace(members[0], scores=np.stack((-scores, scores), axis=1), answers=answers, meta=meta)


def kept_files(files: Sequence[Path]) -> list[Path]:
    """Return those of the files of one split that Vilio's family average uses.

    Vilio stores files by their names without the last 8 (dev), 7 (test) or 14 (test_unseen) characters, and
    a later file replaces an earlier one with the same key. ERNIE-ViL's members collide: of EL36, EL72, ELV50,
    ELVCR36 and ELVCR72, three remain.
    """
    kept: dict[str, Path] = {}
    for path in sorted(files, key=lambda path: path.name):
        split = name_of(path)[1]
        cut = 8 if split.startswith(("dev", "val")) else 14 if split == "test_unseen" else 7
        kept[path.name[:-cut]] = path
    return list(kept.values())


def average_files(files: Sequence[Path]) -> tuple[Predictions, list[Path]]:
    """Return `average_raw` of the files of one split, and the files it uses."""
    kept = kept_files(files)
    # Together: a CSV does not name its classes, and an `.npz` beside it does.
    first, *members = read_together([min(files, key=lambda path: path.name), *kept], kind="raw")
    return average_raw(members, labels=first), kept


def family_average(members: Mapping[str, Predictions], split: str, scores: str) -> Predictions:
    """Return `average_raw` of the files that Vilio would have written for diptych's members.

    Args:
        members: predictions of the split, by the name of the member.
        scores: what the original writes: `log_probability`, `logit` or `probability`. It loses some of the
            members that write logits; see `kept_files`.
    """
    # ERNIE-ViL writes other file names, which decide the members that are lost
    form = "{split}{name}.csv" if scores == "logit" else "{name}_{split}.csv"
    names = {Path(form.format(split=split, name=name)): name for name in members}
    return average_raw([_written(members[names[path]], scores) for path in kept_files([*names])])


def _written(predictions: Predictions, scores: str) -> Predictions:
    """Return the numbers and labels that Vilio writes for these probabilities."""
    assert predictions.scores is not None and predictions.classes is not None
    no, yes = np.log(predictions.scores.clip(1e-300)).T  # softmax may have rounded a probability to 0
    value = {"logit": yes - no, "log_probability": yes}.get(scores, predictions.scores[:, 1])
    # ERNIE-ViL's files have the label 0 in every row
    labels = predictions.answers if scores != "logit" else (predictions.classes[0],) * len(predictions)
    return replace(
        predictions,
        scores=np.stack((-value, value), 1),
        answers=labels,
        meta={**predictions.meta, "kind": "raw"},
    )
