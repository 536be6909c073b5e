"""Metrics equal the official evaluation scripts."""

import json

import pytest

from diptych.metrics import consistency, measure_answers
from diptych.predictions import Predictions


def test_nlvr2_equals_the_official_evaluation(goldens):
    name = "nlvr2-metric"
    golden = json.loads((goldens / f"{name}.json").read_text())
    targets = {one["identifier"]: one["label"] for one in golden["examples"]}
    ids, answers = zip(*golden["predictions"], strict=True)
    predictions = Predictions(ids=ids, answers=answers)
    assert measure_answers(predictions, targets)["accuracy"] == pytest.approx(golden["accuracy"])
    assert consistency(predictions, targets) == pytest.approx(golden["consistency"])
