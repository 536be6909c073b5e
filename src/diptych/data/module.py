"""Data loaders: one stream of batches for the whole training run; every validation example once."""

import signal
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int
from numpy import ndarray
from torch import Generator
from torch.utils.data import DataLoader

from diptych.data.mirrored import Mirrored
from diptych.data.negatives import Negatives
from diptych.data.sampler import JointPlan, Plan, Positions, Steps, longest_first
from diptych.data.stream import rows_of, stream, targets_of
from diptych.errors import ConfigError, unlabeled
from diptych.predictions import likeliest
from diptych.types import Batch, Dataset, Example


@runtime_checkable
class Collator(Protocol):
    """Converts examples to a batch, and says what an example costs; `Collate` implements it.

    A collator may also have `lengths(dataset)`, which returns the costs of all examples at once, and
    `aspects(dataset)`, which returns 1 for examples with an upright picture and 0 for others.
    """

    def __call__(self, examples: Sequence[Example]) -> Batch: ...

    def length(self, example: Example) -> int: ...


class DataModule:
    """The training and validation data of a run.

    Args:
        validate: validation set. None trains without validation.
        batch_size: examples per device and batch. For a mix also the number of examples of each member, by
            name: every batch then has that many of each, and an epoch ends with the first member, while the
            others are cycled (see `JointPlan`).
        eval_batch_size: batch size of the validation. None means `batch_size`, that of all members together.
        workers: number of loader processes. 0 loads in the training process.
        worker_start: start method of the loader processes. None is the default of the system.
        negatives: settings of `Negatives`, which turns some of the true pairs of both splits into wrong ones;
            anew for every epoch of training, always the same for validation. With `train: false` the training
            pairs stay, for `task.hard`. None leaves all.
        mirror: settings of `Mirrored`, which exchanges left and right of some pictures in training, anew for
            every epoch. It needs a model that reads pixels. None mirrors none.
        balance: `epoch` or `fixed` trains on as many examples of each class as the rarest has (see `Plan`).
        aspects: a step trains on upright pictures only, or on others only. This saves padding for models that
            read pixels of different sizes; VL-BERT calls it aspect grouping.

    Raises:
        ConfigError: a data set is empty, or a number or name is outside of its range.
    """

    def __init__(
        self,
        *,
        train: Dataset,
        validate: Dataset | None = None,
        collate: Collator,
        batch_size: int | Mapping[str, int] = 32,
        eval_batch_size: int | None = None,
        workers: int = 0,
        worker_start: Literal["fork", "spawn", "forkserver"] | None = None,
        negatives: Mapping[str, Any] | None = None,
        mirror: Mapping[str, Any] | None = None,
        balance: Literal["epoch", "fixed"] | None = None,
        aspects: bool = False,
    ) -> None:
        for name, dataset in (("training", train), ("validation", validate)):
            if dataset is not None and len(dataset) == 0:
                raise ConfigError(f"the {name} set is empty; expected at least one example.")
        self.each = _of_each(train, batch_size) if isinstance(batch_size, Mapping) else None
        # `_of_each` has refused a mapping with other numbers
        total = sum(batch_size.values()) if isinstance(batch_size, Mapping) else batch_size
        if total < 1 or (eval_batch_size is not None and eval_batch_size < 1):
            raise ConfigError(
                f"data.batch_size is {batch_size} and data.eval_batch_size {eval_batch_size}; expected at "
                "least 1."
            )
        if balance not in (None, "epoch", "fixed"):
            raise ConfigError(f"data.balance is {balance!r}; expected 'epoch', 'fixed' or null.")
        if workers < 0:
            raise ConfigError(f"data.workers is {workers}; expected 0 or more.")
        self.train, self.validate, self.collate = train, validate, collate
        if self.each and (balance or aspects or negatives is not None):
            name = "balance" if balance else "aspects" if aspects else "negatives"
            raise ConfigError(f"data.{name} and a data.batch_size of each member exclude each other.")
        self.batch_size, self.eval_batch_size = total, eval_batch_size or total
        self.workers, self.worker_start, self.balance = workers, worker_start, balance
        self.aspects = aspects
        drawn = dict(negatives or {})
        in_training = drawn.pop("train", True) and negatives is not None
        self._drawn = Negatives(train, **drawn) if in_training else _mirrored(train, collate, mirror)
        if in_training and mirror is not None:
            raise ConfigError("data.negatives and data.mirror exclude each other in training.")
        self._validated = validate
        if negatives is not None and validate is not None:
            self._validated = Negatives(validate, **drawn)

    def plan(
        self,
        *,
        seed: int,
        ranks: int = 1,
        accumulate: int = 1,
        limit: int | float | None = None,
        repeat: bool = False,
    ) -> Steps:
        """Plan the examples of every step (see `Plan`). Computes the length of every training example.

        Raises:
            ConfigError: `aspects` is set, and the collator does not know the pictures.
        """
        lengths = self._lengths_of(self.train)
        common: dict[str, Any] = {"ranks": ranks, "accumulate": accumulate, "repeat": repeat}
        if self.each:
            return _joint_plan(self.each, lengths, limit=limit, seed=seed, **common)
        return Plan(
            len(self.train),
            batch_size=self.batch_size,
            seed=seed,
            lengths=lengths,
            classes=_classes(self.train) if self.balance else None,
            draws=getattr(self.train, "draws", None),
            balance=self.balance,
            limit=limit,
            kinds=self._aspects() if self.aspects else None,
            **common,
        )

    def _aspects(self) -> Int[ndarray, " N"]:
        found: Callable[[Dataset], ndarray] | None = getattr(self.collate, "aspects", None)
        if found is None:
            raise ConfigError("data.aspects needs a collator that knows the pictures; remove it.")
        return found(self.train)

    def train_loader(
        self, plan: Steps, *, start: int, stop: int, rank: int = 0, pin_memory: bool = False
    ) -> DataLoader[Example]:
        """The batches of `rank` at the positions from `start` up to `stop`."""
        if self._drawn is None:
            batches = Positions(plan, start=start, stop=stop, rank=rank)
            return self._loader(self.train, batches, pin_memory=pin_memory)
        batches = Positions(plan, start=start, stop=stop, rank=rank, stride=len(self.train))
        return self._loader(self._drawn.seeded(plan.seed), batches, pin_memory=pin_memory)

    def validate_loader(
        self, *, rank: int = 0, ranks: int = 1, pin_memory: bool = False
    ) -> DataLoader[Example]:
        """This rank's share of the validation set. Every example goes to exactly one rank."""
        if self._validated is None:
            raise ConfigError("there is no validation set; set data.validate.")
        # No example is repeated to fill up a rank: it would count twice in the metric.
        batches = longest_first(self._lengths, batch_size=self.eval_batch_size, rank=rank, ranks=ranks)
        return self._loader(self._validated, batches, pin_memory=pin_memory, persistent=True)

    def training_set(self) -> DataLoader[Example]:
        """All training examples once, in their order, without the wrong pairs that `negatives` draws."""
        places = range(0, len(self.train), self.eval_batch_size)
        last = len(self.train)
        batches = [list(range(start, min(start + self.eval_batch_size, last))) for start in places]
        return self._loader(self.train, batches, pin_memory=False)

    @cached_property
    def targets(self) -> dict[str, Any]:
        """The target of each validation example, by id."""
        return {} if self._validated is None else dict(targets_of(self._validated))

    @cached_property
    def _lengths(self) -> Int[ndarray, " N"]:
        return np.zeros(0, np.int64) if self.validate is None else self._lengths_of(self.validate)

    def _lengths_of(self, dataset: Dataset) -> Int[ndarray, " N"]:
        all_at_once: Callable[[Dataset], ndarray] | None = getattr(self.collate, "lengths", None)
        if all_at_once is not None:
            return all_at_once(dataset)
        return np.array([self.collate.length(example) for example in stream(dataset)])

    def _loader(
        self, dataset: Dataset, batches: Any, *, pin_memory: bool, persistent: bool = False
    ) -> DataLoader[Example]:
        parallel: dict[str, Any] = {}
        if self.workers:
            parallel = {
                "multiprocessing_context": self.worker_start,
                # The validation loader is used again and again; the training loader once per run.
                "persistent_workers": persistent,
                "worker_init_fn": _leave_signals_to_main,
            }
        collate: Callable[[Sequence[Example]], Batch] = self.collate
        return DataLoader(
            dataset,  # type: ignore[arg-type]
            batch_sampler=batches,
            collate_fn=collate,
            num_workers=self.workers,
            pin_memory=pin_memory,
            # Without a generator of its own, a starting loader would draw from the global one and so change
            # the random numbers of the run.
            generator=Generator(),
            **parallel,
        )


def _mirrored(train: Dataset, collate: Collator, mirror: Mapping[str, Any] | None) -> Mirrored | None:
    """The training data with mirrored pictures; None without the setting.

    Raises:
        ConfigError: the model reads features, which cannot be mirrored.
    """
    if mirror is None:
        return None
    # Mirrored boxes with the features of the picture as it was would contradict each other.
    if not getattr(collate, "mirrors", False):
        raise ConfigError(
            "data.mirror needs a model that reads pixels; features of regions cannot be mirrored. Remove it."
        )
    return Mirrored(train, **mirror)


def _of_each(train: Dataset, batch_size: Mapping[str, int]) -> list[tuple[int, int]]:
    """For each member of a mix, in order, its number of examples, and how many a batch takes of it.

    Raises:
        ConfigError: the numbers are not those of the members, or the mix has weights.
    """
    members: Mapping[str, int] = getattr(train, "member_counts", {})
    if {*members} != {*batch_size} or min(batch_size.values(), default=0) < 1:
        raise ConfigError(
            f"data.batch_size is {dict(batch_size)}; expected a number from 1 for each member of the "
            f"training data: {', '.join(members) or 'which is no mix, so give one number'}."
        )
    if empty := [name for name, count in members.items() if not count]:
        raise ConfigError(f"the member {empty[0]!r} of the training data has no examples; remove it.")
    if getattr(train, "draws", None) is not None:
        raise ConfigError("data.batch_size of each member and weights of the mix exclude each other.")
    return [(count, batch_size[name]) for name, count in members.items()]


def _joint_plan(
    each: Sequence[tuple[int, int]],
    lengths: Int[ndarray, " N"],
    *,
    limit: int | float | None,
    seed: int,
    repeat: bool,
    **common: Any,
) -> JointPlan:
    parts = np.split(lengths, np.cumsum([count for count, _ in each])[:-1])
    plans = [
        Plan(
            count,
            batch_size=size,
            # Equal seeds would give data sets of equal size the same order.
            seed=int(np.random.SeedSequence([seed, 3, number]).generate_state(1)[0]) if number else seed,
            lengths=part,
            # The first data set decides how long an epoch is, except for overfitting on purpose.
            limit=limit if repeat or not number else None,
            repeat=repeat,
            **common,
        )
        for number, ((count, size), part) in enumerate(zip(each, parts, strict=True))
    ]
    return JointPlan(plans, [count for count, _ in each])


def _leave_signals_to_main(worker: int) -> None:
    """Make a loader worker ignore Ctrl-C, which reaches all processes of the group.

    A worker that died of it would break the current step, which the main process still finishes.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # The main process has a handler for SIGTERM, which forked workers inherit; torch ends them by SIGTERM.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _classes(dataset: Dataset) -> list[Any] | ndarray:
    rows = rows_of(dataset)
    if rows is not None:
        return rows.classes()
    classes = []
    for key, target in targets_of(dataset):
        if target is None:
            raise unlabeled(key)
        classes.append(likeliest(target))
    return classes
