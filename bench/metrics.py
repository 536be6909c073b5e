"""Intervals, tests and blending against the plain way, on a split the size of Hateful Memes' test_unseen."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy import ndarray
from scipy.special import expit
from sklearn.metrics import roc_auc_score

from diptych.ensemble import blend
from diptych.metrics import auroc, bootstrap_interval, delong_test, paired_interval, permutation_test
from diptych.predictions import Predictions

COUNT, SAMPLES, MEMBERS = 2000, 2000, 20

Row = tuple[str, str, str, str]


def rows() -> Iterator[Row]:
    """What was measured, ours, the plain way, and how many times faster ours is."""
    truth, first, second = judged(0)
    auroc(truth, first)  # the first call pays for imports
    resamples = f"{SAMPLES} resamples of {COUNT} rows"
    yield compared(
        f"AUROC interval, {resamples}",
        lambda: bootstrap_interval(truth, first, auroc, samples=SAMPLES),
        "scikit-learn in a loop",
        lambda: naive_interval(truth, first),
    )
    yield compared(
        f"AUROC difference, {resamples}",
        lambda: paired_interval(truth, first, second, auroc, samples=SAMPLES),
        "scikit-learn in a loop",
        lambda: naive_interval(truth, first, second),
    )
    yield compared(
        "p-value of an AUROC difference",
        lambda: delong_test(truth, first, second),
        f"permutation test, {SAMPLES} samples",
        lambda: permutation_test(truth, first, second, auroc, samples=SAMPLES),
    )
    files = members()
    yield compared(
        f"join and average {MEMBERS} files of {COUNT} rows",
        lambda: blend(files),
        "dictionaries in a loop",
        lambda: naive_mean(files),
    )


def compared(what: str, ours: Callable[[], Any], name: str, plain: Callable[[], Any]) -> Row:
    fast, slow = best(ours), best(plain)
    return what, f"{1e3 * fast:.1f} ms", f"{name} {1e3 * slow:.1f} ms", f"{slow / fast:.1f}x"


def best(call: Callable[[], Any], *, times: int = 3) -> float:
    """Seconds of the fastest of some calls; of a single one where that takes long."""
    spent: list[float] = []
    while len(spent) < times and sum(spent) < 2:
        start = time.perf_counter()
        call()
        spent.append(time.perf_counter() - start)
    return min(spent)


def judged(seed: int) -> tuple[ndarray, ndarray, ndarray]:
    """Truth and the probabilities of two correlated classifiers."""
    generator = np.random.default_rng(seed)
    truth = np.random.default_rng(0).random(COUNT) < 0.375
    signal = truth + generator.normal(size=COUNT)
    return truth, expit(signal), expit(signal + generator.normal(size=COUNT))


def members() -> list[Predictions]:
    """Members whose rows are in different orders."""
    ids = np.array([f"{n:05d}" for n in range(COUNT)])
    found = []
    for seed in range(MEMBERS):
        positive = judged(seed)[1]
        order = np.random.default_rng(seed).permutation(COUNT)
        scores = np.stack((1 - positive, positive), axis=1)[order]
        found.append(
            Predictions(ids=tuple(ids[order].tolist()), scores=scores, classes=("benign", "hateful"))
        )
    return found


def naive_interval(truth: ndarray, first: ndarray, second: ndarray | None = None) -> ndarray:
    generator = np.random.default_rng(0)
    values = []
    for _ in range(SAMPLES):
        drawn = generator.integers(COUNT, size=COUNT)
        value = roc_auc_score(truth[drawn], first[drawn])
        values.append(value if second is None else value - roc_auc_score(truth[drawn], second[drawn]))
    return np.asarray(np.quantile(values, (0.025, 0.975)))


def naive_mean(members: list[Predictions]) -> dict[str, float]:
    columns = [dict(zip(member.ids, member.column("hateful"), strict=True)) for member in members]
    return {key: sum(column[key] for column in columns) / len(columns) for key in members[0].ids}
