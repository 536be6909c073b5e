"""Scores with a memory: the nearest cases of each policy vote, and their votes are added to the model's.

With p the model's probability of class c, s in [-1, 1] the vote of a policy's nearest cases for c, and w the
learned weight, the score is the softmax over classes of `log p + w / 2 * (sum of s over policies)`; of two
classes, the log-odds move by w s. An example that no case is near to keeps the model's probability.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor

from diptych.errors import ConfigError, nearest
from diptych.memory.store import Case, Learned, Memory
from diptych.nn import nearest_cases, votes

SHOWN = 3  # cases that are named
TINY = 1e-12  # a probability of 0 has no logarithm
UNFITTED = Learned(least=-1.0, weight=0.0, split="", checksum="", examples=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recalled:
    """A case that is near to an example.

    Args:
        similarity: cosine of the centered vectors.
        contribution: log-odds that it adds for its label; 0 if it has no vote.
    """

    case: Case
    similarity: float
    contribution: float

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        about = {name: getattr(self.case, name) for name in ("id", "label", "policy", "text", "picture")}
        return about | {"similarity": self.similarity, "contribution": self.contribution}


@dataclass(frozen=True, slots=True, kw_only=True)
class Recall:
    """What a memory makes of an example.

    Args:
        scores: probabilities by class with the memory; `before`, by the model alone.
        cases: those that decide most, at most `SHOWN`; without votes, the nearest ones.
    """

    scores: dict[str, float]
    before: dict[str, float]
    cases: tuple[Recalled, ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "scores": self.scores,
            "before": self.before,
            "cases": [case.as_dict() for case in self.cases],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The nearest cases of one policy; cases that are missing have the row -1 and minus infinity."""

    similarities: Float[Tensor, "Q k"]
    rows: Int[Tensor, "Q k"]
    labels: Int[Tensor, "Q k"]


def searched(
    memory: Memory,
    vectors: Float[ndarray, "Q D"],
    *,
    policies: Collection[str] | None = None,
    apart: bool = False,
) -> list[Found]:
    """Find the nearest cases of each policy, exactly: by one matrix product.

    Args:
        policies: those that are asked; None means all.
        apart: leave out cases that are the example itself, or equal to it for the model.

    Raises:
        ConfigError: the memory has no such policy.
    """
    if missing := sorted({*(policies or ())} - {*memory.policies}):
        raise ConfigError(f"the memory has no policy {missing[0]!r}.{nearest(missing[0], memory.policies)}")
    queries, found = memory.comparable(vectors.astype(np.float32)), []
    for policy, (rows, cases) in memory.by_policy.items():
        if policies is None or policy in policies:
            # Rounding keeps the similarity of equal vectors within 1e-6 of 1.
            among = (queries @ cases.T < 1 - 1e-5) if apart else None
            near, places = nearest_cases(queries, cases, memory.neighbors, among=among, unit=False)
            own = rows[places].masked_fill(places < 0, -1)
            found.append(Found(similarities=near, rows=own, labels=memory.labels[own]))
    return found


def class_votes(found: Sequence[Found], classes: int, least: float, count: int) -> Float[ndarray, "Q C"]:
    """Sum over policies of the votes for each class; each policy's are in [-1, 1].

    Args:
        count: number of queries.
    """
    total = torch.zeros(count, classes)
    for one in found:
        for number in range(classes):
            total[:, number] += votes(one.similarities, one.labels == number, least=least).sum(1)
    return np.asarray(total.double().numpy())


def with_votes(
    scores: Float[ndarray, "Q C"], said: Float[ndarray, "Q C"], weight: float
) -> Float[ndarray, "Q C"]:
    """Probabilities with votes that weigh `weight` log-odds."""
    if not weight:
        return scores
    logs = np.log(np.maximum(scores.astype(np.float64), TINY)) + weight / 2 * said
    powers = np.exp(logs - logs.max(1, keepdims=True))
    # A row without votes is left as it is, to the bit.
    return np.where(said.any(1, keepdims=True), powers / powers.sum(1, keepdims=True), scores)


def recall_all(
    memory: Memory,
    vectors: Float[ndarray, "Q D"],
    scores: Float[ndarray, "Q C"],
    *,
    policies: Collection[str] | None = None,
    shown: int = SHOWN,
) -> list[Recall]:
    """Return scores with the memory, and the cases that decide most, for each example.

    Args:
        vectors: as the model gives them, see `ask`.
        scores: the model's probabilities, in the order of the memory's classes.
        policies: those that vote; None means all.
        shown: number of cases to name.
    """
    learned = memory.learned or UNFITTED
    found = searched(memory, vectors, policies=policies)
    said = class_votes(found, len(memory.classes), learned.least, len(vectors))
    changed = with_votes(scores, said, learned.weight)
    # A vote is positive for the label of its case whatever the label is, so each is asked about its own.
    shares = [
        learned.weight
        * votes(one.similarities, torch.ones_like(one.rows, dtype=torch.bool), least=learned.least)
        for one in found
    ]
    return [
        Recall(
            scores=dict(zip(memory.classes, map(float, changed[query]), strict=True)),
            before=dict(zip(memory.classes, map(float, scores[query]), strict=True)),
            cases=_named(memory, query, found, shares)[:shown],
        )
        for query in range(len(vectors))
    ]


def _named(
    memory: Memory, query: int, found: Sequence[Found], shares: Sequence[Float[Tensor, "Q k"]]
) -> tuple[Recalled, ...]:
    """The cases found for an example, the most decisive first, then the most similar."""
    every = [
        Recalled(
            case=memory.cases[int(row)],
            similarity=min(1.0, float(one.similarities[query, place])),
            contribution=float(share[query, place]),
        )
        for one, share in zip(found, shares, strict=True)
        for place, row in enumerate(one.rows[query])
        if row >= 0
    ]
    return tuple(sorted(every, key=lambda one: (-abs(one.contribution), -one.similarity)))
