"""Against scikit-learn, and by hand where scikit-learn has nothing."""

import numpy as np
import pytest
from sklearn import metrics as peer

from diptych.errors import FormatError
from diptych.metrics import (
    accuracy,
    auroc,
    average_precision,
    batch_mean_auroc,
    best_threshold,
    brier,
    calibration_error,
    f1,
    macro_f1,
    measure_classes,
    precision_recall_points,
    reliability,
    roc_points,
)
from diptych.predictions import Predictions


@pytest.fixture(params=[0, 1, 2])
def rows(request):
    """Truth and probabilities with many ties."""
    generator = np.random.default_rng(request.param)
    truth = generator.random(300) < 0.35
    return truth, np.clip((generator.normal(0.4 + 0.2 * truth, 0.25) * 20).round() / 20, 0, 1)


def test_two_class_measures_equal_scikit_learn(rows):
    truth, scores = rows
    assert auroc(truth, scores) == pytest.approx(peer.roc_auc_score(truth, scores), abs=1e-12)
    assert average_precision(truth, scores) == pytest.approx(peer.average_precision_score(truth, scores))
    assert brier(truth, scores) == pytest.approx(peer.brier_score_loss(truth, scores))
    decisions = scores >= 0.5
    assert accuracy(truth, decisions) == pytest.approx(peer.accuracy_score(truth, decisions))
    assert f1(truth, decisions) == pytest.approx(peer.f1_score(truth, decisions))
    assert macro_f1(truth, decisions) == pytest.approx(peer.f1_score(truth, decisions, average="macro"))


def test_areas_under_the_points_are_the_measures(rows):
    truth, scores = rows
    alarms, hits = roc_points(truth, scores)
    assert np.trapezoid(hits, alarms) == pytest.approx(auroc(truth, scores))
    recall, precision = precision_recall_points(truth, scores)
    assert -np.sum(np.diff(recall) * precision[:-1]) == pytest.approx(average_precision(truth, scores))


def test_auroc_counts_won_pairs_and_half_of_ties():
    truth, scores = np.array([1, 0, 1, 0, 0]), np.array([0.9, 0.9, 0.4, 0.1, 0.5])
    assert auroc(truth, scores) == pytest.approx((2.5 + 1) / 6)
    assert auroc(truth, np.full(5, 0.3)) == 0.5
    assert auroc(truth, np.array([0.0, -np.inf, 5.0, -1.0, -2.0])) == 1.0


def test_measures_of_a_single_class_are_nan():
    scores = np.array([0.1, 0.9])
    assert np.isnan(auroc(np.array([1, 1]), scores))
    assert np.isnan(auroc(np.array([0, 0]), scores))
    assert np.isnan(average_precision(np.array([0, 0]), scores))
    assert np.isnan(f1(np.array([0, 0]), np.array([0, 0])))
    assert average_precision(np.array([1, 1]), scores) == 1.0


@pytest.mark.parametrize("measure", [auroc, average_precision, brier, calibration_error, best_threshold])
def test_unusable_input_is_refused(measure):
    with pytest.raises(ValueError, match=r"1 of 3 .* 2\."):
        measure(np.array([0, 1, 1]), np.array([0.1, 0.2, np.nan]))
    with pytest.raises(ValueError, match=r" 2 .* 1; "):
        measure(np.array([0, 2, 1]), np.array([0.1, 0.2, 0.3]))
    with pytest.raises(ValueError, match="no rows"):
        measure(np.array([], dtype=int), np.array([]))


@pytest.mark.parametrize("measure", [brier, calibration_error, reliability])
def test_calibration_takes_probabilities_only(measure):
    with pytest.raises(ValueError, match=r" -2\.0 .* 1 .*\[0, 1\]"):
        measure(np.array([0, 1]), np.array([0.1, -2.0]))


def test_batch_mean_weighs_batches_and_skips_those_of_one_class():
    truth = np.array([0, 1, 1, 0, 1, 1, 1, 0, 1])
    scores = np.array([0.1, 0.9, 0.2, 0.8, 0.5, 0.5, 0.5, 0.7, 0.3])
    # batches of 4, 4 and 1: 3 of 4 pairs won, none of 3, one class
    assert batch_mean_auroc(truth, scores, 4) == pytest.approx((4 * 0.75 + 4 * 0.0) / 8)
    assert batch_mean_auroc(truth, scores, 9) == pytest.approx(auroc(truth, scores))
    assert np.isnan(batch_mean_auroc(truth, scores, 1))


def test_calibration_error_by_hand_in_both_binnings():
    truth = np.array([0, 1, 0, 1])
    probabilities = np.array([0.1, 0.15, 0.2, 0.9])
    # equal width, two bins: [0.1 0.15 0.2] has mean 0.15 and frequency 1/3, [0.9] has 0.9 and 1
    width = 0.75 * (1 / 3 - 0.15) + 0.25 * 0.1
    assert calibration_error(truth, probabilities, bins=2, binning="width") == pytest.approx(width)
    # equal mass, two bins: [0.1 0.15] has 0.125 and 1/2, [0.2 0.9] has 0.55 and 1/2
    mass = 0.5 * 0.375 + 0.5 * 0.05
    assert calibration_error(truth, probabilities, bins=2) == pytest.approx(mass)


def test_calibration_error_of_extremes():
    truth = np.array([0, 1, 1, 0])
    assert calibration_error(truth, truth.astype(float)) == 0.0
    assert calibration_error(truth, 1.0 - truth) == 1.0
    assert calibration_error(truth, np.full(4, 0.5)) == 0.0


@pytest.mark.parametrize("binning", ["mass", "width"])
def test_reliability_bins_hold_every_row_once_and_ties_together(rows, binning):
    truth, probabilities = rows
    bins = reliability(truth, probabilities, binning=binning)
    assert sum(b.count for b in bins) == len(truth)
    assert sum(b.count * b.frequency for b in bins) == pytest.approx(truth.sum())
    assert sum(b.count * b.probability for b in bins) == pytest.approx(probabilities.sum())
    assert [b.probability for b in bins] == sorted(b.probability for b in bins)
    assert len(reliability(truth, np.full(300, 0.3), binning=binning)) == 1


def test_equal_mass_bins_are_about_equally_full():
    generator = np.random.default_rng(0)
    probabilities = generator.random(1000) ** 4
    assert {b.count for b in reliability(probabilities > 0.5, probabilities, bins=8)} == {125}


@pytest.mark.parametrize(
    ("criterion", "quality"),
    [
        ("youden", lambda t, d: d[t].mean() - d[~t].mean()),
        ("accuracy", accuracy),
        ("f1", f1),
    ],
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_best_threshold_beats_every_other(rows, criterion, quality, dtype):
    truth, scores = rows[0], rows[1].astype(dtype)
    best = quality(truth, scores >= best_threshold(truth, scores, criterion=criterion))
    every = [quality(truth, scores >= value) for value in np.append(np.unique(scores), 2.0)]
    assert best == pytest.approx(max(every))


def test_best_threshold_by_hand():
    truth = np.array([0, 0, 1, 1])
    assert best_threshold(truth, np.array([0.1, 0.2, 0.6, 0.7])) == pytest.approx(0.4)
    assert best_threshold(truth, np.array([1, 2, 6, 7])) == 4.0
    rare = np.array([0, 1, 0, 0])
    threshold = best_threshold(rare, np.array([0.1, 0.2, 0.6, 0.7]), criterion="accuracy")
    assert threshold > 0.7  # deciding nothing positive is right three times
    with pytest.raises(ValueError, match="single class"):
        best_threshold(np.array([1, 1]), np.array([0.1, 0.2]))


def test_best_threshold_separates_neighboring_numbers():
    low = np.float32(0.5)
    scores = np.array([low, np.nextafter(low, np.float32(1))], dtype=np.float32)
    assert (scores >= best_threshold(np.array([0, 1]), scores)).tolist() == [False, True]


def classifier(scores, classes, **more):
    ids = tuple(str(n) for n in range(len(scores)))
    return Predictions(ids=ids, scores=np.array(scores, dtype=float), classes=classes, **more)


def test_two_classes_are_measured_by_the_second():
    predictions = classifier([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.7, 0.3]], ("benign", "hateful"))
    targets = {"0": "benign", "1": "hateful", "2": "hateful", "3": 0}
    measured = measure_classes(predictions, targets, ("benign", "hateful"))
    assert measured == {
        "auroc": 1.0,
        "accuracy": 0.75,
        "f1": pytest.approx(2 / 3),
        "average_precision": 1.0,
    }
    assert next(iter(measured)) == "auroc"
    swapped = measure_classes(predictions, targets | {"3": "benign"}, ("hateful", "benign"))
    assert swapped["f1"] == pytest.approx(0.8)


def test_answers_are_the_decisions_where_they_exist():
    scores, labels = [[0.9, 0.1], [0.6, 0.4]], ("benign", "hateful")
    predictions = classifier(scores, labels, answers=("benign", "hateful"))
    targets = {"0": "benign", "1": "hateful"}
    assert measure_classes(predictions, targets, labels)["accuracy"] == 1.0
    assert measure_classes(classifier(scores, labels), targets, labels)["accuracy"] == 0.5


def test_unlabeled_and_repeated_rows_are_left_out():
    predictions = classifier([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]], ("benign", "hateful"))
    twice = Predictions.concat([predictions, predictions])
    targets = {"0": "benign", "1": "hateful", "2": None}
    assert measure_classes(twice, targets, ("benign", "hateful"))["accuracy"] == 1.0
    assert measure_classes(twice, dict.fromkeys(targets), ("benign", "hateful")) == {}


def test_many_classes_are_measured_one_against_the_rest():
    generator = np.random.default_rng(3)
    truth = generator.integers(3, size=60)
    scores = generator.dirichlet(np.ones(3), size=60) + np.eye(3)[truth] * 0.3
    scores /= scores.sum(axis=1, keepdims=True)
    labels = ("cat", "dog", "owl")
    targets = {str(n): labels[index] for n, index in enumerate(truth)}
    measured = measure_classes(classifier(scores, labels), targets, labels)
    assert list(measured) == ["accuracy", "macro_f1", "macro_auroc"]
    decisions = scores.argmax(axis=1)
    assert measured["accuracy"] == pytest.approx(peer.accuracy_score(truth, decisions))
    assert measured["macro_f1"] == pytest.approx(peer.f1_score(truth, decisions, average="macro"))
    macro = peer.roc_auc_score(truth, scores, multi_class="ovr", average="macro")
    assert measured["macro_auroc"] == pytest.approx(macro)
    one = measure_classes(classifier(scores[:1], labels), targets, labels)
    assert np.isnan(one["macro_auroc"])


@pytest.mark.parametrize("target", ["hatefull", 2, -1, 0.5])
def test_a_wrong_target_is_named(target):
    with pytest.raises(FormatError, match=rf"^0: .*{target!r} .*\('benign', 'hateful'\)"):
        measure_classes(classifier([[0.9, 0.1]], ("benign", "hateful")), {"0": target}, ("benign", "hateful"))


def test_an_id_without_target_is_named():
    with pytest.raises(FormatError, match=r"^1 .*'0'"):
        measure_classes(classifier([[0.9, 0.1]], ("benign", "hateful")), {}, ("benign", "hateful"))
