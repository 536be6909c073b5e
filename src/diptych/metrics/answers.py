"""How good given answers are."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from diptych.metrics.classification import labeled
from diptych.predictions import Predictions


def measure_answers(predictions: Predictions, targets: Mapping[str, Any]) -> dict[str, float]:
    """Mean score of the answers, which is VQA's accuracy; empty without any known target.

    Args:
        targets: `{answer: score}` by id, or the only right answer; None where it is not known. Answers that
            have no score get 0.

    Raises:
        FormatError: an id has no entry in `targets`.
    """
    predictions = labeled(predictions, targets)
    if not len(predictions):
        return {}
    known = [targets[key] for key in predictions.ids]
    scores = [
        float(target == answer) if isinstance(target, str) else float(target.get(answer, 0))
        for target, answer in zip(known, predictions.answers or (), strict=True)
    ]
    return {"accuracy": float(np.mean(scores))}
