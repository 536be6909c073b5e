"""Learns from a labeled split how near a case must be to count, and how much cases weigh."""

from dataclasses import asdict, dataclass, replace
from itertools import product
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from diptych.errors import ConfigError
from diptych.memory.recall import class_votes, searched, with_votes
from diptych.memory.store import Learned, Memory
from diptych.metrics import auroc

REACHES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
"""Shares of pairs of ordinary examples that are similar enough to vote on each other."""
FACTORS = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0)
"""Weights, in multiples of the model's usual distance between its two most probable classes."""
USUAL = (0.01, 2.0)  # reach and factor before there are cases to learn from
HARM = 0.01  # share of a split that may become wrong, by default
SAMPLE = 2000  # examples whose pairs show what similar means: four million pairs
CHUNK = 1024  # queries that are compared at a time
FLOOR = 1e-6  # of a probability in the loss
Grid = list[tuple[float, float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class FitReport:
    """Result of a fit. Losses are mean negative log-probabilities of the labels.

    Args:
        reach: share of pairs of ordinary examples as similar as the least similarity with a vote.
        touched: share of the split's examples on which some case votes.
        split_loss: on the split by the model alone, and with the memory, by settings that were chosen without
            the fold of the example.
        split_auroc: the same; None unless there are two classes.
        case_loss: on the cases, each without itself; None without cases.
        case_accuracy: share of cases whose label is the most probable class, likewise.
        single: policies with cases of one class only; their votes only ever raise that class.
    """

    cases: int
    reach: float
    touched: float
    split_loss: tuple[float, float]
    split_auroc: tuple[float, float] | None
    case_loss: tuple[float, float] | None
    case_accuracy: tuple[float, float] | None
    single: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class _Rows:
    """Examples with their truth and, for each least similarity, the votes on them."""

    scores: Float[ndarray, "N C"]
    truth: Int[ndarray, " N"]
    said: Float[ndarray, "L N C"]

    def losses(self, said: Float[ndarray, "N C"], weight: float) -> Float[ndarray, " N"]:
        chosen = with_votes(self.scores, said, weight)[np.arange(len(self.truth)), self.truth]
        return np.asarray(-np.log(np.maximum(chosen, FLOOR)))

    def table(self, weights: Float[ndarray, " W"]) -> Float[ndarray, "LW N"]:
        """Losses of each example at each point of the grid."""
        return np.stack([self.losses(said, float(weight)) for said, weight in product(self.said, weights)])

    def spoiled(self, weights: Float[ndarray, " W"]) -> Float[ndarray, "LW N"]:
        """1 where the memory makes an answer wrong at a point of the grid, -1 where it makes one right."""
        right = (self.scores.argmax(1) == self.truth).astype(np.float64)
        grid = product(self.said, weights)
        told = (with_votes(self.scores, said, float(weight)).argmax(1) for said, weight in grid)
        return np.stack([right - (answers == self.truth) for answers in told])


def fit_memory(
    memory: Memory,
    *,
    vectors: Float[ndarray, "N D"],
    scores: Float[ndarray, "N C"],
    truth: Int[ndarray, " N"],
    split: str,
    checksum: str,
    harm: float = HARM,
    folds: int = 5,
    seed: int = 0,
) -> tuple[Memory, FitReport]:
    """Learn the center, the least similarity and the weight of a memory.

    Of the settings that make at most `harm` of the split wrong, on balance, the one with the smallest loss
    wins: the mean over the cases, each judged without itself, which asks for what they teach, plus the mean
    over the split. Of equally good ones, the one that reaches farthest. A case that is an example of the
    split has no vote on it.

    Args:
        vectors: of the split's examples, in the order of `scores` and `truth`, see `ask`.
        truth: number of the class of each.
        split: name and `checksum` of the files, which the memory records.
        harm: share of the split that may become wrong, on balance. A loss alone would not do: that of a
            confident model on what it was never taught outweighs many spoiled answers.
        folds: of the report's numbers on the split; the settings come from all rows.

    Raises:
        ConfigError: the split has fewer than two classes or less than ten examples.
    """
    if len(truth) < 2 * folds or len({*truth.tolist()}) < 2:
        raise ConfigError(
            f"{split} has {len(truth)} examples of {len({*truth.tolist()})} class(es); expected at least "
            f"{2 * folds}, of two classes. Take another split."
        )
    memory = replace(memory, center=vectors.mean(0).astype(np.float32))
    least, weights = _levels(memory, vectors), _weights(scores)
    rows = _Rows(scores=scores, truth=truth, said=_said(memory, vectors, least))
    if not memory.cases:
        at = REACHES.index(USUAL[0]) * len(FACTORS) + FACTORS.index(USUAL[1])
        learned = _learned(at, least, weights, split, checksum, len(truth))
        return replace(memory, learned=learned), _report(memory, at, rows, None, rows.scores, weights)
    cases = _Rows(
        scores=np.array([case.scores for case in memory.cases]),
        truth=memory.labels.numpy(),
        # A single case has no other one to be judged by, and is at least to know itself.
        said=_said(memory, memory.vectors, least, apart=len(memory.cases) > 1),
    )
    old, new, worse = rows.table(weights), cases.table(weights).mean(1), rows.spoiled(weights)
    at = _best(old.mean(1) + new, worse.mean(1) <= harm)
    # What the report says of the split must not have chosen the settings.
    fold = np.random.default_rng(seed).permutation(len(truth)) % folds
    held = np.empty_like(scores, dtype=np.float64)
    for number in range(folds):
        mine = fold == number
        one = _best(old[:, ~mine].mean(1) + new, worse[:, ~mine].mean(1) <= harm)
        level, weight = divmod(one, len(weights))
        held[mine] = with_votes(scores[mine], rows.said[level][mine], float(weights[weight]))
    learned = _learned(at, least, weights, split, checksum, len(truth))
    return replace(memory, learned=learned), _report(memory, at, rows, cases, held, weights)


def _levels(memory: Memory, vectors: Float[ndarray, "N D"]) -> Float[ndarray, " L"]:
    """The least similarity of each reach."""
    some = np.random.default_rng(0).permutation(len(vectors))[:SAMPLE]
    unit = memory.comparable(vectors[np.sort(some)].astype(np.float32))
    pairs = (unit @ unit.T)[torch.triu(torch.ones(len(unit), len(unit)), 1) > 0].numpy()
    # Copies of one example are no ordinary pair.
    pairs = pairs[pairs < 1 - 1e-5]
    levels = np.quantile(pairs, [1 - reach for reach in REACHES]) if len(pairs) else np.zeros(len(REACHES))
    return np.clip(levels, -1, 1)


def _weights(scores: Float[ndarray, "N C"]) -> Float[ndarray, " W"]:
    best = np.sort(np.log(np.maximum(scores.astype(np.float64), FLOOR)), axis=1)[:, -2:]
    # At least 1: a model that is sure of nothing would give votes no weight.
    return np.array(FACTORS) * max(1.0, float(np.median(best[:, 1] - best[:, 0])))


def _said(
    memory: Memory, vectors: Float[ndarray, "N D"], least: Float[ndarray, " L"], *, apart: bool = True
) -> Float[ndarray, "L N C"]:
    """The votes on examples for each least similarity."""
    parts = []
    for start in range(0, len(vectors), CHUNK):
        some = vectors[start : start + CHUNK]
        found = searched(memory, some, apart=apart)
        parts.append([class_votes(found, len(memory.classes), float(one), len(some)) for one in least])
    return np.concatenate(parts, axis=1)


def _best(losses: Float[ndarray, " LW"], allowed: Bool[ndarray, " LW"]) -> int:
    """Number of the smallest allowed loss; of equal ones the last, which reaches farthest and weighs most."""
    # A weight of 0 spoils nothing, so something is always allowed.
    among = np.where(allowed, losses, np.inf)
    return int(np.flatnonzero(among <= among.min() + 1e-9)[-1])


def _learned(
    at: int, least: Float[ndarray, " L"], weights: Float[ndarray, " W"], split: str, checksum: str, count: int
) -> Learned:
    level, weight = divmod(at, len(weights))
    return Learned(
        least=float(least[level]),
        weight=float(weights[weight]),
        split=split,
        checksum=checksum,
        examples=count,
    )


def _report(
    memory: Memory,
    at: int,
    rows: _Rows,
    cases: _Rows | None,
    held: Float[ndarray, "N C"],
    weights: Float[ndarray, " W"],
) -> FitReport:
    level, number = divmod(at, len(weights))
    weight, nothing = float(weights[number]), np.zeros_like(rows.said[level])
    by = {
        name: {memory.cases[row].label for row in own.tolist()} for name, (own, _) in memory.by_policy.items()
    }
    areas = None
    if len(memory.classes) == 2:
        areas = (auroc(rows.truth == 1, rows.scores[:, 1]), auroc(rows.truth == 1, held[:, 1]))
    told = None if cases is None else with_votes(cases.scores, cases.said[level], weight)
    return FitReport(
        cases=len(memory.cases),
        reach=REACHES[level],
        touched=float(rows.said[level].any(1).mean()),
        split_loss=(
            float(rows.losses(nothing, 0.0).mean()),
            float(replace(rows, scores=held).losses(nothing, 0.0).mean()),
        ),
        split_auroc=areas,
        case_loss=None
        if cases is None
        else (
            float(cases.losses(cases.said[level], 0.0).mean()),
            float(cases.losses(cases.said[level], weight).mean()),
        ),
        case_accuracy=None
        if cases is None or told is None
        else (
            float((cases.scores.argmax(1) == cases.truth).mean()),
            float((told.argmax(1) == cases.truth).mean()),
        ),
        single=tuple(name for name, labels in by.items() if len(labels) == 1),
    )
