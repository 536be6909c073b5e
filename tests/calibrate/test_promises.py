"""Promises: how often they break, and the bound they rest on."""

import numpy as np
import pytest
from scipy.stats import binomtest, norm

from diptych.calibrate import promise_above, promise_below
from diptych.calibrate.promises import needed, upper_bound


@pytest.mark.parametrize(("hits", "count"), [(0, 45), (3, 100), (100, 100)])
def test_the_bound_is_clopper_pearsons(hits, count):
    # Two-sided at 80 %, so one-sided at 90 %.
    exact = binomtest(hits, count).proportion_ci(confidence_level=0.8, method="exact")
    assert upper_bound(np.array([hits]), count, delta=0.1)[0] == pytest.approx(exact.high)


def test_the_usual_threshold_breaks_its_promise_every_other_time():
    generator, broken, expected = np.random.default_rng(0), np.zeros(2), []
    for _ in range(300):
        positives = generator.normal(size=185) + 1.5  # 37 % of 500
        found = promise_below(positives, limit=0.05, delta=0.1)
        broken += [norm.cdf(at - 1.5) > 0.05 for at in (found.naive, found.threshold)]
        expected.append(found.naive_broken)
    usual, ours = broken / 300
    assert 0.42 < usual < 0.62
    assert ours < 0.1
    assert np.mean(expected) == pytest.approx(usual, abs=0.08)


def test_the_promise_about_wrong_blocks_is_the_mirror_image():
    scores = np.random.default_rng(1).random(300)
    below, above = (
        call(values, limit=0.1, delta=0.05)
        for call, values in ((promise_below, scores), (promise_above, 1 - scores))
    )
    assert above.threshold == pytest.approx(1 - below.threshold)
    assert above.naive == pytest.approx(1 - below.naive)
    assert (above.share, above.bound) == (below.share, below.bound)
    assert below.share == np.mean(scores < below.threshold)
    assert below.bound <= 0.1 < upper_bound(np.array([round(below.share * 300) + 1]), 300, delta=0.05)[0]


def test_missing_labels_are_counted():
    assert needed(0.05, 0.1) == 45
    scores = np.linspace(0.2, 0.9, 44)
    found = promise_below(scores, limit=0.05, delta=0.1)
    assert (found.threshold, found.missing) == (None, 1)
    found = promise_below(np.append(scores, 0.95), limit=0.05, delta=0.1)
    assert (found.threshold, found.missing) == (0.2, 0)


def test_equal_scores_are_on_one_side():
    scores = np.repeat([0.1, 0.5, 0.9], [2, 100, 100])
    found = promise_below(scores, limit=0.05, delta=0.1)
    assert found.threshold == 0.5
    assert found.share == 2 / 202
