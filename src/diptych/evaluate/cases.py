"""Examples that one set of predictions answers right and another wrong, such as with and without pictures."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from diptych.errors import FormatError
from diptych.evaluate.measuring import as_compared, with_targets
from diptych.metrics.answers import answer_scores
from diptych.predictions import Predictions, likeliest
from diptych.types import Dataset


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """An example with different scores.

    Args:
        text: its texts.
        target: the best right answer.
        first: answer of the first set of predictions; `second` of the other.
        gain: score of the second answer minus that of the first, in [-1, 1].
    """

    id: str
    text: str
    target: str
    first: str
    second: str
    gain: float


def changed_cases(first: Predictions, second: Predictions, dataset: Dataset) -> list[Case]:
    """List the examples that the second set answers better, then those that it answers worse.

    With the answers of a model without pictures as the first set, and of one with pictures as the second, the
    former are the cases that the picture decides. Both are in the order of the data set.

    Raises:
        FormatError: predictions have no answers, a target is no answer, or examples lack a prediction.
    """
    first, gold = with_targets(first, dataset)
    # By id: both are compared row by row.
    second = with_targets(second, dataset)[0].align(first.ids)
    answers = []
    for one in (first, second):
        if one.answers is None:
            raise FormatError("the predictions have no answers, so no cases can be listed.")
        answers.append(one.answers)
    # Boxes and numbers of choices have no answer to show.
    for key, target in zip(first.ids, gold, strict=True):
        if not isinstance(target, str | Mapping):
            raise FormatError(f"example {key} has the target {target!r}; cases need answers or classes.")
    # In the spelling of the official evaluation, or "Two" for "2" would be a change.
    before, after = (answer_scores(as_compared(one, dataset), gold) for one in (first, second))
    texts = _texts(dataset)
    cases = [
        Case(
            id=key,
            text=texts[key],
            target=str(likeliest(gold[row])),
            first=answers[0][row],
            second=answers[1][row],
            gain=float(after[row] - before[row]),
        )
        for row, key in enumerate(first.ids)
        if after[row] != before[row]
    ]
    # Stable, and False comes first: gains, then losses, each in the order of the data set.
    return sorted(cases, key=lambda case: case.gain < 0)


def _texts(dataset: Dataset) -> Mapping[str, str]:
    def joined(example: Any) -> str:
        return " | ".join(text for pair in example.pairs for text in (pair.text, pair.text_b) if text)

    return {example.id: joined(example) for example in (dataset[row] for row in range(len(dataset)))}
