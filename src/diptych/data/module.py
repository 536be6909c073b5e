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

from diptych.data.negatives import Negatives
from diptych.data.sampler import Plan, Positions, longest_first
from diptych.data.stream import rows_of, stream, targets_of
from diptych.errors import ConfigError, unlabeled
from diptych.predictions import likeliest
from diptych.types import Batch, Dataset, Example


@runtime_checkable
class Collator(Protocol):
    """Converts examples to a batch, and says what an example costs; `Collate` implements it.

    A collator may also have `lengths(dataset)`, which returns the costs of all examples at once.
    """

    def __call__(self, examples: Sequence[Example]) -> Batch: ...

    def length(self, example: Example) -> int: ...


class DataModule:
    """The training and validation data of a run.

    Args:
        validate: validation set. None trains without validation.
        batch_size: examples per device and batch.
        eval_batch_size: batch size of the validation. None means `batch_size`.
        workers: number of loader processes. 0 loads in the training process.
        worker_start: start method of the loader processes. None is the default of the system.
        negatives: settings of `Negatives`, which turns some of the true pairs of both splits into wrong ones;
            anew for every epoch of training, always the same for validation. With `train: false` the training
            pairs stay, for `task.hard`. None leaves all.
        balance: `epoch` or `fixed` trains on as many examples of each class as the rarest has (see `Plan`).

    Raises:
        ConfigError: a data set is empty, or a number or name is outside of its range.
    """

    def __init__(
        self,
        *,
        train: Dataset,
        validate: Dataset | None = None,
        collate: Collator,
        batch_size: int = 32,
        eval_batch_size: int | None = None,
        workers: int = 0,
        worker_start: Literal["fork", "spawn", "forkserver"] | None = None,
        negatives: Mapping[str, Any] | None = None,
        balance: Literal["epoch", "fixed"] | None = None,
    ) -> None:
        for name, dataset in (("training", train), ("validation", validate)):
            if dataset is not None and len(dataset) == 0:
                raise ConfigError(f"the {name} set is empty; expected at least one example.")
        if batch_size < 1 or (eval_batch_size is not None and eval_batch_size < 1):
            raise ConfigError(
                f"data.batch_size is {batch_size} and data.eval_batch_size {eval_batch_size}; expected at "
                "least 1."
            )
        if balance not in (None, "epoch", "fixed"):
            raise ConfigError(f"data.balance is {balance!r}; expected 'epoch', 'fixed' or null.")
        if workers < 0:
            raise ConfigError(f"data.workers is {workers}; expected 0 or more.")
        self.train, self.validate, self.collate = train, validate, collate
        self.batch_size, self.eval_batch_size = batch_size, eval_batch_size or batch_size
        self.workers, self.worker_start, self.balance = workers, worker_start, balance
        drawn = dict(negatives or {})
        in_training = drawn.pop("train", True) and negatives is not None
        self._drawn = Negatives(train, **drawn) if in_training else None
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
    ) -> Plan:
        """Plan the examples of every step (see `Plan`). Computes the length of every training example."""
        return Plan(
            len(self.train),
            batch_size=self.batch_size,
            seed=seed,
            ranks=ranks,
            accumulate=accumulate,
            lengths=self._lengths_of(self.train),
            classes=_classes(self.train) if self.balance else None,
            draws=getattr(self.train, "draws", None),
            balance=self.balance,
            limit=limit,
            repeat=repeat,
        )

    def train_loader(
        self, plan: Plan, *, start: int, stop: int, rank: int = 0, pin_memory: bool = False
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
