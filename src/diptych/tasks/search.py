"""Beam search, for any model that scores the next token of a hypothesis."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor

from diptych.errors import ConfigError

Score = Callable[[Int[Tensor, "H L"], Int[Tensor, " H"]], Float[Tensor, "H V"]]
"""Scores of the next token of H hypotheses of L tokens each.

The second argument is the number of each hypothesis's parent in the call before, by which a cache of states
is reordered. In the first call, hypotheses are empty and parents are the numbers of the examples.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """Settings of beam search.

    Args:
        beam: number of hypotheses of each sentence; 1 takes the best token at every step.
        length_penalty: exponent alpha of the penalty `((5 + length) / 6) ** alpha` by which the sum of log
            probabilities is divided (Wu et al., 2016, https://arxiv.org/abs/1609.08144). With 0, the most
            probable hypothesis wins, which favors short ones.
        max_length: largest number of tokens, the end of the sentence included.

    Raises:
        ConfigError: a number is out of range.
    """

    beam: int = 1
    length_penalty: int | float = 0.6
    max_length: int = 64

    def __post_init__(self) -> None:
        if self.beam < 1 or self.max_length < 1:
            raise ConfigError(
                f"beam is {self.beam} and max_length {self.max_length}; expected at least 1 of both."
            )
        if not 0 <= self.length_penalty < 100:
            raise ConfigError(f"length_penalty is {self.length_penalty}; expected a number in [0, 100).")

    def normalize(self, total: float, length: int) -> float:
        """Score of a finished hypothesis."""
        return float(total / ((5 + length) / 6) ** self.length_penalty)


@dataclass(slots=True)
class _Beam:
    """The hypotheses of one example. A finished one keeps its place, so that the search ends."""

    room: int
    best: tuple[float, list[int]] | None = None
    alive: list[int] = field(default_factory=list)  # their numbers in the last call

    def finish(self, score: float, ids: list[int]) -> None:
        self.room -= 1
        if self.best is None or score > self.best[0]:
            self.best = score, ids


def beam_search(
    score: Score, examples: int, *, stop: int, search: Search, device: torch.device | str = "cpu"
) -> list[list[int]]:
    """Return the best hypothesis of each example, without the stop token.

    In every step, each example keeps the `beam` best continuations of its hypotheses. One that ends leaves
    one place less. A hypothesis of `max_length` tokens counts as finished. Examples are searched apart:
    the result does not depend on which others are in the batch.

    Args:
        stop: token that ends a hypothesis.

    Raises:
        ConfigError: a score is nan.
    """
    beams = [_Beam(room=search.beam, alive=[number]) for number in range(examples)]
    ids = torch.zeros(examples, 0, dtype=torch.long, device=device)
    totals = torch.zeros(examples, device=device)
    parents = torch.arange(examples, device=device)
    for length in range(1, search.max_length + 1):
        # In float32: sums of half-precision log probabilities cannot tell hypotheses apart.
        # [H, V]: the total of each hypothesis with each next token.
        joint = totals[:, None] + score(ids, parents).float().log_softmax(-1)
        values, tokens = joint.topk(min(search.beam, joint.shape[-1]))
        # Candidates are few: `beam` per hypothesis. Python merges them, with one transfer per step.
        kept = _merge(beams, values.tolist(), tokens.tolist(), ids.tolist(), stop, search, length)
        if not kept:
            break
        parents, following, sums = (torch.tensor(column, device=device) for column in zip(*kept, strict=True))
        ids, totals = torch.cat([ids[parents], following[:, None]], 1), sums
    return [beam.best[1] if beam.best is not None else [] for beam in beams]


def _merge(
    beams: list[_Beam],
    values: list[list[float]],
    tokens: list[list[int]],
    before: list[list[int]],
    stop: int,
    search: Search,
    length: int,
) -> list[tuple[int, int, float]]:
    """Keep the best continuations of every example; returns parent, token and total of those that go on."""
    kept: list[tuple[int, int, float]] = []
    for beam in beams:
        some = [
            (value, parent, token)
            for parent in beam.alive
            for value, token in zip(values[parent], tokens[parent], strict=True)
        ]
        if any(value != value for value, _, _ in some):
            raise ConfigError("scores of tokens are not numbers. Check that weights and features are finite.")
        # Ties go to the earlier hypothesis and the smaller token, so that results do not depend on the batch.
        some.sort(key=lambda one: (-one[0], one[1], one[2]))
        beam.alive = []
        # Ends take a place for good, or a bad hypothesis could go on for ever beside a finished one.
        for value, parent, token in some[: beam.room]:
            if value == -torch.inf:
                continue
            if token == stop or length == search.max_length:
                words = before[parent] if token == stop else [*before[parent], token]
                beam.finish(search.normalize(value, length), words)
            else:
                beam.alive.append(len(kept))
                kept.append((parent, token, value))
    return kept
