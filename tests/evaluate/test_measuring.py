"""Gold and predictions meet on ids, and every number agrees with its own function."""

import json

import numpy as np
import pytest

from diptych.errors import FormatError
from diptych.evaluate import compare, evaluate
from diptych.metrics import (
    auroc,
    average_precision,
    bootstrap_interval,
    brier,
    calibration_error,
    delong_test,
)
from diptych.predictions import Predictions
from diptych.types import Example

CLASSES = ("benign", "hateful")


def judged(count=120, *, seed=0, noise=0.2, name="a.npz"):
    """Predictions of `count` memes and their gold."""
    truth = np.random.default_rng(0).random(count) < 0.4
    generator = np.random.default_rng(seed)
    positive = np.clip(0.4 + 0.2 * truth + noise * generator.normal(size=count), 0, 1)
    ids = tuple(f"m{n}" for n in range(count))
    scores = np.stack((1 - positive, positive), axis=1)
    gold = {key: CLASSES[int(label)] for key, label in zip(ids, truth, strict=True)}
    return Predictions(ids=ids, scores=scores, classes=CLASSES, meta={"path": f"runs/{name}"}), gold


class Memes:
    """The least of a data set."""

    def __init__(self, gold):
        self.examples = [Example(id=key, pairs=(), target=target) for key, target in gold.items()]

    def __len__(self):
        return len(self.examples)

    def __getitem__(self, index):
        return self.examples[index]

    def write(self, predictions, path):
        raise AssertionError("these tests write no submission")


def test_every_metric_is_that_of_its_function():
    predictions, gold = judged()
    result = evaluate(predictions, gold, samples=100)
    truth = np.array([target == "hateful" for target in gold.values()])
    scores = predictions.column("hateful")
    values = {name: estimate.value for name, estimate in result.metrics.items()}
    assert values == {
        "auroc": pytest.approx(auroc(truth, scores)),
        "average_precision": pytest.approx(average_precision(truth, scores)),
        "accuracy": pytest.approx(np.mean(truth == (scores >= 0.5))),
        "f1": pytest.approx(2 * (truth & (scores >= 0.5)).sum() / (truth.sum() + (scores >= 0.5).sum())),
        "calibration_error": pytest.approx(calibration_error(truth, scores)),
        "brier": pytest.approx(brier(truth, scores)),
    }
    interval = result.metrics["auroc"].low, result.metrics["auroc"].high
    assert interval == bootstrap_interval(truth, scores, auroc, samples=100)
    assert all(m.low <= m.value <= m.high for n, m in result.metrics.items() if n != "calibration_error")
    assert (result.count, result.positives) == (120, truth.sum())
    assert result.prevalence == pytest.approx(truth.mean())
    assert sum(b.count for b in result.reliability) == 120


def test_the_threshold_decides_accuracy_and_confusion_only():
    predictions, gold = judged()
    low, high = (evaluate(predictions, gold, threshold=t, samples=20) for t in (0.0, 0.9))
    assert low.metrics["auroc"] == high.metrics["auroc"]
    assert low.metrics["accuracy"].value == pytest.approx(low.prevalence)
    assert low.confusion["false_negative"] == low.confusion["true_negative"] == 0
    assert sum(high.confusion.values()) == 120
    assert high.confusion["true_positive"] < low.confusion["true_positive"]


def test_rows_join_on_ids_in_any_order_from_mapping_or_data_set():
    predictions, gold = judged()
    expected = evaluate(predictions, gold, samples=20)
    shuffled = predictions.select(np.random.default_rng(1).permutation(120))
    assert evaluate(shuffled, gold, samples=20) == expected
    assert evaluate(Predictions.concat([predictions, shuffled]), gold, samples=20) == expected
    indices = {key: CLASSES.index(target) for key, target in gold.items()}
    assert evaluate(predictions, indices, samples=20) == expected
    assert evaluate(predictions, Memes(gold), samples=20) == expected


def test_another_class_can_be_the_positive_one():
    predictions, gold = judged()
    expected = evaluate(predictions, gold, samples=20)
    turned = evaluate(predictions, gold, positive="benign", samples=20)
    assert turned.metrics["auroc"].value == pytest.approx(expected.metrics["auroc"].value)
    assert turned.positives == 120 - expected.positives
    with pytest.raises(FormatError, match=r"'cat'; .*\('benign'"):
        evaluate(predictions, gold, positive="cat", samples=20)


def test_examples_that_do_not_meet_are_counted_and_named():
    predictions, gold = judged(8)
    with pytest.raises(FormatError, match=r"a\.npz: .* 2 .*: m0, m1\. "):
        evaluate(predictions.select(range(2, 8)), gold)
    fewer = {key: gold[key] for key in ("m0", "m1")}
    message = r"a\.npz: .* 6 .*: m2, m3, m4, m5, m6, \.\.\.\. "
    with pytest.raises(FormatError, match=message):
        evaluate(predictions, fewer)
    with pytest.raises(FormatError, match=message):
        evaluate(predictions, gold | dict.fromkeys(list(gold)[2:]))  # withheld labels


def test_a_subset_must_be_asked_for_and_may_not_be_empty():
    predictions, gold = judged(40)
    known = dict(list(gold.items())[10:])
    part = evaluate(predictions.select(range(30)), known, subset=True, samples=20)
    whole = evaluate(predictions.select(range(10, 30)), dict(list(known.items())[:20]), samples=20)
    assert part == whole
    with pytest.raises(FormatError, match=r"a\.npz: .* 1 .*: other\. "):
        evaluate(predictions, {"other": "benign"}, subset=True)
    with pytest.raises(FormatError, match=r"^predictions: "):
        evaluate(Predictions(ids=(), scores=np.zeros((0, 2)), classes=CLASSES), {}, subset=True)


def test_wrong_gold_and_nan_scores_are_named():
    predictions, gold = judged(4)
    with pytest.raises(FormatError, match=r"example m1: .*'hatful' "):
        evaluate(predictions, gold | {"m1": "hatful"})
    predictions.scores[2] = np.nan
    with pytest.raises(FormatError, match=r"a\.npz: 1 .* m2; "):
        evaluate(predictions, gold)


def test_scores_that_are_no_probabilities_are_not_judged_as_such():
    predictions, gold = judged()
    logits = Predictions(ids=predictions.ids, scores=predictions.scores * 8 - 4, classes=CLASSES)
    result = evaluate(logits, gold, threshold=0.0, samples=20)
    assert list(result.metrics) == ["auroc", "average_precision", "accuracy", "f1"]
    assert result.reliability == ()
    expected = evaluate(predictions, gold, samples=20)
    assert result.metrics["accuracy"].value == pytest.approx(expected.metrics["accuracy"].value)


def test_one_class_leaves_auroc_undefined_in_table_and_json():
    predictions, gold = judged(10)
    result = evaluate(predictions, dict.fromkeys(gold, "benign"), samples=20)
    assert np.isnan(result.metrics["auroc"].value)
    plain = json.loads(json.dumps(result.as_dict(), allow_nan=False))
    assert plain["metrics"]["auroc"] == {"value": None, "low": None, "high": None}
    assert plain["prevalence"] == 0.0
    assert result.table()[1][0] == ("AUROC", "undefined", "undefined to undefined")
    assert "10 examples, 0 hateful (0.0%)" in result.summary()


def test_the_table_says_what_a_person_wants_to_know():
    predictions, gold = judged()
    result = evaluate(predictions, gold, samples=50)
    columns, rows = result.table()
    auc = result["auroc"]
    assert columns == ("metric", "value", "95 % interval")
    assert rows[0] == ("AUROC", f"{auc.value:.4f}", f"{auc.low:.4f} to {auc.high:.4f}")
    assert [row[0] for row in rows[2:4]] == ["accuracy", "F1"]
    found, missed = result.confusion["true_positive"], result.confusion["false_negative"]
    assert f"120 examples, {result.positives} hateful" in result.summary()
    assert f"{found} found, {missed} missed" in result.summary()


def test_comparison_is_first_minus_second_with_delong_p():
    (good, gold), (bad, _) = judged(300, noise=0.1), judged(300, seed=5, noise=0.5, name="b.npz")
    result = compare(good, bad.select(range(299, -1, -1)), gold, samples=200)
    auc = result["auroc"]
    truth = np.array([target == "hateful" for target in gold.values()])
    expected = delong_test(truth, good.column("hateful"), bad.column("hateful"))
    assert (auc.difference, auc.p) == pytest.approx((expected.difference, expected.p))
    assert 0 < auc.low < auc.difference < auc.high
    assert result.metrics["accuracy"].p < 0.05
    assert (result.first, result.second) == ("a.npz", "b.npz")
    columns, rows = result.table()
    assert columns == ("metric", "a.npz", "b.npz", "difference", "95 % interval", "p")
    assert rows[0][3] == f"+{auc.difference:.4f}"
    assert rows[0][-1] == "< 0.001"
    json.dumps(result.as_dict(), allow_nan=False)


def test_comparison_with_itself_finds_nothing():
    predictions, gold = judged()
    result = compare(predictions, predictions, gold, samples=50)
    assert {(d.difference, d.low, d.high, d.p) for d in result.metrics.values()} == {(0.0, 0.0, 0.0, 1.0)}


def test_files_of_one_name_are_told_apart_by_their_folders():
    predictions, gold = judged(20)
    other = Predictions(
        ids=predictions.ids, scores=predictions.scores, classes=CLASSES, meta={"path": "other/a.npz"}
    )
    result = compare(predictions, other, gold, samples=20)
    assert (result.first, result.second) == ("runs/a.npz", "other/a.npz")


def test_comparison_needs_the_same_examples():
    first, gold = judged(20)
    with pytest.raises(FormatError, match=r"a\.npz: .* 5 .*: m15, m16, m17, m18, m19\. "):
        compare(first, first.select(range(15)), gold, samples=20)
    with pytest.raises(FormatError, match=r" 5 \(m15, m16, m17, m18, m19\) .* 0 "):
        compare(first, first.select(range(15)), gold, subset=True, samples=20)
