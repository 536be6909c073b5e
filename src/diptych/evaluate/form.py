"""What each form of decision answers for, so that its predictions can be evaluated."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from diptych.metrics.classification import auroc, f1
from diptych.metrics.uncertainty import RowMeasure, row_permutation
from diptych.predictions import Predictions


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a caller may say about a form.

    Args:
        positive: the class to be found; None is the second of two.
        threshold: scores from here on are decided positive.
    """

    positive: str | None = None
    threshold: float = 0.5


class Form(ABC):
    """N examples with one or two sets of predictions, and measures of any of their rows.

    Args:
        sets: predictions with the same ids in the same order.
        targets: of the same examples; none is None.

    Attributes:
        measures: by name, the main one first.
        strata: the rows that are drawn among themselves in a resample; together all rows, each once.

    Raises:
        FormatError: a target is not of this form.
    """

    measures: Mapping[str, RowMeasure]
    strata: Sequence[Int[ndarray, " K"]]

    @abstractmethod
    def __init__(self, sets: Sequence[Predictions], targets: Sequence[Any], options: Options) -> None: ...

    @classmethod
    @abstractmethod
    def fits(cls, predictions: Predictions, targets: Sequence[Any], options: Options) -> bool:
        """Whether predictions and targets that do not say it look like this form."""

    def value(self, name: str, number: int = 0) -> float:
        """A measure of all rows of set `number`."""
        count = sum(map(len, self.strata))
        rows = number * count + np.arange(count)
        return float(self.measures[name](rows[None, None])[0, 0])

    def p_value(self, name: str, *, samples: int, seed: int) -> float:
        """Two-sided, of no difference between two sets: a permutation test."""
        count = sum(map(len, self.strata))
        return row_permutation(self.measures[name], count, samples=samples, seed=seed)

    def facts(self) -> dict[str, Any]:
        """Further fields of both `Evaluation` and `Comparison`."""
        return {}

    def details(self) -> dict[str, Any]:
        """Further fields of `Evaluation`, of the first set."""
        return {}


def one_stratum(count: int) -> list[Int[ndarray, " N"]]:
    """Rows that are all drawn among themselves."""
    return [np.arange(count)]


def mean_measure(values: Sequence[Float[ndarray, " N"]]) -> RowMeasure:
    """The mean of what each example scores by itself, in each set."""
    flat = np.concatenate(values)
    return lambda rows: flat[rows].mean(axis=-1)


def mean_defined(values: Sequence[Float[ndarray, "S M"]]) -> Float[ndarray, "S M"]:
    """The mean over classes where a measure is defined; nan where it is for none."""
    stacked = np.stack(values)
    known = ~np.isnan(stacked)
    count = known.sum(axis=0)
    total = np.where(known, stacked, 0.0).sum(axis=0)
    return np.asarray(np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0))


def dense_ranks(sets: Sequence[Float[ndarray, " N"]]) -> Int[ndarray, " MN"]:
    """Ranks among all scores of all sets, equal scores sharing one."""
    ranks: ndarray = np.unique(np.concatenate(sets), return_inverse=True)[1].ravel()
    return ranks


def class_details(
    truth: Bool[ndarray, " N"], decided: Bool[ndarray, " N"], scores: Float[ndarray, " N"]
) -> dict[str, int | float]:
    """How well one class or label is told from the rest."""
    found, count, given = (int(np.count_nonzero(one)) for one in (truth & decided, truth, decided))
    return {
        "count": count,
        "precision": found / given if given else float("nan"),
        "recall": found / count if count else float("nan"),
        "f1": f1(truth, decided),
        "auroc": auroc(truth, scores),
    }
