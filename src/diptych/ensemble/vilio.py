"""Vilio's arithmetic, which `compat` asks for, and nothing else of the package knows.

It blends the numbers in the files as they are: log-probabilities of its PyTorch members, logits of ERNIE-ViL.
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
from diptych.ensemble.files import read_predictions
from diptych.ensemble.loop import weighted_mean
from diptych.ensemble.members import Members, name_of
from diptych.predictions import Predictions


class VilioArithmetic(Arithmetic):
    """Any numbers. Each split has its own scale and ranks, and no logistic curve makes probabilities."""

    compat = True

    def require(self, joined: Float[ndarray, "M N C"], names: Sequence[str]) -> None:
        """Refuse nothing."""

    def area(self, truth: Bool[ndarray, " N"]) -> Callable[[ndarray], float]:
        """See `rounded_area_under`."""
        return rounded_area_under(truth)

    def reference(self, columns: Float[ndarray, "K N"], dev: Float[ndarray, "K M"]) -> Float[ndarray, "K _"]:
        """The split itself."""
        return columns

    def finish(self, scores: Scores, truth: Bool[ndarray, " N"], dev: str) -> Scores:
        """The scores as they are."""
        return scores

    def threshold(self, truth: Bool[ndarray, " N"], scores: Float[ndarray, " N"]) -> float:
        """Where accuracy would be best if dev held equally many examples of both classes."""
        alarms, hits, thresholds = roc_curve(truth, scores)
        return float(thresholds[np.argmax((hits * 250 + (1 - alarms) * 250) / 500)])

    def dev_answers(
        self, members: Members, dev: str, kept: Sequence[str], answers: tuple[str, ...]
    ) -> tuple[str, ...] | None:
        """The labels of the first file that survives the pruning of the last round."""
        found = members.predictions[dev]
        number = next(number for number, name in enumerate(members.names) if name in kept)
        return found[number].align(found[0].ids).answers


VILIO = VilioArithmetic()


def rounded_area_under(truth: Bool[ndarray, " N"]) -> Callable[[Float[ndarray, " N"]], float]:
    """AUROC with the rounding errors of scikit-learn's `roc_auc_score`, bit for bit.

    Vilio's search takes the first of equal values, and there a difference in the last bit decides.
    """

    def area(scores: ndarray) -> float:
        order = np.argsort(scores)[::-1]
        ends = np.append(np.flatnonzero(np.diff(scores[order])), len(order) - 1)
        hits = truth[order].cumsum()[ends].astype(np.float64)
        alarms = 1 + ends - hits
        corners = np.ones(len(ends), dtype=bool)
        corners[1:-1] = (np.diff(hits, 2) != 0) | (np.diff(alarms, 2) != 0)
        high, wide = (np.append(0.0, steps[corners]) for steps in (hits, alarms))
        return float(np.trapezoid(high / high[-1], wide / wide[-1]))

    return area


def average_raw(members: Sequence[Predictions], *, labels: Predictions | None = None) -> Predictions:
    """The mean of the numbers as they are in the files, and the labels of the first: Vilio's family average.

    The members are read with kind `raw`; which files Vilio averages, `kept_files` says.

    Args:
        labels: predictions whose answers are taken instead: Vilio takes those of the first file by name,
            which may be one that it does not average.
    """
    columns = stack_scores(members)[:, :, -1]
    scores = weighted_mean(columns, np.full(len(members), 1 / len(members)))
    answers = (labels or members[0]).align(members[0].ids).answers
    return replace(members[0], scores=np.stack((-scores, scores), axis=1), answers=answers)


def kept_files(files: Sequence[Path]) -> list[Path]:
    """The files that Vilio's family average of one split uses, of those given.

    It keeps files under their names without the last 8 (dev), 7 (test) or 14 (test_unseen) characters, and
    names of ERNIE-ViL's members are equal then: of EL36, EL72, ELV50, ELVCR36 and ELVCR72 three remain.
    """
    kept: dict[str, Path] = {}
    for path in sorted(files, key=lambda path: path.name):
        split = name_of(path)[1]
        cut = 8 if split.startswith(("dev", "val")) else 14 if split == "test_unseen" else 7
        kept[path.name[:-cut]] = path
    return list(kept.values())


def average_files(files: Sequence[Path]) -> tuple[Predictions, list[Path]]:
    """`average_raw` of the files of one split, and those that it uses."""
    kept = kept_files(files)
    first = min(files, key=lambda path: path.name)
    members = [read_predictions(path, kind="raw") for path in kept]
    return average_raw(members, labels=read_predictions(first, kind="raw")), kept


def family_average(members: Mapping[str, Predictions], split: str, scores: str) -> Predictions:
    """`average_raw` of what Vilio would have written of our members.

    Args:
        members: predictions of the split, by the name of the member.
        scores: what the original writes: `log_probability`, `logit` or `probability`. Of members that write
            logits, it loses some; see `kept_files`.
    """
    form = "{split}{name}.csv" if scores == "logit" else "{name}_{split}.csv"
    names = {Path(form.format(split=split, name=name)): name for name in members}
    return average_raw([_written(members[names[path]], scores) for path in kept_files([*names])])


def _written(predictions: Predictions, scores: str) -> Predictions:
    """The numbers and labels that Vilio writes for these probabilities."""
    assert predictions.scores is not None and predictions.classes is not None
    no, yes = np.log(predictions.scores.clip(1e-300)).T
    value = {"logit": yes - no, "log_probability": yes}.get(scores, predictions.scores[:, 1])
    labels = predictions.answers if scores != "logit" else (predictions.classes[0],) * len(predictions)
    return replace(
        predictions,
        scores=np.stack((-value, value), 1),
        answers=labels,
        meta={**predictions.meta, "kind": "raw"},
    )
