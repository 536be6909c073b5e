"""A policy of a large dev set with all intervals, against measuring every resample by itself."""

from collections.abc import Iterator
from functools import partial
from time import process_time

import numpy as np
from bench._timing import in_turns, promise
from numpy import ndarray
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss, log_loss

from diptych.calibrate import Costs, Settings, calibrate
from diptych.calibrate.policy import DevNode
from diptych.metrics import calibration_error, log_odds
from diptych.predictions import Predictions

COUNT, SAMPLES, TRIED = 10_000, 2000, 20
LIMIT = 5.0  # seconds of one core
DEV: DevNode = {"split": "dev", "checksum": "", "examples": COUNT, "scores": "as predicted"}

Row = tuple[str, str, str, str, str]


def rows() -> Iterator[Row]:
    """What was measured, ours, the plain way, how many times faster ours is, and the promise."""
    generator = np.random.default_rng(0)
    truth = generator.random(COUNT) < 0.37
    scores = expit(2 * (generator.normal(size=COUNT) + 1.5 * truth) - 1)
    predictions = Predictions(
        ids=tuple(map(str, range(COUNT))),
        scores=np.stack((1 - scores, scores), axis=1),
        classes=("benign", "hateful"),
    )
    settings = Settings(
        max_miss=0.05, max_wrong_block=0.02, costs=Costs(miss=10, wrong_block=4, review=1), samples=SAMPLES
    )
    fast, some = in_turns(
        partial(calibrate, predictions, truth.astype(int).tolist(), dev=DEV, settings=settings),
        partial(naive, truth, scores),
        least=1,
        most=3,
        clock=process_time,
    )
    slow = some * SAMPLES / TRIED
    yield (
        f"policy of {COUNT:,} memes, {SAMPLES:,} resamples",
        f"{fast:.2f} s",
        f"four measures, each resample by itself (of {TRIED}) {slow:.0f} s",
        f"{slow / fast:.0f}x",
        promise(f"< {LIMIT:g} s", fast < LIMIT),
    )


def naive(truth: ndarray, scores: ndarray) -> list[tuple[float, ...]]:
    generator = np.random.default_rng(0)
    found = []
    for _ in range(TRIED):
        drawn = generator.integers(COUNT, size=COUNT)
        y, p = truth[drawn], scores[drawn]
        slope = LogisticRegression(C=np.inf).fit(log_odds(p)[:, None], y).coef_[0, 0]
        found.append((brier_score_loss(y, p), log_loss(y, p), calibration_error(y, p, bins=15), slope))
    return found
