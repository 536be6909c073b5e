"""The official accuracy of VQA v2 on real records, where the environment variable DIPTYCH_VQA names them.

The folder holds the official files of a subset of train2014, `predictions/*_results.json`, and as
`predictions/expected_accuracy.json` what `vqaEval.py` computed of it.
"""

import json
import os
from pathlib import Path

from diptych.datasets import Vqa
from diptych.evaluate import evaluate
from diptych.metrics.vqa import vqa_score

FOLDER = Path(os.environ["DIPTYCH_VQA"])


def test_every_number_is_that_of_the_script():
    expected = json.loads((FOLDER / "predictions" / "expected_accuracy.json").read_text())
    split = Vqa(FOLDER, "train")
    (path,) = (FOLDER / "predictions").glob("*_results.json")
    predictions = split.read_predictions(path)
    scores = [
        vqa_score(answer, example.meta["answers"])
        for answer, example in zip(predictions.answers, split, strict=True)
    ]
    assert {key: round(100 * one, 2) for key, one in zip(split.ids, scores, strict=True)} == expected[
        "per_question"
    ]
    official = expected["accuracy"]
    found = evaluate(predictions, split, samples=2)
    assert percent(found["accuracy"]) == official["overall"]
    for title, name in (("answer type", "perAnswerType"), ("question type", "perQuestionType")):
        table = found.breakdown[f"accuracy per {title}"]
        assert {kind: percent(one) for kind, one in table.items()} == official[name]


def percent(estimate):
    return round(100 * estimate.value, 2)
