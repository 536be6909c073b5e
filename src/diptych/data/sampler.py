"""Which examples every training step takes: a pure function of the seed and the epoch.

Nothing here keeps state between steps, so a run can be taken up at any step, by any number of ranks.
"""

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, overload

import numpy as np
from jaxtyping import Int
from numpy import ndarray
from torch.utils.data import Sampler

from diptych.errors import ConfigError

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
        draws: of data sets that follow each other, how many examples there are and how many of them an epoch
            takes: a part, drawn anew for every epoch, or all of them so many times and a part.
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
        classes: Sequence[Hashable] | ndarray | None = None,
        draws: Sequence[tuple[int, int]] | None = None,
        balance: Literal["epoch", "fixed"] | None = None,
        limit: int | float | None = None,
        repeat: bool = False,
    ) -> None:
        self.seed, self.ranks, self.accumulate = seed, ranks, accumulate
        self.balance, self.repeat = balance, repeat
        self.step_size = batch_size * ranks * accumulate
        if draws is not None and balance is not None:
            raise ConfigError(f"data.balance={balance} and weights of data sets exclude each other.")
        self._lengths = None if lengths is None else np.asarray(lengths)
        self._members = _members(count, classes if balance else None)
        self._draws = draws
        self.examples = len(self._members) * min(map(len, self._members))
        if draws is not None:
            self.examples = sum(wanted for _, wanted in draws)
        self.steps_per_epoch = _limited(-(-self.examples // self.step_size), accumulate, limit)
        self._epochs: dict[int, tuple[ndarray, ndarray]] = {}

    def epoch(self, epoch: int) -> list[Int[ndarray, " _"]]:
        """The examples of each step."""
        order, starts = self._ordered(epoch)
        return [order[start : start + self.step_size] for start in starts.tolist()]

    def _ordered(self, epoch: int) -> tuple[Int[ndarray, " _"], Int[ndarray, " _"]]:
        """All examples of an epoch, and where each step begins: no object for each of millions of steps."""
        epoch = 0 if self.repeat else epoch
        if epoch not in self._epochs:
            recent = {key: value for key, value in self._epochs.items() if key == epoch - 1}
            self._epochs = {**recent, epoch: self._cut(epoch)}  # a loader reads ahead into the next epoch
        return self._epochs[epoch]

    def portion(self, position: int, rank: int = 0) -> Portion:
        """What `rank` does at `position`."""
        step, part = divmod(position, self.accumulate)
        epoch, step = divmod(step, self.steps_per_epoch)
        order, starts = self._ordered(epoch)
        examples = order[starts[step] : starts[step] + self.step_size]
        start, stop = (len(examples) * place // self.accumulate for place in (part, part + 1))
        mine = examples[start:stop][rank :: self.ranks]
        indices = mine if len(mine) else examples[:1]
        return Portion(indices=tuple(indices.tolist()), count=len(mine), step_count=len(examples))

    def _cut(self, epoch: int) -> tuple[ndarray, ndarray]:
        random = np.random.default_rng([self.seed, epoch])
        order = random.permutation(self._draw(epoch))
        whole = len(order) - len(order) % self.step_size
        if self._lengths is not None:
            for start in range(0, whole, WINDOW * self.step_size):
                window = order[start : min(start + WINDOW * self.step_size, whole)]
                window[:] = window[np.argsort(self._lengths[window], kind="stable")]
        starts = random.permutation(whole // self.step_size) * self.step_size
        rest = [whole] if whole < len(order) else []
        return order, np.concatenate([starts, rest]).astype(np.int64)[: self.steps_per_epoch]

    def _draw(self, epoch: int) -> ndarray:
        if self._draws is not None:
            return self._drawn(self._draws, epoch)
        if len(self._members) == 1:
            return self._members[0]
        random = np.random.default_rng([self.seed, 1 + epoch if self.balance == "epoch" else 0, 1])
        count = min(map(len, self._members))
        return np.concatenate([random.permutation(members)[:count] for members in self._members])

    def _drawn(self, draws: Sequence[tuple[int, int]], epoch: int) -> ndarray:
        random = np.random.default_rng([self.seed, epoch, 2])
        parts, first = [], 0
        for count, wanted in draws:
            members = np.arange(first, first + count, dtype=self._members[0].dtype)
            parts += [members] * (wanted // count)
            parts.append(random.permutation(members)[: wanted % count])
            first += count
        return np.concatenate(parts)


def _members(count: int, classes: Sequence[Hashable] | ndarray | None) -> list[ndarray]:
    """The examples of each class, classes in order of first appearance."""
    if classes is None:
        return [np.arange(count, dtype=np.int32 if count < 1 << 31 else np.int64)]
    if isinstance(classes, np.ndarray):
        names, first = np.unique(classes, return_index=True)
        return [np.flatnonzero(classes == name) for name in names[np.argsort(first)]]
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


class Batches(Sequence[list[int]]):
    """Indices of examples in order, cut into batches, of which some are kept; each is made when asked for."""

    def __init__(self, order: Int[ndarray, " N"], batch_size: int, kept: range | None = None) -> None:
        self.order, self.batch_size = order, batch_size
        self.kept = range(-(-len(order) // batch_size)) if kept is None else kept

    def __len__(self) -> int:
        return len(self.kept)

    @overload
    def __getitem__(self, index: int) -> list[int]: ...

    @overload
    def __getitem__(self, index: slice) -> "Batches": ...

    def __getitem__(self, index: int | slice) -> "list[int] | Batches":
        if isinstance(index, slice):
            return Batches(self.order, self.batch_size, self.kept[index])
        start = self.kept[index] * self.batch_size
        found: list[int] = self.order[start : start + self.batch_size].tolist()
        return found


def longest_first(
    lengths: Sequence[int] | ndarray, *, batch_size: int, rank: int = 0, ranks: int = 1
) -> Batches:
    """Batches for evaluation: every example once, similar lengths together, dealt out to the ranks.

    The longest come first, so that a batch that does not fit into memory fails at once.
    """
    order = np.argsort(-np.asarray(lengths), kind="stable")
    return Batches(order, batch_size)[rank::ranks]


def images_together(lengths: Int[ndarray, " N"], images: Int[ndarray, " N"], *, batch_size: int) -> Batches:
    """Batches for evaluation in which examples of one image are neighbors, the longest examples first.

    Args:
        images: number of the image of each example.
    """
    longest = np.zeros(images.max(initial=0) + 1, lengths.dtype)
    np.maximum.at(longest, images, lengths)
    # The last key is the primary one: images by their longest text, then image by image.
    return Batches(np.lexsort((-lengths, images, -longest[images])), batch_size)
