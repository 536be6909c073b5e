"""The evidence behind a decision: what each word and each region adds to it, and what it takes together."""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray
from torch import Tensor

from diptych.data import Row, Sources, image_keys
from diptych.errors import ConfigError
from diptych.explain.players import BEYOND, Player, hide, players_of
from diptych.explain.relevance import POOLED, Relevance, relevance
from diptych.explain.shapley import Shapley, shapley, text_share
from diptych.nn import attention_places
from diptych.predict import Listed, Predictor
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A variant of an example, and what the model makes of it.

    Args:
        kind: `hidden` without some players; `picture` and `text`, with those of another example.
        players: numbers of the hidden players.
        other: id of the other example.
        text: the other text.
        value: log-odds of the explained class.
        flips: whether the answer is another one.
    """

    kind: Literal["hidden", "picture", "text"]
    value: float
    flips: bool
    players: tuple[int, ...] = ()
    other: str = ""
    text: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Why a model answers an example as it does.

    All values are log-odds of the explained class; 0 is a probability of one half.

    Args:
        explained: the class whose score is explained: the answer, or the likeliest class.
        scores: probabilities by class.
        contributions: of the players: positive ones support the explained class.
        relevance: generic attention relevance of each player, at least 0; None if it was not computed.
        both: value of the whole example; `neither`, with everything hidden that can be.
        default: whether the answer is the same with everything hidden, so that no evidence was needed.
        changes: what was tried to change the answer.
        text_only: value of the text without the picture; `picture_only`, of the picture without the text.
    """

    id: str
    text: str
    text_b: str | None
    images: tuple[Path | None, ...]
    answer: str
    explained: str
    scores: dict[str, float]
    players: tuple[Player, ...]
    contributions: Shapley
    relevance: Float[ndarray, " n"] | None
    both: float
    neither: float
    text_only: float
    picture_only: float
    default: bool
    changes: tuple[Change, ...] = ()
    budget: Budget = field(default_factory=Budget)

    @property
    def interaction(self) -> float:
        """What only text and picture together tell."""
        # 0 if the log-odds of both sides simply add up: both - neither = (text - neither) + (picture -
        # neither).
        return self.both - self.text_only - self.picture_only + self.neither

    @property
    def text_share(self) -> float | None:
        """MM-SHAP's T-SHAP: share of the text in all contributions; None if nothing contributes."""
        return text_share(self.contributions.values, self.of_text)

    @property
    def of_text(self) -> Bool[ndarray, " n"]:
        return np.array([player.of_text for player in self.players], bool)

    def ranked(self, *, text: bool) -> list[int]:
        """Return the numbers of the players of one side, those that contribute most first."""
        own = np.flatnonzero(self.of_text == text)
        order: list[int] = own[np.argsort(-np.abs(self.contributions.values[own]), kind="stable")].tolist()
        return order


class Variants:
    """Predicts variants of one example in which some players are hidden, or whose rows are others.

    Args:
        example: one decision.

    Raises:
        ConfigError: the task has no scores, or an input is missing.
        MissingFeatures: a picture has no regions.
    """

    def __init__(self, predictor: Predictor, example: Example, sources: Sources, budget: Budget) -> None:
        predictor.batches(Listed([example]), sources, 1)  # checks that the sources have what the model reads
        self.predictor, self.budget = predictor, budget
        self.example, self.sources = example, sources
        tokenizer = predictor.processor.text
        # A model without text has no word to hide, so the number is never used.
        self.mask_id = 0 if tokenizer is None else tokenizer.mask_id
        self.rows = predictor.processor.rows(example, sources)
        self.players = players_of(
            predictor.processor, example, self.rows, sources, words=budget.words, groups=budget.groups
        )
        self.whole = predictor.predict_rows([self.rows])
        if self.whole.scores is None or self.whole.classes is None:
            raise ConfigError(
                f"{type(predictor.task).__name__} answers without probabilities: nothing to explain."
            )
        self.answer = (self.whole.answers or ("",))[0]
        # A task of several labels answers a list, and a task of one label names no class.
        named = self.answer in self.whole.classes
        best = int(self.whole.scores[0].argmax())
        self.column = self.whole.classes.index(self.answer) if named else best

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
        found = self.predictor.predict_rows(examples)
        assert found.scores is not None, "checked in __init__"
        others = np.array([answer != self.answer for answer in found.answers or ()], bool)
        return log_odds(found.scores[:, self.column]), others

    def without(self, players: Collection[int]) -> list[Row]:
        """Return the rows of the example with the players of these numbers hidden."""
        return hide(self.rows, [self.players[number] for number in players], mask_id=self.mask_id)


def explain(
    predictor: Predictor, example: Example, sources: Sources, *, budget: Budget | None = None
) -> Evidence:
    """Explain the answer to one example by Shapley values and attention relevance.

    Raises:
        ConfigError: the task has no scores, or an input is missing.
        MissingFeatures: a picture has no regions.
    """
    return evidence_of(Variants(predictor, example, sources, budget or Budget()))


def evidence_of(variants: Variants, *, attention: bool = True) -> Evidence:
    """Explain the answer to the example of `variants`.

    Args:
        attention: compute the attention relevance, too, which needs gradients.
    """
    example, sources, budget = variants.example, variants.sources, variants.budget
    players = variants.players
    text = np.array([player.of_text for player in players], bool)
    found = shapley(variants.shown, len(players), permutations=budget.permutations, seed=budget.seed)
    # Everything, nothing, text alone, picture alone.
    ends = np.stack([np.ones_like(text), np.zeros_like(text), text, ~text])
    both, neither, text_only, picture_only = variants.shown(ends).tolist()
    files = {} if sources.images is None else sources.images
    keys = dict.fromkeys(key for pair in example.pairs for key in image_keys(pair))
    whole = variants.whole
    assert whole.scores is not None and whole.classes is not None, "checked by Variants"
    return Evidence(
        id=example.id,
        text=example.pairs[0].text,
        text_b=example.pairs[0].text_b,
        images=tuple(_file(files.get(key)) for key in keys),
        answer=variants.answer,
        explained=whole.classes[variants.column],
        scores=dict(zip(whole.classes, map(float, whole.scores[0]), strict=True)),
        players=tuple(players),
        contributions=found,
        relevance=_relevance(variants) if attention else None,
        both=both,
        neither=neither,
        text_only=text_only,
        picture_only=picture_only,
        default=not bool(variants.outcomes([variants.without(range(len(players)))])[1][0]),
        budget=budget,
    )


def _file(picture: object) -> Path | None:
    return Path(picture) if isinstance(picture, str | Path) else None


def _relevance(variants: Variants) -> Float[ndarray, " n"] | None:
    """Relevance of each player: that of its most relevant token or region."""
    predictor = variants.predictor
    task, plan = predictor.task, attention_places(predictor.model)
    # The rules follow attention to the pooled vector; a task that reads other states has no single row.
    if not isinstance(task, Task) or task.reads != POOLED:
        return None
    batch = predictor.batch_of([variants.rows]).to(predictor.device)

    def explained(encoding: Encoding) -> Float[Tensor, " B"]:
        logits = task.score(encoding, batch)
        # Of two classes with one logit, the first one has the constant 0.
        one = getattr(task, "one_logit", False) and variants.column == 0
        column: Tensor = -logits[:, 1] if one else logits.reshape(len(logits), -1)[:, variants.column]
        return column

    try:
        found = relevance(predictor.model, batch.inputs, explained)
    except ConfigError:  # a model without attention
        return None
    # What the model adds itself lies before the tokens and regions of the rows.
    added = {"text": len(plan.after_first), "regions": len(plan.before_regions)}
    return np.array([_most(player, found, added) for player in variants.players])


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
