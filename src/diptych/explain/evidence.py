"""The evidence behind a decision: what each word and each region adds to it, and what it takes together."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from diptych.data import Sources, image_keys
from diptych.explain.players import Player
from diptych.explain.shapley import Shapley, shapley, text_share
from diptych.explain.variants import Budget, Variants, Varied
from diptych.predict import Predictor
from diptych.types import Example


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


def explain(
    predictor: Predictor, example: Example, sources: Sources, *, budget: Budget | None = None
) -> Evidence:
    """Explain the answer to one example by Shapley values and attention relevance.

    Raises:
        ConfigError: the task has no scores, or an input is missing.
        MissingFeatures: a picture has no regions.
    """
    return evidence_of(Variants(predictor, example, sources, budget or Budget()))


def evidence_of(variants: Varied, *, attention: bool = True) -> Evidence:
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
    assert whole.scores is not None and whole.classes is not None, "checked by Varied"
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
        relevance=variants.relevance() if attention else None,
        both=both,
        neither=neither,
        text_only=text_only,
        picture_only=picture_only,
        default=not bool(variants.outcomes([variants.without(range(len(players)))])[1][0]),
        budget=budget,
    )


def _file(picture: object) -> Path | None:
    return Path(picture) if isinstance(picture, str | Path) else None
