"""Samplers. The examples of every training step are a pure function of the seed and the epoch.

Nothing here keeps state between steps, so a run can resume at any step, on any number of ranks.
"""

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, Protocol, overload, runtime_checkable

import numpy as np
from jaxtyping import Int
from numpy import ndarray
from torch.utils.data import Sampler

from diptych.errors import ConfigError

# Steps that are sorted by length together. More save padding; fewer keep the order random.
WINDOW = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Portion:
    """The examples of one rank at one position.

    Args:
        count: number of examples that count in the loss. It is 0 if the rank has none left and repeats an
            example, because all ranks must take part in every step.
        step_count: number of examples of the whole step, over all ranks and accumulated batches.
    """

    indices: tuple[int, ...]
    count: int
    step_count: int


@runtime_checkable
class Steps(Protocol):
    """Which examples each step of a run takes: a `Plan`, or a `JointPlan` of several data sets."""

    seed: int
    ranks: int
    accumulate: int
    examples: int
    steps_per_epoch: int
    step_size: int

    def portion(self, position: int, rank: int = 0) -> Portion: ...

    def epoch_at(self, position: int) -> int: ...


# Example: 10 examples, batch_size=2, ranks=2, accumulate=1. A step has 4 examples, an epoch 3 steps: two
# whole ones in random order, then one of 2. At position 2 (the last step), each rank gets one of these 2.
class Plan:
    """Cuts each epoch into steps of `batch_size * ranks * accumulate` examples of similar length.

    A shuffled epoch is cut into windows of 50 steps. Each window is sorted by length and cut into steps, and
    all steps are shuffled. The last step of an epoch takes the remaining examples. They are chosen before
    sorting, so their lengths are not biased. A *position* counts batches of one rank over the whole run:
    `accumulate` positions make a step.

    Args:
        count: number of examples of the data set.
        batch_size: examples per rank and position.
        seed: seed of all random choices.
        ranks: number of processes that train together.
        accumulate: batches per rank whose gradients make one step.
        lengths: cost of each example. None shuffles without sorting.
        classes: class of each example, for `balance`.
        draws: for each data set of a mix, in order, its number of examples and how many examples an epoch
            takes of it. More than it has repeats all of them; the remainder is drawn anew for every epoch.
        balance: take as many examples of each class as the rarest has, drawn anew for every `epoch` or once
            (`fixed`).
        limit: number of batches per epoch (int) or fraction of an epoch (float).
        repeat: every epoch repeats the first one.
        kinds: kind of each example, from 0; a step takes examples of one kind, such as landscapes. What is
            left of each kind makes an incomplete step at the end of the epoch.

    Raises:
        ConfigError: two of `balance`, `draws` and `kinds` are given.
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
        kinds: ndarray | None = None,
    ) -> None:
        self.seed, self.ranks, self.accumulate = seed, ranks, accumulate
        self.balance, self.repeat = balance, repeat
        self.step_size = batch_size * ranks * accumulate
        # These decide which examples an epoch or a step takes, so two of them cannot hold at once.
        given = {"data.balance": balance, "weights of data sets": draws, "data.aspects": kinds}
        if len(both := [name for name, value in given.items() if value is not None]) > 1:
            raise ConfigError(f"{both[0]} and {both[1]} exclude each other; remove one of them.")
        self._lengths = None if lengths is None else np.asarray(lengths)
        self._members = _members(count, classes if balance else None)
        self._draws = draws
        # Without balance there is one group with all examples.
        self.examples = len(self._members) * min(map(len, self._members))
        if draws is not None:
            self.examples = sum(wanted for _, wanted in draws)
        self._kinds = kinds
        counts = [self.examples] if kinds is None else np.bincount(kinds).tolist()
        self._ends = np.cumsum(counts)  # where each kind ends in the order of an epoch
        # `-(-a // b)` rounds up in integers; a float would lose digits for very many examples.
        self.steps_per_epoch = _limited(sum(-(-one // self.step_size) for one in counts), accumulate, limit)
        self._epochs: dict[int, tuple[ndarray, ndarray]] = {}

    def epoch(self, epoch: int) -> list[Int[ndarray, " _"]]:
        """Return the indices of the examples of each step."""
        order, starts = self._ordered(epoch)
        return [self._step(order, start) for start in starts.tolist()]

    def _step(self, order: Int[ndarray, " _"], start: int) -> Int[ndarray, " _"]:
        end = int(self._ends[np.searchsorted(self._ends, start, side="right")])
        return order[start : min(start + self.step_size, end)]

    def _ordered(self, epoch: int) -> tuple[Int[ndarray, " _"], Int[ndarray, " _"]]:
        """All examples of an epoch in order, and the place where each step begins.

        Two arrays take far less memory than a list of steps, of which there may be millions.
        """
        epoch = 0 if self.repeat else epoch
        if epoch not in self._epochs:
            # Keep the epoch before: a loader reads ahead into the next epoch while this one still trains.
            recent = {key: value for key, value in self._epochs.items() if key == epoch - 1}
            self._epochs = {**recent, epoch: self._cut(epoch)}
        return self._epochs[epoch]

    def portion(self, position: int, rank: int = 0) -> Portion:
        """Return the examples of `rank` at `position`."""
        # Positions count through the whole run, so one number says where it resumes.
        step, part = divmod(position, self.accumulate)
        epoch, step = divmod(step, self.steps_per_epoch)
        order, starts = self._ordered(epoch)
        examples = self._step(order, int(starts[step]))
        # Integer bounds share out all examples:
        # the parts of an incomplete step differ by at most one example.
        start, stop = (len(examples) * place // self.accumulate for place in (part, part + 1))
        # Examples of a step are sorted by length, so taking every `ranks`-th gives all ranks similar work.
        mine = examples[start:stop][rank :: self.ranks]
        # A rank without a batch would leave the others waiting in the all-reduce;
        # `count` 0 takes it out of the loss.
        indices = mine if len(mine) else examples[:1]
        return Portion(indices=tuple(indices.tolist()), count=len(mine), step_count=len(examples))

    def epoch_at(self, position: int) -> int:
        """Number of the epoch of a position, from 0; always 0 if every epoch repeats the first one."""
        return 0 if self.repeat else position // self.accumulate // self.steps_per_epoch

    def _cut(self, epoch: int) -> tuple[ndarray, ndarray]:
        random = np.random.default_rng([self.seed, epoch])  # no state: the same for every call and rank
        # The incomplete step is cut off before sorting; otherwise, it would always have the longest examples.
        order = random.permutation(self._draw(epoch))
        if self._kinds is not None:
            order = order[np.argsort(self._kinds[order], kind="stable")]
        complete, rest = [np.zeros(0, np.int64)], []
        for first, end in pairwise([0, *self._ends.tolist()]):
            whole = end - (end - first) % self.step_size  # without the last, incomplete step
            complete.append(np.arange(first, whole, self.step_size))
            rest += [whole] if whole < end else []
            if self._lengths is not None:
                for start in range(first, whole, WINDOW * self.step_size):
                    window = order[start : min(start + WINDOW * self.step_size, whole)]  # sorts in place
                    window[:] = window[np.argsort(self._lengths[window], kind="stable")]
        # incomplete steps are always the last ones
        starts = np.concatenate([random.permutation(np.concatenate(complete)), np.array(rest, np.int64)])
        return order, starts[: self.steps_per_epoch]

    def _draw(self, epoch: int) -> ndarray:
        if self._draws is not None:
            return self._drawn(self._draws, epoch)
        if len(self._members) == 1:
            return self._members[0]
        # The last number keeps this stream apart from those of `_cut` and `_drawn` with the same seed.
        # `fixed` uses the number 0, which no epoch of the other mode has.
        random = np.random.default_rng([self.seed, 1 + epoch if self.balance == "epoch" else 0, 1])
        count = min(map(len, self._members))
        return np.concatenate([random.permutation(members)[:count] for members in self._members])

    def _drawn(self, draws: Sequence[tuple[int, int]], epoch: int) -> ndarray:
        random = np.random.default_rng([self.seed, epoch, 2])
        parts, first = [], 0
        for count, wanted in draws:
            members = np.arange(first, first + count, dtype=self._members[0].dtype)
            # `draws` of 2.5 epochs: all examples twice, and a random half of them.
            parts += [members] * (wanted // count)
            parts.append(random.permutation(members)[: wanted % count])
            first += count
        return np.concatenate(parts)


def _members(count: int, classes: Sequence[Hashable] | ndarray | None) -> list[ndarray]:
    """Indices of the examples of each class, in the order in which the classes first appear."""
    if classes is None:
        return [np.arange(count, dtype=np.int32 if count < 1 << 31 else np.int64)]  # half the memory
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
    # A number counts batches, of which `accumulate` make a step; a fraction is a share of the steps.
    wanted = -(-limit // accumulate) if isinstance(limit, int) else int(limit * steps)
    return max(1, min(steps, wanted))


class JointPlan:
    """Takes examples of several data sets in every step: captions and text corpora, as VL-BERT does.

    The first data set decides how long an epoch is. The others begin again, in another order, when all of
    their examples were taken, wherever the epoch of the first one is. As every plan is a pure function of
    its position, so are they together.

    Args:
        plans: one plan for each data set, with equal `ranks` and `accumulate`.
        counts: number of examples of each data set. They follow each other, as in a mix.
    """

    def __init__(self, plans: Sequence[Plan], counts: Sequence[int]) -> None:
        self.plans, self.offsets = tuple(plans), np.cumsum([0, *counts[:-1]]).tolist()
        first = plans[0]
        self.seed, self.ranks, self.accumulate = first.seed, first.ranks, first.accumulate
        self.examples, self.steps_per_epoch = sum(plan.examples for plan in plans), first.steps_per_epoch
        self.step_size = sum(plan.step_size for plan in plans)

    def portion(self, position: int, rank: int = 0) -> Portion:
        """Return the examples of `rank` at `position`, those of the first data set first."""
        each = [*zip((plan.portion(position, rank) for plan in self.plans), self.offsets, strict=True)]
        # A data set that has nothing left for this rank repeats an example, which would count in its loss.
        real = [(one, offset) for one, offset in each if one.count] or each[:1]
        return Portion(
            indices=tuple(offset + index for one, offset in real for index in one.indices),
            count=sum(one.count for one, _ in each),
            step_count=sum(one.step_count for one, _ in each),
        )

    def epoch_at(self, position: int) -> int:
        """Number of the epoch of the first data set."""
        return self.plans[0].epoch_at(position)


class Positions(Sampler[list[int]]):
    """Batch sampler of one rank, from position `start` up to `stop`, across epochs.

    Args:
        stride: distance between the indices of an example in two epochs, for data sets whose examples differ
            from epoch to epoch (`Negatives`).
    """

    def __init__(self, plan: Steps, *, start: int, stop: int, rank: int = 0, stride: int = 0) -> None:
        self.plan, self.start, self.stop, self.rank, self.stride = plan, start, stop, rank, stride

    def __len__(self) -> int:
        return self.stop - self.start

    def __iter__(self) -> Iterator[list[int]]:
        for position in range(self.start, self.stop):
            first = self.stride * self.plan.epoch_at(position)
            yield [first + index for index in self.plan.portion(position, self.rank).indices]


class Batches(Sequence[list[int]]):
    """Cuts an order of examples into batches. A batch is made on access, so millions need little memory.

    Args:
        order: indices of examples.
        kept: which batches belong to the sequence. None keeps all.
    """

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
        batch: list[int] = self.order[start : start + self.batch_size].tolist()
        return batch


def longest_first(
    lengths: Sequence[int] | ndarray, *, batch_size: int, rank: int = 0, ranks: int = 1
) -> Batches:
    """Return this rank's batches for evaluation: every example once, examples of similar length together.

    The longest examples come first, so that a batch that does not fit into memory fails at once.
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
