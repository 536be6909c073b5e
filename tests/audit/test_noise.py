"""Ceilings: against simulation, and kappa against scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score, roc_auc_score

from diptych.audit.noise import best_auroc, ceiling_of, ceiling_of_copies, ceiling_of_second
from diptych.errors import FormatError


@pytest.fixture(scope="module")
def noisy():
    """The truth, and two labels that are wrong with probability 0.1."""
    generator = np.random.default_rng(0)
    truth = generator.random(20_000) < 0.3
    return truth, *(truth ^ (generator.random(20_000) < 0.1) for _ in range(2))


def test_the_ceiling_is_what_the_truth_reaches(noisy):
    truth, first, second = noisy
    names = np.array(["no", "yes"])
    pairs = list(zip(names[first.astype(int)].tolist(), names[second.astype(int)].tolist(), strict=True))
    found = ceiling_of("second labels", pairs[:2000], positive="yes")
    assert found.count == 2000
    assert found.error == pytest.approx(0.1, abs=0.015)
    assert found.accuracy == pytest.approx((truth == first).mean(), abs=0.015)
    assert found.auroc == pytest.approx(roc_auc_score(first, truth), abs=0.02)
    assert found.annotator == pytest.approx(roc_auc_score(first, second), abs=0.03)
    kappa = cohen_kappa_score(first[:2000], second[:2000])
    assert found.kappa.value == pytest.approx(kappa)
    assert found.kappa.low < kappa < found.kappa.high


def test_labels_that_agree_set_no_ceiling():
    found = ceiling_of("copies", [("a", "a"), ("b", "b")])
    assert (found.error, found.accuracy, found.auroc, found.disagreeing) == (0, 1, 1, 0)


def test_half_of_the_labels_disagree():
    found = ceiling_of("copies", [("a", "b"), ("b", "a"), ("a", "a"), ("b", "b")])
    assert np.isnan(found.error)
    assert np.isnan(found.auroc)
    assert found.kappa.value == 0


def test_no_ceiling_without_a_class():
    assert np.isnan(best_auroc(0.0, 0.1))
    assert best_auroc(0.5, 0.1) == pytest.approx(0.9)


def test_second_labels_of_examples(twins):
    assert ceiling_of_copies(twins) is None
    rows = [*zip(twins.sheet.ids, twins.sheet.labels, strict=True)][:10]
    # By number, as in the files of the data set; two are changed.
    second = {key: str(int(label == "hateful") ^ (at < 2)) for at, (key, label) in enumerate(rows)}
    found = ceiling_of_second(twins, second)
    assert (found.count, found.disagreeing) == (10, 2)
    with pytest.raises(FormatError, match="rude"):
        ceiling_of_second(twins, {rows[0][0]: "rude"})
    with pytest.raises(FormatError):
        ceiling_of_second(twins, {})


def test_copies_that_disagree(planted, spoiled):
    import json

    lines = [json.loads(line) for line in (spoiled / "train.jsonl").read_text().splitlines()[:4]]
    copies = [{**line, "id": 90000 + at, "label": line["label"] ^ (at == 0)} for at, line in enumerate(lines)]
    found = ceiling_of_copies(planted(dev_seen=copies))
    assert (found.source, found.count, found.disagreeing) == ("copies", 4, 1)
