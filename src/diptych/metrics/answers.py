"""Measures of predicted answers (VQA, NLVR2)."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from diptych.metrics.classification import labeled
from diptych.predictions import Predictions

PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'  # the marks of VQA's evaluation script


def grade_answers(given: Iterable[str]) -> dict[str, float]:
    """Training scores of several people's answers, as in VQA: 0.3 per person, at most 1."""
    # VQA's min(1, count / 3), averaged over all groups of nine of its ten people, is exactly this.
    return {answer: min(1.0, 0.3 * count) for answer, count in Counter(given).items()}


def without_punctuation(answer: str) -> str:
    """Normalize punctuation as VQA's evaluation and VL-BERT's list of answers do.

    A punctuation mark becomes a space. It is removed instead if it is next to a space anywhere in the answer,
    or if the answer contains a number like `10,000`. Periods are removed unless a digit follows.
    """
    number = re.search(r"\d,\d", answer) is not None
    plain = answer
    # The evaluation's script decides once per mark and answer, not per occurrence.
    for mark in PUNCTUATION:
        # Looked for in the original answer, while `plain` changes from mark to mark.
        remove = number or f"{mark} " in answer or f" {mark}" in answer
        plain = plain.replace(mark, "" if remove else " ")
    # The script passes re.UNICODE, which is 32, as the largest number of replacements.
    return re.sub(r"\.(?!\d)", "", plain, count=32)


def measure_answers(predictions: Predictions, targets: Mapping[str, Any]) -> dict[str, float]:
    """Mean score of the answers (VQA's accuracy); empty if no target is known.

    Args:
        targets: for each id, `{answer: score}` or the only right answer; None if unknown. Answers without a
            score count as 0.

    Raises:
        FormatError: an id has no entry in `targets`.
    """
    predictions = labeled(predictions, targets)
    if not len(predictions):
        return {}
    return {"accuracy": float(answer_scores(predictions, [targets[key] for key in predictions.ids]).mean())}


def answer_scores(predictions: Predictions, targets: Sequence[Any]) -> Float[ndarray, " N"]:
    """Score of each row's answer in [0, 1]; 0 if its target does not list it."""
    scores = [
        float(target == answer) if isinstance(target, str) else float(target.get(answer, 0))
        for target, answer in zip(targets, predictions.answers or (), strict=True)
    ]
    return np.array(scores)


def consistency(predictions: Predictions, targets: Mapping[str, str]) -> float:
    """NLVR2's consistency: share of sentences that are judged correctly for all of their image pairs.

    Args:
        targets: right answer by id; see `consistent`.
    """
    return float(np.mean([*consistent(predictions, targets).values()]))


def consistent(predictions: Predictions, targets: Mapping[str, str]) -> dict[str, bool]:
    """Whether each sentence of NLVR2 is judged correctly for all of its image pairs.

    Args:
        targets: right answer by id. Ids are `split-set-pair-sentence`; ids that differ only in the pair
            belong to the same sentence.
    """
    groups: dict[str, list[bool]] = defaultdict(list)
    for key, answer in zip(predictions.ids, predictions.answers or (), strict=True):
        split, images, _, sentence = key.split("-")
        # `dev-850-0-1` and `dev-850-3-1` are one sentence judged of two pairs.
        groups[f"{split}-{images}-{sentence}"].append(targets[key] == answer)
    return {key: all(right) for key, right in groups.items()}
