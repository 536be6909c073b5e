"""How good a model can look at best: the ceiling that noise in the labels sets.

If two labels of an example are independent and each is wrong with probability e, they disagree with
probability d = 2 e (1 - e). A model that knows the truth then agrees with a share 1 - e of the labels, and
its AUROC against them is below 1. Independence is an assumption: people who err together disagree less.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool
from numpy import ndarray

from diptych.audit.twins import Twins
from diptych.errors import FormatError, first_five
from diptych.evaluate import Estimate
from diptych.metrics import wilson_interval

DRAWS = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Ceiling:
    """Agreement of two labels of the same thing, and what it allows.

    Args:
        source: `copies`, or `second labels`.
        count: pairs of labels; `disagreeing`, those that differ.
        agreement: share of equal labels, with Wilson's interval.
        kappa: Cohen's kappa (1960) with a bootstrap interval: agreement beyond chance.
        error: estimated probability that a label is wrong; nan if half of the labels disagree, or more.
        accuracy: of a model that knows the truth, against these labels.
        auroc: the same for two classes; nan for more.
        annotator: accuracy of one label against the other, as AUROC for two classes; nan for more.
    """

    source: str
    count: int
    disagreeing: int
    agreement: Estimate
    kappa: Estimate
    error: float
    accuracy: float
    auroc: float
    annotator: float


def ceiling_of_copies(twins: Twins) -> Ceiling | None:
    """Compare the labels of copies; None without two labeled copies."""
    labels = twins.sheet.labels
    pairs = [
        (labels[row], labels[other])
        for row in range(len(labels))
        # Of both orders of a pair one counts; an example in two splits is one example.
        if not twins.sheet.repeated[row]
        for other in twins.copies(row)
        if other < row
    ]
    known = [(str(a), str(b)) for a, b in pairs if a is not None and b is not None]
    return ceiling_of("copies", known, positive=twins.sheet.data.kind.positive) if known else None


def ceiling_of_second(twins: Twins, second: Mapping[str, str]) -> Ceiling:
    """Compare the labels with second labels, by id.

    Raises:
        FormatError: a second label is no class of the data set, or no example with one has a label.
    """
    sheet = twins.sheet
    classes = {label for label in sheet.labels if label is not None}
    # Official files of two classes write 0 and 1.
    numbered = dict(enumerate(sheet.data.kind.labels))
    named = {
        key: numbered.get(int(value), value) if value.isdecimal() else value for key, value in second.items()
    }
    if strange := sorted({name for name in named.values() if name not in classes}):
        raise FormatError(
            f"the second labels have {first_five(strange)}; expected {first_five(sorted(classes))}, or "
            "their numbers."
        )
    pairs = [
        (label, named[key])
        for key, label, again in zip(sheet.ids, sheet.labels, sheet.repeated, strict=True)
        if key in named and label is not None and not again
    ]
    if not pairs:
        raise FormatError("no example with a second label has a first one; expected ids of labeled splits.")
    return ceiling_of("second labels", pairs, positive=sheet.data.kind.positive)


def ceiling_of(source: str, pairs: Sequence[tuple[str, str]], *, positive: str | None = None) -> Ceiling:
    """Measure the agreement of pairs of labels.

    Args:
        positive: positive class, by default the last of two.
    """
    names = sorted({name for pair in pairs for name in pair})
    codes = np.array([[names.index(name) for name in pair] for pair in pairs])
    equal = codes[:, 0] == codes[:, 1]
    count, agreeing = len(pairs), int(np.count_nonzero(equal))
    low, high = wilson_interval(agreeing, count)
    generator = np.random.default_rng(0)
    # Pairs are drawn, not labels: the two labels of one example belong together.
    drawn = [kappa(codes[generator.integers(count, size=count)], len(names)) for _ in range(DRAWS)]
    # A resample of one class has no kappa.
    known = [value for value in drawn if not math.isnan(value)]
    ends = np.quantile(known, (0.025, 0.975)).tolist() if known else [float("nan")] * 2
    d = 1 - agreeing / count
    # The smaller solution of d = 2 e (1 - e): most labels are taken to be right.
    # For example, 18 % disagree if 10 % of the labels are wrong: 2 * 0.1 * 0.9.
    error = (1 - math.sqrt(1 - 2 * d)) / 2 if d < 0.5 else float("nan")
    two = len(names) <= 2
    truth = codes == (names.index(positive) if positive in names else len(names) - 1)
    return Ceiling(
        source=source,
        count=count,
        disagreeing=count - agreeing,
        agreement=Estimate(value=agreeing / count, low=low, high=high),
        kappa=Estimate(value=kappa(codes, len(names)), low=ends[0], high=ends[1]),
        error=error,
        accuracy=1 - error,
        auroc=best_auroc(float(truth.mean()), error) if two else float("nan"),
        annotator=_balanced(truth) if two else float("nan"),
    )


def kappa(codes: ndarray, classes: int) -> float:
    """Cohen's kappa of two columns of class numbers; nan if both know one class only."""
    observed = float((codes[:, 0] == codes[:, 1]).mean())
    shares = [np.bincount(codes[:, side], minlength=classes) / len(codes) for side in (0, 1)]
    expected = float(shares[0] @ shares[1])
    return (observed - expected) / (1 - expected) if expected < 1 else float("nan")


def best_auroc(prevalence: float, error: float) -> float:
    """AUROC of a model that knows the truth, against labels that are wrong with probability `error`.

    Args:
        prevalence: share of positive labels, as observed.
    """
    if not 0 <= error < 0.5 or not 0 < prevalence < 1:
        return float("nan")
    # Observed positives are true ones that are right and others that are wrong: p = t (1 - e) + (1 - t) e,
    # solved for t. Noise in a small sample may put it outside of [0, 1].
    true = min(max((prevalence - error) / (1 - 2 * error), 0.0), 1.0)
    # The truth takes two values, so the AUROC is that of one threshold.
    found, raised = true * (1 - error) / prevalence, true * error / (1 - prevalence)
    return (1 + found - raised) / 2


def _balanced(truth: Bool[ndarray, "N 2"]) -> float:
    """AUROC of one label against the other, averaged over both roles."""
    areas = []
    for first, second in ((0, 1), (1, 0)):
        positive = truth[:, first]
        if positive.all() or not positive.any():
            return float("nan")
        # A label is a score of two values, whose curve has one corner: the area is that of one threshold.
        areas.append((1 + truth[positive, second].mean() - truth[~positive, second].mean()) / 2)
    return float(np.mean(areas))
