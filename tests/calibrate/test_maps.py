"""Maps: equal to scikit-learn's, monotone, and as far from the truth as published for their kind."""

import numpy as np
import pytest
from scipy.special import expit
from sklearn.calibration import _SigmoidCalibration, _TemperatureScaling
from sklearn.isotonic import IsotonicRegression

from diptych.calibrate import METHODS, Map, choose_method, cross_fitted, fit_map
from diptych.metrics import log_odds


def drawn(seed, count, shape="shifted"):
    """Truth, distorted probabilities, and the true posterior; 37 % positives."""
    generator = np.random.default_rng(seed)
    truth = generator.random(count) < 0.37
    odds = 1.5 * (generator.normal(size=count) + 1.5 * truth) - 1.125 + np.log(0.37 / 0.63)
    posterior = expit(odds)
    return truth, expit(2 * odds + 1) if shape == "shifted" else posterior**3, posterior


def excess(method, count, shape, draws=6):
    """Mean log loss above that of the posterior, on new examples."""
    found = []
    for seed in range(draws):
        truth, scores, _ = drawn(seed, count, shape)
        _, new, posterior = drawn(1000 + seed, 20_000, shape)
        p = np.clip(fit_map(method, scores, truth)(new), 1e-9, 1 - 1e-9)
        loss = posterior * np.log(posterior / p) + (1 - posterior) * np.log((1 - posterior) / (1 - p))
        found.append(loss.mean())
    return np.mean(found)


def test_platt_and_temperature_equal_scikit_learns():
    truth, scores, _ = drawn(0, 400)
    odds = log_odds(scores)
    peer = _SigmoidCalibration().fit(odds, truth.astype(float))
    found = fit_map("platt", scores, truth)
    assert (found.a, found.c) == pytest.approx((-peer.a_, -peer.b_), abs=1e-5)
    # Theirs scales the two log-odds x and -x, whose difference is twice ours.
    peer = _TemperatureScaling().fit(odds, truth.astype(int))
    assert fit_map("temperature", scores, truth).a == pytest.approx(2 * peer.beta_, rel=1e-4)


def test_temperature_equals_netcals():
    row = np.arange(600)
    scores = (row * 0.6180339887498949 % 1) ** 1.7 * 0.96 + 0.02
    truth = row * 0.7548776662466927 % 1 < scores**1.4 * 0.9 + 0.03
    # netcal 1.4.0's TemperatureScaling; its Platt and beta do not smooth the targets, as scikit-learn's does.
    expected = [0.054597, 0.207083, 0.403071, 0.596929, 0.792917, 0.945403]
    found = fit_map("temperature", scores, truth)(np.array([0.05, 0.2, 0.4, 0.6, 0.8, 0.95]))
    assert found == pytest.approx(expected, abs=2e-6)


def test_isotonic_has_the_blocks_of_scikit_learn_and_lines_between():
    truth, scores, _ = drawn(1, 300)
    scores = scores.round(2)  # with equal scores
    found = fit_map("isotonic", scores, truth)
    fitted = IsotonicRegression().fit_transform(log_odds(scores), truth)
    edge = 1 / 302
    assert found.values == pytest.approx(np.clip(np.unique(fitted), edge, 1 - edge))
    first = fitted == fitted.min()
    assert found.knots[0] == pytest.approx(log_odds(scores[first]).mean())
    middle = expit(np.array([(found.knots[0] + found.knots[1]) / 2]))
    assert found(middle)[0] == pytest.approx((found.values[0] + found.values[1]) / 2)


def test_beta_finds_its_own_numbers_and_never_falls():
    generator = np.random.default_rng(2)
    scores = generator.random(40_000)
    known = Map(method="beta", a=0.5, b=1.5, c=0.4)
    found = fit_map("beta", scores, generator.random(40_000) < known(scores))
    assert (found.a, found.b, found.c) == pytest.approx((0.5, 1.5, 0.4), abs=0.06)
    odd = fit_map("beta", np.repeat([0.1, 0.5, 0.9], 50), np.arange(150) % 50 < np.repeat([20, 25, 5], 50))
    assert min(odd.a, odd.b) >= 0


@pytest.mark.parametrize("method", METHODS)
def test_maps_keep_the_order_and_stay_probabilities(method):
    truth, scores, _ = drawn(3, 150)
    grid = np.linspace(0, 1, 500)
    for target in (truth, ~truth, scores > np.median(scores)):  # ranked, reversed, separated
        mapped = fit_map(method, scores, target)(grid)
        assert ((mapped >= 0) & (mapped <= 1)).all()
        assert (np.diff(mapped) >= 0).all()


def test_a_shift_needs_an_intercept():
    small, large = ({name: excess(name, count, "shifted") for name in METHODS} for count in (500, 3000))
    assert small["platt"] < 0.004 < 0.01 < small["temperature"]
    assert large["platt"] < 0.001
    assert large["temperature"] > 0.008
    assert large["platt"] < large["beta"] * 1.5 < large["isotonic"]


def test_a_curve_that_is_no_sigmoid_needs_more_than_a_line():
    found = {name: excess(name, 3000, "skewed") for name in ("platt", "beta", "isotonic")}
    assert found["beta"] < 0.002
    assert found["isotonic"] < 0.005
    assert found["beta"] < found["platt"] / 2


def test_auto_takes_the_simplest_that_is_as_good():
    truth, scores, posterior = drawn(4, 2000)
    assert choose_method(posterior, truth)[0] == "identity"
    assert choose_method(scores, truth)[0] == "platt"
    method, losses = choose_method(scores[:199], truth[:199])
    assert (method, list(losses)) == ("platt", ["platt"])
    truth, scores, _ = drawn(5, 3000, "skewed")
    assert choose_method(scores, truth)[0] == "beta"


def test_cross_fitted_probabilities_do_not_know_their_truth():
    truth, scores, _ = drawn(6, 200)
    before = cross_fitted("isotonic", scores, truth, folds=200, repeats=1)
    row = int(np.flatnonzero(truth)[0])
    held = np.arange(200) != row
    alone = fit_map("isotonic", scores[held], truth[held])(scores[row : row + 1])
    # With a positive and a negative per fold, the other one is missing, too.
    assert before[0, row] == pytest.approx(alone[0], abs=0.05)
    assert cross_fitted("platt", scores, truth).shape == (5, 200)
