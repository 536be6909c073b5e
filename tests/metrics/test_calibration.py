"""Measures of calibration: against scikit-learn, netcal and SciPy, and by what they say of known scores."""

import numpy as np
import pytest
from scipy.special import expit
from scipy.stats import binomtest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss, log_loss

from diptych.metrics import (
    CalibrationMeasures,
    calibration_error,
    fit_logistic,
    log_odds,
    wilson_interval,
)
from diptych.metrics.uncertainty import class_rows, percentiles, resampled_sums


def judged(seed, count=1500, *, slope=1.0, shift=0.0):
    """Truth and probabilities; the defaults are calibrated."""
    generator = np.random.default_rng(seed)
    odds = generator.normal(size=count) * 1.5 - 0.5
    return generator.random(count) < expit(odds), expit(slope * odds + shift)


def test_values_equal_those_of_scikit_learn():
    truth, scores = judged(0, slope=2.0, shift=1.0)
    found = CalibrationMeasures(truth, scores)
    values = found.values()
    assert values["brier"] == pytest.approx(brier_score_loss(truth, scores))
    assert values["log_loss"] == pytest.approx(log_loss(truth, scores), rel=1e-6)
    assert values["calibration_error"] == pytest.approx(calibration_error(truth, scores, bins=15))
    line = LogisticRegression(C=np.inf, tol=1e-10).fit(log_odds(scores)[:, None], truth)
    assert values["slope"] == pytest.approx(line.coef_[0, 0], abs=1e-4)
    assert values["intercept"] == pytest.approx(line.intercept_[0], abs=1e-4)
    assert found.cox_test() < 1e-6


def test_murphys_parts_add_up_where_bins_hold_equal_scores():
    scores = np.repeat([0.1, 0.3, 0.7], 300)
    truth = np.random.default_rng(1).random(900) < scores**2
    values = CalibrationMeasures(truth, scores, bins=3).values()
    parts = [values[f"murphy_{name}"] for name in ("reliability", "resolution", "uncertainty")]
    assert parts[0] - parts[1] + parts[2] == pytest.approx(values["brier"])


def test_the_debiased_error_of_calibrated_scores_is_smaller_than_the_plain_one():
    errors = [CalibrationMeasures(*judged(seed, 450)).values() for seed in range(20)]
    plain, debiased = (
        np.mean([one[name] for one in errors]) for name in ("calibration_error", "debiased_calibration_error")
    )
    assert plain > 0.04
    assert debiased < 0.6 * plain


def test_resamples_agree_with_measuring_their_rows():
    truth, scores = judged(2, slope=0.6)
    found = CalibrationMeasures(truth, scores)
    rows = np.random.default_rng(0).integers(len(truth), size=(5, len(truth)))
    values = found.of_sums(found.columns[rows].sum(axis=1))
    again = [CalibrationMeasures(truth[one], scores[one]).values() for one in rows]
    for name, tolerance in (("brier", 1e-12), ("log_loss", 1e-12), ("slope", 0.01), ("intercept", 0.01)):
        assert values[name] == pytest.approx([one[name] for one in again], abs=tolerance)


def test_intervals_hold_the_truth_about_as_often_as_they_say():
    inside = 0
    for seed in range(60):
        truth, scores = judged(seed, 400, slope=0.5)
        found = CalibrationMeasures(truth, scores)
        sums = resampled_sums(found.columns, class_rows(truth), samples=200)
        low, high = percentiles(found.of_sums(sums, resampled=True)["slope"])
        inside += low <= 2.0 <= high
    assert inside >= 51  # of 60; 57 are expected


@pytest.mark.parametrize("ends", [(0.01, 0.99), (1e-4, 1 - 1e-4), (0.49, 0.51)])
def test_separated_classes_have_no_slope(ends):
    scores = np.linspace(*ends, 80)
    found = CalibrationMeasures(scores > 0.5, scores)
    sums = resampled_sums(found.columns, class_rows(scores > 0.5), samples=3)
    assert np.isnan([found.values()["slope"], found.cox_test()]).all()
    assert np.isnan(found.of_sums(sums)["intercept"]).all()
    assert np.isfinite(found.of_sums(sums)["brier"]).all()


@pytest.mark.parametrize("columns", [np.zeros((6, 1)), np.ones((6, 2))])
def test_columns_that_say_nothing_have_no_fit(columns):
    assert fit_logistic(columns, np.array([0.0, 1, 0, 1, 1, 0])) is None


@pytest.mark.parametrize(("hits", "total"), [(0, 7), (3, 7), (7, 7), (120, 400)])
def test_wilsons_interval_equals_scipys(hits, total):
    expected = binomtest(hits, total).proportion_ci(method="wilson")
    assert wilson_interval(hits, total) == pytest.approx((expected.low, expected.high))


def test_resampled_sums_keep_the_size_of_strata_and_are_seeded(monkeypatch):
    truth = np.arange(50) < 20
    values = np.stack((truth, np.arange(50)), axis=1).astype(float)
    sums = resampled_sums(values, class_rows(truth), samples=400)
    assert (sums[:, 0] == 20).all()
    assert sums[:, 1].mean() == pytest.approx(values[:, 1].sum(), rel=0.01)
    assert sums[:, 1].std() == pytest.approx(
        np.sqrt(20 * np.var(np.arange(20)) + 30 * np.var(np.arange(20, 50))), rel=0.15
    )
    assert (sums == resampled_sums(values, class_rows(truth), samples=400)).all()


def test_the_errors_equal_netcals():
    # netcal 1.4.0: ECE and MCE with `equal_intervals=False`; it needs four frameworks; its numbers:
    row = np.arange(600)
    probabilities = (row * 0.6180339887498949 % 1) ** 1.7 * 0.96 + 0.02
    truth = row * 0.7548776662466927 % 1 < probabilities**1.4 * 0.9 + 0.03
    for bins, error in ((10, 0.07644590672588521), (15, 0.07871949888656406)):
        found = CalibrationMeasures(truth, probabilities, bins=bins).values()
        assert found["calibration_error"] == pytest.approx(error, abs=1e-12)
    assert found["largest_gap"] == pytest.approx(0.19797199011404687, abs=1e-12)
