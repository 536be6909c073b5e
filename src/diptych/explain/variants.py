"""Variants of an example in which some words and regions are hidden, and what a model makes of them."""

import math
from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray
from torch import Tensor

from diptych.data import Row, Sources
from diptych.errors import ConfigError
from diptych.explain.players import BEYOND, Player, hide, players_of
from diptych.explain.relevance import POOLED, Relevance, relevance
from diptych.nn import attention_places
from diptych.predict import Listed, Predictor
from diptych.predictions import Predictions
from diptych.tasks import Task
from diptych.types import Encoding, Example

LEAST = 1e-12  # of a probability, so that its log-odds are finite
MASKING = "hidden words are [MASK], hidden regions are left out"


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """How much is computed for one decision.

    Args:
        permutations: orders in which words and regions are shown; the time grows with it.
        words: largest number of words that are hidden one by one; in longer texts, neighbors are joined.
        groups: largest number of groups of regions.
        seed: of the orders.
        batch_size: number of variants of the example that are computed at once.

    Raises:
        ConfigError: a number is too small.
    """

    permutations: int = 10
    words: int = 32
    groups: int = 16
    seed: int = 0
    batch_size: int = 32

    def __post_init__(self) -> None:
        for name, least in (("permutations", 2), ("words", 1), ("groups", 1), ("seed", 0), ("batch_size", 1)):
            if getattr(self, name) < least:
                raise ConfigError(f"{name} is {getattr(self, name)}; expected at least {least}.")


class Varied(ABC):
    """Predicts variants of one example in which some players are hidden, or whose rows are others.

    A variant is a list of rows; what a row is for, only the subclass knows.

    Args:
        example: one decision; `rows` is how it is read, and `players` is what can be hidden in it.

    Raises:
        ConfigError: the task has no scores.
    """

    def __init__(
        self,
        example: Example,
        sources: Sources,
        budget: Budget,
        *,
        rows: Sequence[Row],
        players: Sequence[Player],
    ) -> None:
        self.example, self.sources, self.budget = example, sources, budget
        self.rows, self.players = rows, players
        self.whole = self.predict([rows])
        if self.whole.scores is None or self.whole.classes is None:
            raise ConfigError(f"{self.name} answers without probabilities: nothing to explain.")
        self.answer = (self.whole.answers or ("",))[0]
        # A task of several labels answers a list, and a task of one label names no class.
        named = self.answer in self.whole.classes
        best = int(self.whole.scores[0].argmax())
        self.column = self.whole.classes.index(self.answer) if named else best

    @property
    @abstractmethod
    def name(self) -> str:
        """Of what answers, for errors."""

    @abstractmethod
    def predict(self, examples: Sequence[Sequence[Row]]) -> Predictions:
        """Predict some variants."""

    @abstractmethod
    def without(self, players: Collection[int]) -> list[Row]:
        """Return the rows of the example with the players of these numbers hidden."""

    @abstractmethod
    def read(self, example: Example) -> list[Row]:
        """Return the rows of another example, such as this one with another picture."""

    @abstractmethod
    def relevance(self) -> Float[ndarray, " n"] | None:
        """Return the attention relevance of each player; None where there is none."""

    def shown(self, coalitions: Bool[ndarray, "S n"]) -> Float[ndarray, " S"]:
        """Return the log-odds of the explained class when only some players are shown."""
        # Variants of similar lengths share a batch, which saves padding.
        sizes = [len(one.places) if one.kind == "regions" else 0 for one in self.players]
        # Only hidden regions shorten a row: a hidden word leaves a [MASK] in its place.
        order = np.argsort(coalitions @ np.array(sizes, int), kind="stable")
        values = np.zeros(len(coalitions))
        for first in range(0, len(order), self.budget.batch_size):
            # Filled in by place, so that values have the order of the coalitions.
            some = order[first : first + self.budget.batch_size]
            values[some] = self.values(
                [self.without(np.flatnonzero(~coalitions[row]).tolist()) for row in some]
            )
        return values

    def values(self, examples: Sequence[Sequence[Row]]) -> Float[ndarray, " S"]:
        """Return the log-odds of the explained class for changed rows."""
        return self.outcomes(examples)[0]

    def outcomes(self, examples: Sequence[Sequence[Row]]) -> tuple[Float[ndarray, " S"], Bool[ndarray, " S"]]:
        """Return the log-odds of the explained class, and whether the answer is another one."""
        found = self.predict(examples)
        assert found.scores is not None, "checked in __init__"
        others = np.array([answer != self.answer for answer in found.answers or ()], bool)
        return log_odds(found.scores[:, self.column]), others


class Variants(Varied):
    """Variants of one example as one model reads it.

    Raises:
        ConfigError: the task has no scores, or an input is missing.
        MissingFeatures: a picture has no regions.
    """

    def __init__(self, predictor: Predictor, example: Example, sources: Sources, budget: Budget) -> None:
        predictor.batches(Listed([example]), sources, 1)  # checks that the sources have what the model reads
        self.predictor = predictor
        tokenizer = predictor.processor.text
        # A model without text has no word to hide, so the number is never used.
        self.mask_id = 0 if tokenizer is None else tokenizer.mask_id
        rows = predictor.processor.rows(example, sources)
        players = players_of(
            predictor.processor, example, rows, sources, words=budget.words, groups=budget.groups
        )
        super().__init__(example, sources, budget, rows=rows, players=players)

    @property
    def name(self) -> str:
        return type(self.predictor.task).__name__

    def predict(self, examples: Sequence[Sequence[Row]]) -> Predictions:
        return self.predictor.predict_rows(examples)

    def without(self, players: Collection[int]) -> list[Row]:
        return self.hiding([self.players[number] for number in players])

    def hiding(self, players: Sequence[Player]) -> list[Row]:
        """Return the rows of the example without some players, which need not be those of `players`."""
        return hide(self.rows, players, mask_id=self.mask_id)

    def read(self, example: Example) -> list[Row]:
        return self.predictor.processor.rows(example, self.sources)

    def relevance(self) -> Float[ndarray, " n"] | None:
        """Return the relevance of each player: that of its most relevant token or region."""
        task, plan = self.predictor.task, attention_places(self.predictor.model)
        # The rules follow attention to the pooled vector; a task that reads other states has no single row.
        if not isinstance(task, Task) or task.reads != POOLED:
            return None
        batch = self.predictor.batch_of([self.rows]).to(self.predictor.device)

        def explained(encoding: Encoding) -> Float[Tensor, " B"]:
            logits = task.score(encoding, batch)
            # Of two classes with one logit, the first one has the constant 0.
            one = getattr(task, "one_logit", False) and self.column == 0
            column: Tensor = -logits[:, 1] if one else logits.reshape(len(logits), -1)[:, self.column]
            return column

        try:
            found = relevance(self.predictor.model, batch.inputs, explained)
        except ConfigError:  # a model without attention
            return None
        # What the model adds itself lies before the tokens and regions of the rows.
        added = {"text": len(plan.after_first), "regions": len(plan.before_regions)}
        return np.array([_most(player, found, added) for player in self.players])


def _most(player: Player, found: Relevance, added: dict[str, int]) -> float:
    if player.kind not in ("word", "tag", "regions"):
        return 0.0
    part, shift = ("regions", added["regions"]) if player.kind == "regions" else ("text", added["text"])
    numbers = getattr(found, part)
    # The largest and not the sum, which would favor long words and large groups.
    return max(float(numbers[pair, at + shift]) for pair, at in player.places if at != BEYOND)


def log_odds(probability: Float[ndarray, " S"]) -> Float[ndarray, " S"]:
    """Return `log(p / (1 - p))`; of a softmax, it is the logit minus those of all others together."""
    # log1p(-p) keeps the digits of 1 - p for small p.
    # In single precision, 1 - LEAST would be 1, and its log-odds infinite.
    clipped = probability.astype(np.float64).clip(LEAST, 1 - LEAST)
    odds: Float[ndarray, " S"] = np.log(clipped) - np.log1p(-clipped)
    return odds


def probability(value: float) -> float:
    """Return the probability with these log-odds."""
    # Log-odds of this module end at about 28, far from where the exponential overflows.
    return 1 / (1 + math.exp(-value))
