"""Data sets to loaders: for training a stream of the whole run, for validation every example once."""

import signal
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int
from numpy import ndarray
from torch import Generator
from torch.utils.data import DataLoader

from diptych.data.sampler import Plan, Positions, longest_first
from diptych.data.stream import rows_of, stream, targets_of
from diptych.errors import ConfigError, unlabeled
from diptych.predictions import likeliest
from diptych.types import Batch, Dataset, Example


@runtime_checkable
class Collator(Protocol):
    """Examples to a batch, and what one example costs; `Collate` is one.

    One that has `lengths(dataset)` beside it is asked for all at once.
    """

    def __call__(self, examples: Sequence[Example]) -> Batch: ...

    def length(self, example: Example) -> int: ...


class DataModule:
    """What a run learns from and what it is measured on.

    Args:
        validate: None trains without measuring.
        batch_size: examples per device and batch.
        eval_batch_size: None means `batch_size`.
        workers: loader processes; 0 loads in the training process.
        worker_start: how workers start; None is the system's default.
        balance: `epoch` or `fixed` trains on as many examples of each class as the rarest has (see `Plan`).
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
        balance: Literal["epoch", "fixed"] | None = None,
    ) -> None:
        for name, dataset in (("training", train), ("validation", validate)):
            if dataset is not None and len(dataset) == 0:
                raise ConfigError(f"the {name} set is empty; expected at least one example.")
        if batch_size < 1 or (eval_batch_size is not None and eval_batch_size < 1):
            raise ConfigError(
                f"batch sizes are {batch_size} and {eval_batch_size}; expected at least one example."
            )
        if balance not in (None, "epoch", "fixed"):
            raise ConfigError(f"data.balance is {balance!r}; expected 'epoch', 'fixed' or null.")
        if workers < 0:
            raise ConfigError(f"data.workers is {workers}; expected no fewer than zero.")
        self.train, self.validate, self.collate = train, validate, collate
        self.batch_size, self.eval_batch_size = batch_size, eval_batch_size or batch_size
        self.workers, self.worker_start, self.balance = workers, worker_start, balance

    def plan(
        self,
        *,
        seed: int,
        ranks: int = 1,
        accumulate: int = 1,
        limit: int | float | None = None,
        repeat: bool = False,
    ) -> Plan:
        """Which examples every step takes (see `Plan`). Needs the length of every training example."""
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
        batches = Positions(plan, start=start, stop=stop, rank=rank)
        return self._loader(self.train, batches, pin_memory=pin_memory)

    def validate_loader(
        self, *, rank: int = 0, ranks: int = 1, pin_memory: bool = False
    ) -> DataLoader[Example]:
        """This rank's share of the validation set, no example twice."""
        if self.validate is None:
            raise ConfigError("there is no validation set to measure on; give one as data.validate.")
        batches = longest_first(self._lengths, batch_size=self.eval_batch_size, rank=rank, ranks=ranks)
        return self._loader(self.validate, batches, pin_memory=pin_memory, persistent=True)

    @cached_property
    def targets(self) -> dict[str, Any]:
        """The target of each validation example, by id."""
        return {} if self.validate is None else dict(targets_of(self.validate))

    @cached_property
    def _lengths(self) -> Int[ndarray, " N"]:
        return np.zeros(0, np.int64) if self.validate is None else self._lengths_of(self.validate)

    def _lengths_of(self, dataset: Dataset) -> Int[ndarray, " N"]:
        whole: Callable[[Dataset], ndarray] | None = getattr(self.collate, "lengths", None)
        if whole is not None:
            return whole(dataset)
        return np.array([self.collate.length(example) for example in stream(dataset)])

    def _loader(
        self, dataset: Dataset, batches: Any, *, pin_memory: bool, persistent: bool = False
    ) -> DataLoader[Example]:
        parallel: dict[str, Any] = {}
        if self.workers:
            parallel = {
                "multiprocessing_context": self.worker_start,
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
            generator=Generator(),  # else a loader that starts would draw from the run's own randomness
            **parallel,
        )


def _leave_signals_to_main(worker: int) -> None:
    """Ctrl-C reaches the whole process group; a worker that died of it would take the step at hand along."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _classes(dataset: Dataset) -> list[Any] | ndarray:
    rows = rows_of(dataset)
    if rows is not None:
        return rows.classes()
    found = []
    for key, target in targets_of(dataset):
        if target is None:
            raise unlabeled(key)
        found.append(likeliest(target))
    return found
