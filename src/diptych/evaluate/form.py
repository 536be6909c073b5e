"""Base class of the forms of decision, which define how predictions are measured."""

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
    """Options of a form.

    Args:
        positive: name of the positive class; None means the second of two.
        threshold: smallest score that is decided positive.
        fold: compat: fold translations to ASCII as MM-BERT does; see `diptych.metrics.fold`.
    """

    positive: str | None = None
    threshold: float = 0.5
    fold: bool = False


class Form(ABC):
    """One or two sets of predictions of N examples, with measures that work on any selection of rows.

    Args:
        sets: predictions with the same ids in the same order.
        targets: targets of the same examples; none is None.

    Attributes:
        measures: measures by name, the main one first.
        strata: row numbers of each stratum. Rows are resampled within strata, and every row is in one.

    Raises:
        FormatError: a target does not fit this form.
    """

    measures: Mapping[str, RowMeasure]
    strata: Sequence[Int[ndarray, " _"]]

    @abstractmethod
    def __init__(self, sets: Sequence[Predictions], targets: Sequence[Any], options: Options) -> None: ...

    @classmethod
    @abstractmethod
    def fits(cls, predictions: Predictions, targets: Sequence[Any], options: Options) -> bool:
        """Whether predictions without an explicit form look like this one."""

    def value(self, name: str, number: int = 0) -> float:
        """Compute a measure over all rows of set `number`."""
        count = sum(map(len, self.strata))
        # The identity as a resample: values and intervals come from one function and cannot disagree.
        rows = number * count + np.arange(count)
        return float(self.measures[name](rows[None, None])[0, 0])  # one resample of one set

    def p_value(self, name: str, *, samples: int, seed: int) -> float:
        """Two-sided p-value of a permutation test for no difference between the two sets."""
        count = sum(map(len, self.strata))
        return row_permutation(self.measures[name], count, samples=samples, seed=seed)

    def facts(self) -> dict[str, Any]:
        """Return additional fields for both `Evaluation` and `Comparison`."""
        return {}

    def details(self) -> dict[str, Any]:
        """Return additional fields for `Evaluation`, computed from the first set."""
        return {}


def one_stratum(count: int) -> list[Int[ndarray, " N"]]:
    """A single stratum of `count` rows."""
    return [np.arange(count)]


def mean_measure(values: Sequence[Float[ndarray, " N"]]) -> RowMeasure:
    """Measure that averages one value per example, for each set."""
    # One set after another, as row n of set m has the number m * N + n.
    flat = np.concatenate(values)
    return lambda rows: flat[rows].mean(axis=-1)


def mean_defined(values: Float[ndarray, "C S M"]) -> Float[ndarray, "S M"]:
    """Mean over the classes for which a measure is defined; nan if there are none."""
    # Not `nanmean`, which warns about resamples in which no class is defined.
    known = ~np.isnan(values)
    count = known.sum(axis=0)
    total = np.where(known, values, 0.0).sum(axis=0)
    return np.asarray(np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0))


def dense_ranks(sets: Sequence[Float[ndarray, " N"]]) -> Int[ndarray, " MN"]:
    """Dense ranks of the scores of all sets together; equal scores have equal ranks."""
    # Common ranks, so that histograms of both sets have the same length.
    # Example: 0.2 0.9 0.2 has the ranks 0 1 0.
    ranks: ndarray = np.unique(np.concatenate(sets), return_inverse=True)[1].ravel()
    return ranks


def class_details(
    truth: Bool[ndarray, " N"], decided: Bool[ndarray, " N"], scores: Float[ndarray, " N"]
) -> dict[str, int | float]:
    """Measures of one class or label against the rest."""
    hits, count, predicted = (int(np.count_nonzero(rows)) for rows in (truth & decided, truth, decided))
    return {
        "count": count,
        "precision": hits / predicted if predicted else float("nan"),
        "recall": hits / count if count else float("nan"),
        "f1": f1(truth, decided),
        "auroc": auroc(truth, scores),
    }
