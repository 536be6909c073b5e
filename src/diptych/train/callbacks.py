"""Observers of a run: they report, validate, write checkpoints and stop the run on request."""

import math
import signal
import threading
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from diptych.data.stream import ids_of
from diptych.errors import ConfigError
from diptych.train import checkpoint
from diptych.train.checkpoint import Row, ValidationRecord
from diptych.train.loggers import MetricLogger
from diptych.train.loop import Loop, Observer
from diptych.train.schedules import Plateau, Schedule
from diptych.types import VisionLanguageModel


class Reporter(Observer):
    """Reports, every few steps, the mean loss since the last report, learning rate and examples per second.

    Where a task has several losses, each is reported by its name, as a mean over the batches of the first
    rank: its share is enough for a curve, and costs no message between ranks. The norm of all gradients is
    that of the last step, before it was clipped.

    Losses stay on the device until they are reported, so that steps need not wait for the device. A loss that
    is not finite is found here, before a checkpoint could store the weights that it damaged.
    """

    def __init__(self, every: int, loggers: Sequence[MetricLogger]) -> None:
        self.every, self.loggers = every, loggers
        self.latest: dict[str, float] = {}
        self._since = 0.0

    def start(self, loop: Loop) -> None:
        self._since = time.perf_counter()

    def after_step(self, loop: Loop) -> None:
        if loop.step % self.every == 0 or loop.done or loop.stopping:
            self.report(loop)

    def report(self, loop: Loop) -> None:
        """Report the steps since the last report, if there are any.

        Raises:
            ConfigError: a loss is not finite.
        """
        if not loop.losses:
            return
        counts = torch.tensor([float(count) for _, count in loop.losses], device=loop.fabric.device)
        losses = torch.stack([loss for loss, _ in loop.losses]).float()
        # `where` instead of a product: a repeated example (count 0, see `Portion`) may have a NaN loss.
        losses = torch.where(counts > 0, losses * counts, 0.0)
        both = torch.stack([losses, counts])  # one message between the ranks instead of two
        if loop.plan.ranks > 1:
            torch.distributed.all_reduce(both)
        (sums, totals), parts = both.tolist(), loop.plan.accumulate
        loop.losses.clear()
        bad = next((place for place, value in enumerate(sums) if not math.isfinite(value)), None)
        if bad is not None:
            # There is one sum per position, `parts` to a step; count back from the current step.
            raise ConfigError(_not_finite(loop, loop.step - (len(sums) - 1 - bad) // parts, sums[bad]))
        now = time.perf_counter()
        self.latest = {
            "epoch": loop.epochs,
            "train/loss": sum(sums) / sum(totals),
            "train/lr": max(loop.rates),
            "train/examples_per_second": sum(totals) / max(1e-9, now - self._since),
            **({} if loop.norm is None else {"train/grad_norm": float(loop.norm)}),
            **{f"train/{name}": value for name, value in _means(loop.parts).items()},
        }
        loop.parts.clear()
        self._since = now
        for logger in self.loggers:
            logger.log_metrics(self.latest, loop.step)

    def restart_clock(self) -> None:
        """Leave the time since the last report (a validation, say) out of examples per second."""
        self._since = time.perf_counter()


def _means(parts: Sequence[Mapping[str, Tensor]]) -> dict[str, float]:
    """Mean of each loss over the batches that have it."""
    names = dict.fromkeys(name for one in parts for name in one)
    return {name: float(torch.stack([one[name] for one in parts if name in one]).mean()) for name in names}


def _not_finite(loop: Loop, step: int, value: float) -> str:
    return (
        f"the training loss became {value} at step {step} of {loop.total_steps} (learning rate "
        f"{max(loop.rates):.3g}). Try a smaller optim.lr, more schedule.warmup, a smaller "
        "trainer.gradient_clip_val, or trainer.precision=32-true; `diptych check` finds NaN features. "
        "The checkpoints hold weights from before this step."
    )


class Rememberer(Observer):
    """Lets a task look at all training examples again, whose vectors it compares with those of a batch.

    Every rank looks at all of them, so that all compare with the same ones.

    Args:
        every: optimizer steps between validations, before each of which the vectors must be up to date.
    """

    def __init__(self, every: int) -> None:
        self.every = every

    def start(self, loop: Loop) -> None:
        loop.learner.task.know(ids_of(loop.data.train))
        if loop.step == 0:  # a resumed run has the vectors in its checkpoint
            self._look(loop)

    def after_step(self, loop: Loop) -> None:
        own = loop.learner.task.refresh or loop.plan.steps_per_epoch
        if loop.step and (loop.done or loop.step % own == 0 or loop.step % self.every == 0):
            self._look(loop)

    def _look(self, loop: Loop) -> None:
        learner = loop.learner.eval()
        with torch.no_grad(), loop.fabric.autocast():
            learner.task.remember(cast(VisionLanguageModel, learner.model), loop.training_set())
        learner.train()


class Validator(Observer):
    """Validates, saves the best weights, and stops a run that no longer improves.

    Args:
        record: gets the results.
        reporter: reports pending losses before a validation.
        every: optimizer steps between validations. The last step is always validated.
        monitor: metric that decides. None is the task's first metric; the task says whether less is better.
        patience: validations without improvement before the run stops. None never stops.
        min_delta: an improvement smaller than this does not count.
        best: file of the best weights. None on all ranks but the first.
    """

    def __init__(
        self,
        record: ValidationRecord,
        reporter: Reporter,
        *,
        every: int,
        monitor: str | None,
        patience: int | None,
        min_delta: float,
        best: Path | None,
    ) -> None:
        self.record, self.reporter, self.every = record, reporter, every
        self.monitor, self.patience, self.min_delta, self.best = monitor, patience, min_delta, best
        self._warned = False

    def after_step(self, loop: Loop) -> None:
        # The last step always counts, or the final weights could never be the best.
        if loop.step % self.every and not loop.done:
            return
        self.reporter.report(loop)  # raises on a loss that is not finite, before its weights can be the best
        averaged = loop.averaging is not None and loop.averaging.validate
        with loop.average.inside(loop.learner) if averaged else nullcontext():
            metrics = loop.evaluate()
            row = self._row(loop, metrics)
            improved = self.record.add(row, min_delta=self.min_delta)
            # Inside the block: with an averaged validation, the best weights are those of the mean.
            weights = loop.learner.state_dict() if improved else {}
            if improved and self.best is not None:
                checkpoint.save(self.best, {"weights": weights, "metrics": row})
        loop.drop = dropped(loop.schedule, self.record)
        # All ranks have the same metrics, so they decide alike. At the last step there is nothing to stop.
        if self.patience is not None and self.record.stale >= self.patience and not loop.done:
            self.record.stopped = loop.stopping = True
        self.reporter.restart_clock()

    def _row(self, loop: Loop, metrics: dict[str, float]) -> Row:
        monitor = self.monitor or next(iter(metrics))
        if monitor not in metrics:
            raise ConfigError(
                f"trainer.monitor is {monitor!r}, but the task has no such metric; "
                f"expected one of {', '.join(metrics)}."
            )
        # Known only after the first validation: which measures there are depends on the data.
        self.record.monitor, self.record.minimized = monitor, not loop.learner.task.higher(monitor)
        if math.isnan(metrics[monitor]) and not self._warned:
            self._warned = True
            warnings.warn(
                f"{monitor} on the validation set is not a number (are all its examples of one class?), so "
                "it cannot select the best checkpoint. Set trainer.monitor=loss.",
                stacklevel=2,
            )
        log_metrics(self.reporter.loggers, metrics, loop.step, prefix="val/")
        return {"step": loop.step, "epoch": loop.epochs, **metrics}


def dropped(schedule: Schedule, record: ValidationRecord) -> float:
    """Factor that the results so far put on the rate; 1 for schedules that do not ask for them."""
    if not isinstance(schedule, Plateau) or record.monitor is None:
        return 1.0
    return schedule.drop((row[record.monitor] for row in record.history), minimized=record.minimized)


def log_metrics(
    loggers: Sequence[MetricLogger], metrics: dict[str, float], step: int, *, prefix: str
) -> None:
    """Send metrics to all loggers, with `prefix` before their names."""
    for logger in loggers:
        logger.log_metrics({f"{prefix}{name}": value for name, value in metrics.items()}, step)


class Keeper(Observer):
    """Writes `last.ckpt` every few steps and at the end of the run.

    Args:
        record: results of the validations, stored in the checkpoint.
        reporter: reports pending losses before a checkpoint.
        every: optimizer steps between checkpoints.
        settings: settings that must be equal to resume (see `require_same`).
        path: file to write. None on all ranks but the first.
    """

    def __init__(
        self,
        record: ValidationRecord,
        reporter: Reporter,
        *,
        every: int,
        settings: dict[str, Any],
        path: Path | None,
    ) -> None:
        self.record, self.reporter = record, reporter
        self.every, self.settings, self.path = every, settings, path

    def after_step(self, loop: Loop) -> None:
        # Before the next step and after the stopper, so that an interruption loses nothing.
        if loop.stopping or loop.step % self.every == 0:
            self.save(loop)

    def finish(self, loop: Loop) -> None:
        # An interrupted run was saved in `after_step`, and will resume; it has no final average yet.
        if loop.done or self.record.stopped:
            self._measure_average(loop)
            self.save(loop)

    def save(self, loop: Loop) -> None:
        """Write the checkpoint. All ranks call this, because collecting the state may need them all."""
        self.reporter.report(loop)  # raises on a loss that is not finite, so its weights are never stored
        state = {**loop.state_dict(), "record": self.record.as_dict(), "settings": self.settings}
        state["threads"] = torch.get_num_threads()  # sums on a CPU depend on it, see `warn_of_threads`
        if self.path is not None:
            checkpoint.save(self.path, state)

    def _measure_average(self, loop: Loop) -> None:
        if not loop.average.count or loop.data.validate is None:
            return
        # Measured once at the end: SWA's mean is of no interest before all weights have joined.
        with loop.average.inside(loop.learner):
            self.record.final = loop.evaluate()
        log_metrics(self.reporter.loggers, self.record.final, loop.step, prefix="average/")


class Stopper(Observer):
    """Ends a run after the current step on Ctrl-C or SIGTERM. A second Ctrl-C ends it at once."""

    def __init__(self) -> None:
        self.asked = False
        self._before: dict[signal.Signals, Any] = {}

    def after_step(self, loop: Loop) -> None:
        if loop.plan.ranks > 1:
            # The signal may have reached one rank only; a rank that stops alone leaves the others waiting.
            self.asked = loop.fabric.strategy.reduce_boolean_decision(self.asked, all=False)
        loop.stopping = loop.stopping or self.asked

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Handle the signals inside the block, and restore the handlers after it."""
        # Python lets only the main thread set handlers.
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        # Clusters send SIGTERM some seconds before they kill a job.
        self._before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        for number in self._before:
            signal.signal(number, self._ask)
        try:
            yield
        finally:
            for number, handler in self._before.items():
                signal.signal(number, handler)
            self._before = {}

    def _ask(self, number: int, frame: Any) -> None:
        if self.asked and number == signal.SIGINT:  # the user does not want to wait for the step
            raise KeyboardInterrupt
        self.asked = True
