"""The official measures of GQA, as in the `eval.py` that comes with the data (Hudson and Manning, 2019)."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray

COMMON = ("color", "material", "shape")  # valid answers to questions for a common attribute, in the script
UNCOUNTED = ("exist", "query: name", "choose name")  # operations that are no step of reasoning


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What the measures need to know of a question.

    Args:
        structural: how it is asked: query, verify, logical, choose, compare.
        semantic: what it is about: obj, attr, cat, rel, global.
        common: whether it asks for a common attribute of things.
        group: answers are compared in distribution within a group; None is no group.
        entailed: ids of questions whose answers follow from the right answer.
        balanced: only such questions count; the others serve consistency.
    """

    answer: str
    structural: str = ""
    semantic: str = ""
    common: bool = False
    group: str | None = None
    entailed: Sequence[str] = ()
    steps: int = 0
    words: int = 0
    balanced: bool = True


Choices = Mapping[str, Mapping[str, Sequence[str]]]
"""Answers that are `valid` for the kind of a question, and `plausible` in the world, by id."""
Tables = dict[str, dict[str, Float[ndarray, " U"]]]


def measure_gqa(
    predictions: Mapping[str, str], questions: Mapping[str, Question], choices: Choices | None = None
) -> Tables:
    """Compute the official measures; each is the mean of the values that are returned for it.

    The official script stops if an entailed question is not among the questions. Here consistency uses those
    that are, and it is complete with the questions of the tier `all` only.

    Args:
        predictions: the answer to each question.
        questions: those predicted, by id.
        choices: None leaves out validity and plausibility.

    Returns:
        Under the title `""` the measures `accuracy_balanced`, `binary`, `open`, `consistency`, `validity`,
        `plausibility` (shares) and `distribution` (lower is better); further tables give the accuracy per
        structural type, semantic type, number of steps and number of words.
    """
    scores: dict[str, list[float]] = defaultdict(list)
    tables: dict[str, dict[str, list[float]]] = {
        f"accuracy per {what}": defaultdict(list)
        for what in ("structural type", "semantic type", "number of steps", "number of words")
    }
    gold: dict[str, Counter[str]] = defaultdict(Counter)
    predicted: dict[str, Counter[str]] = defaultdict(Counter)
    right = {key: float(predictions[key] == question.answer) for key, question in questions.items()}
    for key, question in questions.items():
        if not question.balanced:
            continue
        scores["accuracy_balanced"].append(right[key])
        if question.structural:
            # Everything that is not "query" has two possible answers.
            scores["open" if question.structural == "query" else "binary"].append(right[key])
            kinds = (question.structural, question.semantic, f"{question.steps:2d}", f"{question.words:2d}")
            for table, kind in zip(tables.values(), kinds, strict=True):
                table[kind].append(right[key])
        if choices is not None and key in choices:
            for measure, kind in (("validity", "valid"), ("plausibility", "plausible")):
                # The script has a list of its own for questions about common attributes.
                allowed = COMMON if question.common else choices[key].get(kind, ())
                scores[measure].append(float(predictions[key] in allowed))
        if question.group is not None:
            gold[question.group][question.answer] += 1
            predicted[question.group][predictions[key]] += 1
        # A question entails itself, which says nothing.
        inferred = [right[other] for other in question.entailed if other != key and other in right]
        # Consistency asks what follows from a right answer only.
        if right[key] and inferred:
            scores["consistency"].append(sum(inferred) / len(inferred))
    if gold:
        scores["distribution"].append(_distance(gold, predicted))
    order: tuple[str, ...] = ("binary", "open", "consistency", "validity", "plausibility", "distribution")
    if len(scores["accuracy_balanced"]) < len(questions):
        order = ("accuracy_balanced", *order)
    found: Tables = {"": {name: np.array(scores[name]) for name in order if scores[name]}}
    for title, table in tables.items():
        found[title] = {kind.strip(): np.array(table[kind]) for kind in sorted(table)}
    return found


def _distance(gold: Mapping[str, Counter[str]], predicted: Mapping[str, Counter[str]]) -> float:
    """Chi-square distance of predicted from gold answers, averaged over groups by size, over 100."""
    total, weight = 0.0, 0
    for group, counts in gold.items():
        # Over the gold answers: predicted ones that are never right have no expected count to divide by.
        distance = sum((predicted[group][answer] - count) ** 2 / count for answer, count in counts.items())
        total, weight = total + distance * counts.total(), weight + counts.total()
    return total / weight / 100
