import numpy as np
import pytest
from sklearn.metrics import f1_score, roc_auc_score

from diptych.errors import FormatError
from diptych.metrics import measure_labels
from diptych.predictions import Predictions

LABELS = ("a", "b", "c")


def judged(count=50):
    generator = np.random.default_rng(0)
    truth = generator.random((count, 3)) < (0.5, 0.3, 0.1)
    scores = np.clip(0.3 + 0.3 * truth + 0.2 * generator.normal(size=truth.shape), 0, 1)
    ids = tuple(map(str, range(count)))
    gold = {key: dict(zip(LABELS, map(float, row), strict=True)) for key, row in zip(ids, truth, strict=True)}
    return truth, Predictions(ids=ids, scores=scores, classes=LABELS), gold


@pytest.mark.parametrize("threshold", [0.3, 0.5])
def test_measures_agree_with_scikit_learn(threshold):
    truth, predictions, gold = judged()
    decided = predictions.scores >= threshold
    each = roc_auc_score(truth, predictions.scores, average=None)
    assert measure_labels(predictions, gold, LABELS, threshold=threshold) == pytest.approx(
        {
            "macro_auroc": each.mean(),
            "micro_f1": f1_score(truth, decided, average="micro"),
            "macro_f1": f1_score(truth, decided, average="macro"),
            "auroc_a": each[0],
            "auroc_b": each[1],
            "auroc_c": each[2],
        }
    )


def test_labels_that_never_hold_are_left_out_of_the_means():
    _, predictions, gold = judged()
    without = {key: {**target, "c": 0.0} for key, target in gold.items()}
    measured = measure_labels(predictions, without, LABELS)
    assert np.isnan(measured["auroc_c"])
    assert measured["macro_auroc"] == pytest.approx((measured["auroc_a"] + measured["auroc_b"]) / 2)


def test_other_labels_are_named():
    _, predictions, gold = judged(3)
    with pytest.raises(FormatError, match=r"^example 1 .*'d'"):
        measure_labels(predictions, gold | {"1": {"d": 1.0}}, LABELS)
    assert measure_labels(predictions, dict.fromkeys("012"), LABELS) == {}
