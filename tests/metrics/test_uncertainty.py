"""Intervals and tests: against naive loops, against each other, and by how often they hold."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from diptych.metrics import (
    accuracy,
    auroc,
    average_precision,
    bootstrap_interval,
    brier,
    delong_test,
    paired_interval,
    permutation_test,
    uncertainty,
)


def judged(seed, count=200, *, shift=1.0):
    """Truth and two correlated score vectors of which the first is better."""
    generator = np.random.default_rng(seed)
    truth = generator.random(count) < 0.4
    signal = generator.normal(size=count) + shift * truth
    return truth, signal, signal + 0.8 * generator.normal(size=count)


def binormal_auroc(shift):
    from scipy.stats import norm

    return norm.cdf(shift / np.sqrt(2))


@pytest.mark.parametrize(
    ("metric", "peer"), [(auroc, roc_auc_score), (average_precision, average_precision_score)]
)
@pytest.mark.parametrize("digits", [1, 8])
def test_rowwise_metrics_equal_scikit_learn_on_every_row(metric, peer, digits):
    truth, first, _ = judged(0, 90)
    drawn = np.random.default_rng(1).integers(90, size=(20, 90))
    ranks = uncertainty._ranked(metric, first.round(digits))[0]
    values = uncertainty.ROWWISE[metric](truth, ranks[drawn])
    naive = [peer(truth, first.round(digits)[rows]) for rows in drawn]
    assert values == pytest.approx(naive, abs=1e-12)


@pytest.mark.parametrize("metric", [auroc, average_precision])
@pytest.mark.slow
def test_fast_path_equals_the_general_one(metric):
    truth, first, second = judged(2, 80)
    slow = lambda truth, scores: metric(truth, scores)  # noqa: E731 - another function object, so the slow way
    for measure, scores in ((bootstrap_interval, (first,)), (paired_interval, (first, second))):
        fast = measure(truth, *scores, metric, samples=60, seed=5)
        assert fast == pytest.approx(measure(truth, *scores, slow, samples=60, seed=5))
    fast = permutation_test(truth, first, second, metric, samples=60, seed=5)
    assert fast == permutation_test(truth, first, second, slow, samples=60, seed=5)


def test_interval_is_seeded_ordered_and_around_the_value():
    truth, scores, _ = judged(3)
    low, high = bootstrap_interval(truth, scores, auroc, samples=500)
    assert low < auroc(truth, scores) < high
    assert (low, high) == bootstrap_interval(truth, scores, auroc, samples=500)
    assert (low, high) != bootstrap_interval(truth, scores, auroc, samples=500, seed=1)
    narrow = bootstrap_interval(truth, scores, auroc, level=0.5, samples=500)
    assert low < narrow[0] < narrow[1] < high


def test_chunks_do_not_change_the_interval_beyond_chance(monkeypatch):
    truth, scores, _ = judged(4)
    whole = bootstrap_interval(truth, scores, auroc, samples=1000)
    monkeypatch.setattr(uncertainty, "CELLS", 1000)
    assert bootstrap_interval(truth, scores, auroc, samples=1000) == pytest.approx(whole, abs=0.02)


def test_classes_keep_their_size_in_every_resample():
    truth, scores, _ = judged(5)
    share = bootstrap_interval(truth, scores, lambda truth, scores: float(truth.mean()), samples=50)
    assert share == (truth.mean(), truth.mean())


def test_degenerate_data_gives_degenerate_intervals():
    truth = np.array([0, 1, 0, 1, 1])
    assert bootstrap_interval(truth, np.full(5, 0.3), auroc, samples=20) == (0.5, 0.5)
    assert bootstrap_interval(truth, truth.astype(float), auroc, samples=20) == (1.0, 1.0)
    assert np.isnan(bootstrap_interval(np.ones(5, dtype=int), np.arange(5.0), auroc, samples=20)).all()
    assert np.isnan(
        permutation_test(np.ones(5, dtype=int), np.arange(5.0), np.arange(5.0), auroc, samples=20)
    )
    assert np.isnan(delong_test(np.array([1, 0, 0]), np.arange(3.0), np.arange(3.0))).all()


def test_unusable_arguments_are_refused():
    truth, scores = np.array([0, 1]), np.array([0.1, np.nan])
    with pytest.raises(ValueError, match="nan"):
        bootstrap_interval(truth, scores, auroc)
    for compare in (paired_interval, permutation_test):
        with pytest.raises(ValueError, match="nan"):
            compare(truth, truth, scores, auroc)
    with pytest.raises(ValueError, match="nan"):
        delong_test(truth, truth, scores)
    with pytest.raises(ValueError, match=r"level .* 95\.0; "):
        bootstrap_interval(truth, truth, auroc, level=95.0)
    with pytest.raises(ValueError, match=r"samples .* 0; "):
        bootstrap_interval(truth, truth, auroc, samples=0)


def test_interval_covers_the_true_auroc_about_as_often_as_it_says():
    true, hits = binormal_auroc(1.0), 0
    for seed in range(200):
        truth, scores, _ = judged(seed, 150)
        low, high = bootstrap_interval(truth, scores, auroc, samples=200, seed=seed)
        hits += low <= true <= high
    assert 0.90 <= hits / 200 <= 0.99


def test_delong_agrees_with_its_definition_and_with_the_bootstrap():
    truth, first, second = judged(7, 400)
    result = delong_test(truth, first, second)
    assert result.difference == pytest.approx(auroc(truth, first) - auroc(truth, second))
    assert result.low < result.difference < result.high
    # structural components written out as in the paper
    wins = [(s[truth][:, None] > s[~truth]) + 0.5 * (s[truth][:, None] == s[~truth]) for s in (first, second)]
    delta = wins[0] - wins[1]
    positives, negatives = delta.shape
    variance = delta.mean(1).var(ddof=1) / positives + delta.mean(0).var(ddof=1) / negatives
    assert (result.high - result.low) / 2 / 1.959964 == pytest.approx(np.sqrt(variance), rel=1e-6)
    low, high = paired_interval(truth, first, second, auroc, samples=2000)
    assert (high - low) == pytest.approx(result.high - result.low, rel=0.1)
    assert (low, high) == pytest.approx((result.low, result.high), abs=0.006)


def test_delong_is_antisymmetric_and_blind_to_monotone_maps():
    truth, first, second = judged(8)
    forward, backward = delong_test(truth, first, second), delong_test(truth, second, first)
    assert backward == pytest.approx((-forward.difference, -forward.high, -forward.low, forward.p))
    assert delong_test(truth, np.exp(first), second) == pytest.approx(forward)
    assert delong_test(truth, first, first) == (0.0, 0.0, 0.0, 1.0)


@pytest.mark.parametrize("test", ["delong", "permutation"])
def test_p_values_of_equal_classifiers_are_about_uniform(test):
    generator = np.random.default_rng(9)
    values = []
    for seed in range(150):
        truth = generator.random(120) < 0.5
        first, second = generator.normal(size=(2, 120)) + truth
        if test == "delong":
            values.append(delong_test(truth, first, second).p)
        else:
            values.append(permutation_test(truth, first, second, auroc, samples=99, seed=seed))
    assert np.mean(np.array(values) <= 0.05) < 0.12
    assert 0.35 < np.mean(values) < 0.65


def test_permutation_finds_real_differences_in_any_metric():
    truth, first, second = judged(10, 600)
    better, worse = 1 / (1 + np.exp(-first)), 1 / (1 + np.exp(-second))
    for metric in (auroc, average_precision, brier):
        assert permutation_test(truth, worse, better, metric, samples=199) < 0.05
    at_half = lambda truth, scores: accuracy(truth, scores >= 0.5)  # noqa: E731
    assert permutation_test(truth, better, better, at_half, samples=99) == 1.0
