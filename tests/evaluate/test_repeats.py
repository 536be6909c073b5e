"""Recipes of several seeds: means by hand, differences that hold and those that do not."""

import numpy as np
import pytest

from diptych.errors import ConfigError, FormatError
from diptych.evaluate import evaluate, repeated
from diptych.predictions import Predictions

IDS = tuple(f"{number:03d}" for number in range(120))
TRUTH = {key: "hateful" if number % 3 == 0 else "benign" for number, key in enumerate(IDS)}


def predictions(strength, seed):
    known = np.array([TRUTH[key] == "hateful" for key in IDS])
    scores = 1 / (1 + np.exp(-(strength * known + np.random.default_rng(seed).normal(size=len(IDS)))))
    return Predictions(ids=IDS, scores=np.stack((1 - scores, scores), 1), classes=("benign", "hateful"))


def test_means_spreads_and_differences():
    good, weak = ([predictions(strength, seed) for seed in range(3)] for strength in (3.0, 0.5))
    found = repeated({"good": good, "weak": weak, "once": weak[:1]}, TRUTH, positive="hateful", samples=300)
    values = [evaluate(one, TRUTH, positive="hateful", samples=2)["auroc"].value for one in good]
    assert (found.measure, found.count) == ("auroc", 120)
    assert found.recipes["good"].values == pytest.approx(values)
    assert found.recipes["good"].mean.value == pytest.approx(np.mean(values))
    assert found.recipes["good"].spread == pytest.approx(np.std(values, ddof=1))
    assert np.isnan(found.recipes["once"].spread)
    tested = {(one.first, one.second): one for one in found.contrasts}
    assert tested["good", "weak"].p < 0.02
    assert tested["good", "weak"].difference.low > 0
    # The mean of three seeds and one of them.
    assert tested["weak", "once"].p > 0.05
    assert tested["weak", "once"].difference.low < 0 < tested["weak", "once"].difference.high


def test_seeds_widen_the_interval():
    equal = [predictions(1.0, 0)] * 3
    different = [predictions(strength, 0) for strength in (0.2, 1.0, 1.8)]
    found = repeated({"equal": equal, "different": different}, TRUTH, positive="hateful", samples=300).recipes
    widths = {name: one.mean.high - one.mean.low for name, one in found.items()}
    assert widths["different"] > 1.2 * widths["equal"]


def test_without_predictions_or_with_others_there_is_no_mean():
    with pytest.raises(ConfigError, match="empty"):
        repeated({"empty": []}, TRUTH)
    with pytest.raises(ConfigError):
        repeated({}, TRUTH)
    with pytest.raises(FormatError, match="x"):
        repeated({"a": [predictions(1.0, 0)]}, {"x": "benign", "y": "hateful"})
