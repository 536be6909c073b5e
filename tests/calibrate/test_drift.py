"""Drift: nothing moves between halves of one sample, and what has moved is found."""

import numpy as np
import pytest
from scipy.special import expit

from diptych.calibrate import Map, Policy, Rule, drift, shifted_prevalence
from diptych.calibrate.drift import shift, stability_index
from diptych.predictions import Predictions


def drawn(seed, count=3000, *, positives=0.4):
    """Calibrated probabilities at 40 % positives, of traffic with another share."""
    generator = np.random.default_rng(seed)
    truth = generator.random(count) < positives
    return expit(1.5 * (generator.normal(size=count) + 1.5 * truth) - 1.125 - 0.75 + 0.35)


def predictions(scores):
    ids = tuple(map(str, range(len(scores))))
    return Predictions(ids=ids, scores=np.stack((1 - scores, scores), axis=1), classes=("no", "yes"))


def test_equal_distributions_are_quiet_and_others_alarm():
    quiet = shift(drawn(0), drawn(1))
    assert (quiet.level, quiet.p > 0.01) == ("quiet", True)
    moved = shift(drawn(0), drawn(2, positives=0.9))
    assert (moved.level, moved.p < 1e-6) == ("alarm", True)
    assert moved.distance > quiet.distance


def test_the_index_is_the_sum_over_ten_bins():
    reference = np.arange(1000.0)
    live = reference[500:]
    expected = np.full(10, 100.5) / 1005
    actual = np.array([0.5] * 5 + [100.5] * 5) / 505
    assert stability_index(reference, reference) == pytest.approx(0.0)
    assert stability_index(reference, live) == pytest.approx(
        np.sum((actual - expected) * np.log(actual / expected))
    )
    assert np.isfinite(stability_index(np.zeros(50), np.ones(50)))


@pytest.mark.parametrize("share", [0.1, 0.4, 0.8])
def test_a_changed_share_of_positives_is_estimated(share):
    assert shifted_prevalence(drawn(4, 8000, positives=share), 0.4) == pytest.approx(share, abs=0.03)


def test_actions_and_lengths_are_compared():
    policy = Policy(
        labels={"yes": Rule(map=Map(method="identity"), allow=0.3, block=0.6, positives=40, negatives=60)},
        model="m",
        dev={"split": "dev", "checksum": "x", "examples": 100, "scores": "as predicted"},
        made="2026-01-02",
        version="0.1.0",
    )
    before, after = np.array([0.1, 0.5, 0.5, 0.9]), np.array([0.1, 0.2])
    texts = (["a" * 9] * 4, ["a" * 9] * 2)
    found = drift(predictions(before), predictions(after), policy=policy, texts=texts)
    assert found.actions == {"allow": (0.25, 1.0), "review": (0.5, 0.0), "block": (0.25, 0.0)}
    assert found.lengths.distance == 0
    assert found.prevalence["yes"][0] == 0.4
    assert list(found.scores) == ["yes"]
    assert drift(predictions(before), predictions(after)).actions == {}
