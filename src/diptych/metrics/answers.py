"""How good given answers are."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from diptych.metrics.classification import labeled
from diptych.predictions import Predictions

PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'


def grade_answers(given: Iterable[str]) -> dict[str, float]:
    """Scores of what several people answered, as VQA's models learn them: 0.3 for each, at most 1."""
    return {answer: min(1.0, 0.3 * count) for answer, count in Counter(given).items()}


def without_punctuation(answer: str) -> str:
    """An answer as VQA's evaluation and VL-BERT's list of answers spell it.

    A mark between two characters becomes a space, unless it stands beside a space somewhere in the answer, or
    the answer holds a number like `10,000`; then it vanishes, as do periods that no digit follows.
    """
    number = re.search(r"\d,\d", answer) is not None
    plain = answer
    for mark in PUNCTUATION:
        loose = number or f"{mark} " in answer or f" {mark}" in answer
        plain = plain.replace(mark, "" if loose else " ")
    return re.sub(r"\.(?!\d)", "", plain)


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
    return {"accuracy": float(answer_scores(predictions, [targets[key] for key in predictions.ids]).mean())}


def answer_scores(predictions: Predictions, targets: Sequence[Any]) -> Float[ndarray, " N"]:
    """Score in [0, 1] of the answer of each row; 0 where its target has none for it."""
    scores = [
        float(target == answer) if isinstance(target, str) else float(target.get(answer, 0))
        for target, answer in zip(targets, predictions.answers or (), strict=True)
    ]
    return np.array(scores)


def consistency(predictions: Predictions, targets: Mapping[str, str]) -> float:
    """Share of NLVR2's sentences that are judged right with every pair of images they are shown with.

    Args:
        targets: the right answer by id. An id is `split-set-pair-sentence`; those that differ in the pair
            alone share a sentence.
    """
    groups: dict[str, list[bool]] = defaultdict(list)
    for key, answer in zip(predictions.ids, predictions.answers or (), strict=True):
        split, images, _, sentence = key.split("-")
        groups[f"{split}-{images}-{sentence}"].append(targets[key] == answer)
    return float(np.mean([all(right) for right in groups.values()]))
