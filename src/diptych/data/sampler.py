"""Which examples every training step takes: a pure function of the seed and the epoch.

Nothing here keeps state between steps, so a run can be taken up at any step, by any number of ranks.
"""

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Int
from numpy import ndarray
from torch.utils.data import Sampler

WINDOW = 50  # steps that are sorted by length together: enough to save padding, few enough to stay random


@dataclass(frozen=True, slots=True, kw_only=True)
class Portion:
    """What one rank works on at one position.

    Args:
        count: examples that count; 0 where a rank without work repeats an example to keep in step.
        step_count: examples of the whole step, over all ranks and accumulated batches.
    """

    indices: tuple[int, ...]
    count: int
    step_count: int


class Plan:
    """Cuts each epoch into steps of `batch_size * ranks * accumulate` examples of similar length.

    A shuffled epoch is cut into windows of 50 steps, each is sorted by length and cut into steps, and the
    steps are shuffled. The last step of an epoch takes the rest, which is drawn before sorting and thus no
    longer or shorter than the others. A *position* counts batches of one rank over the whole run:
    `accumulate` positions make a step.

    Args:
        lengths: cost of each example; None shuffles without looking at it.
        batch_size: examples per rank and position.
        classes: class of each example, for `balance`.
        balance: every class gives as many examples as the rarest has, drawn anew for every `epoch` or once
            and for all (`fixed`).
        limit: batches per epoch (int) or part of an epoch (float).
        repeat: every epoch is the first one again.
    """

    def __init__(
        self,
        count: int,
        *,
        batch_size: int,
        seed: int = 0,
        ranks: int = 1,
        accumulate: int = 1,
        lengths: Sequence[int] | ndarray | None = None,
        classes: Sequence[Hashable] | None = None,
        balance: Literal["epoch", "fixed"] | None = None,
        limit: int | float | None = None,
        repeat: bool = False,
    ) -> None:
        self.seed, self.ranks, self.accumulate = seed, ranks, accumulate
        self.balance, self.repeat = balance, repeat
        self.step_size = batch_size * ranks * accumulate
        self._lengths = None if lengths is None else np.asarray(lengths)
        self._members = _members(count, classes if balance else None)
        self.examples = len(self._members) * min(map(len, self._members))
        self.steps_per_epoch = _limited(-(-self.examples // self.step_size), accumulate, limit)
        self._epochs: dict[int, list[ndarray]] = {}

    def epoch(self, epoch: int) -> list[Int[ndarray, " _"]]:
        """The examples of each step."""
        epoch = 0 if self.repeat else epoch
        if epoch not in self._epochs:
            recent = {key: value for key, value in self._epochs.items() if key == epoch - 1}
            self._epochs = {**recent, epoch: self._cut(epoch)}  # a loader reads ahead into the next epoch
        return self._epochs[epoch]

    def portion(self, position: int, rank: int = 0) -> Portion:
        """What `rank` does at `position`."""
        step, part = divmod(position, self.accumulate)
        epoch, step = divmod(step, self.steps_per_epoch)
        examples = self.epoch(epoch)[step]
        start, stop = (len(examples) * place // self.accumulate for place in (part, part + 1))
        mine = examples[start:stop][rank :: self.ranks]
        indices = mine if len(mine) else examples[:1]
        return Portion(indices=tuple(indices.tolist()), count=len(mine), step_count=len(examples))

    def _cut(self, epoch: int) -> list[ndarray]:
        random = np.random.default_rng([self.seed, epoch])
        order = random.permutation(self._draw(epoch))
        whole = len(order) - len(order) % self.step_size
        steps = []
        for start in range(0, whole, WINDOW * self.step_size):
            window = order[start : min(start + WINDOW * self.step_size, whole)]
            if self._lengths is not None:
                window = window[np.argsort(self._lengths[window], kind="stable")]
            steps += np.split(window, len(window) // self.step_size)
        steps = [steps[index] for index in random.permutation(len(steps))]
        rest = [order[whole:]] if whole < len(order) else []
        return (steps + rest)[: self.steps_per_epoch]

    def _draw(self, epoch: int) -> ndarray:
        if len(self._members) == 1:
            return self._members[0]
        random = np.random.default_rng([self.seed, 1 + epoch if self.balance == "epoch" else 0, 1])
        count = min(map(len, self._members))
        return np.concatenate([random.permutation(members)[:count] for members in self._members])


def _members(count: int, classes: Sequence[Hashable] | None) -> list[ndarray]:
    """The examples of each class, classes in order of first appearance."""
    if classes is None:
        return [np.arange(count)]
    groups: dict[Hashable, list[int]] = {}
    for index, name in enumerate(classes):
        groups.setdefault(name, []).append(index)
    return [np.array(members) for members in groups.values()]


def _limited(steps: int, accumulate: int, limit: int | float | None) -> int:
    if limit is None:
        return steps
    wanted = -(-limit // accumulate) if isinstance(limit, int) else int(limit * steps)
    return max(1, min(steps, wanted))


class Positions(Sampler[list[int]]):
    """The batches of one rank from position `start` up to `stop`, across epochs: one long batch sampler."""

    def __init__(self, plan: Plan, *, start: int, stop: int, rank: int = 0) -> None:
        self.plan, self.start, self.stop, self.rank = plan, start, stop, rank

    def __len__(self) -> int:
        return self.stop - self.start

    def __iter__(self) -> Iterator[list[int]]:
        for position in range(self.start, self.stop):
            yield list(self.plan.portion(position, self.rank).indices)


def longest_first(
    lengths: Sequence[int] | ndarray, *, batch_size: int, rank: int = 0, ranks: int = 1
) -> list[list[int]]:
    """Batches for evaluation: every example once, similar lengths together, dealt out to the ranks.

    The longest come first, so that a batch that does not fit into memory fails at once.
    """
    order = np.argsort(-np.asarray(lengths), kind="stable").tolist()
    batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    return batches[rank::ranks]
