"""What happens beside the steps: reporting, validating, keeping checkpoints, stopping on request."""

import math
import signal
import threading
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch

from diptych.errors import ConfigError
from diptych.train import checkpoint
from diptych.train.checkpoint import Row, ValidationRecord
from diptych.train.loggers import MetricLogger
from diptych.train.loop import Loop, Observer


class Reporter(Observer):
    """Every few steps: loss since the last report, learning rate, examples per second.

    Losses stay on the device until they are reported, so that steps need not wait for them; a loss that is
    not finite is found here, before any checkpoint could keep its weights.
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
        """Take stock of the steps since the last report, if there were any."""
        if not loop.losses:
            return
        counts = torch.tensor([float(count) for _, count in loop.losses], device=loop.fabric.device)
        losses = torch.stack([loss for loss, _ in loop.losses]).float()
        losses = torch.where(counts > 0, losses * counts, 0.0)  # a stand-in does not count, whatever its loss
        both = torch.stack([losses, counts])
        if loop.plan.ranks > 1:
            torch.distributed.all_reduce(both)
        (sums, totals), parts = both.tolist(), loop.plan.accumulate
        loop.losses.clear()
        bad = next((place for place, value in enumerate(sums) if not math.isfinite(value)), None)
        if bad is not None:
            raise ConfigError(_not_finite(loop, loop.step - (len(sums) - 1 - bad) // parts, sums[bad]))
        now = time.perf_counter()
        self.latest = {
            "epoch": loop.epochs,
            "train/loss": sum(sums) / sum(totals),
            "train/lr": max(loop.rates),
            "train/examples_per_second": sum(totals) / max(1e-9, now - self._since),
        }
        self._since = now
        for logger in self.loggers:
            logger.log_metrics(self.latest, loop.step)

    def restart_clock(self) -> None:
        """Do not count the time since the last report as training."""
        self._since = time.perf_counter()


def _not_finite(loop: Loop, step: int, value: float) -> str:
    return (
        f"the training loss became {value} at step {step} of {loop.total_steps} (learning rate "
        f"{max(loop.rates):.3g}). Try a smaller optim.lr, more schedule.warmup, a smaller "
        "trainer.gradient_clip_val, or trainer.precision=32-true; `diptych check` finds NaN features. "
        "Checkpoints hold the state before this step."
    )


class Validator(Observer):
    """Validates, remembers the best, keeps its weights, and stops a run that no longer improves.

    Args:
        every: steps between validations; the last step is always followed by one.
        monitor: None is the task's first metric; the task says of which less is better.
        patience: validations without improvement before the run stops; None never stops.
        best: where to keep the best weights; None on all ranks but the first.
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
        if loop.step % self.every and not loop.done:
            return
        self.reporter.report(loop)
        averaged = loop.averaging is not None and loop.averaging.validate
        with loop.average.inside(loop.learner) if averaged else nullcontext():
            metrics = loop.evaluate()
            row = self._row(loop, metrics)
            improved = self.record.add(row, min_delta=self.min_delta)
            weights = loop.learner.state_dict() if improved else {}
            if improved and self.best is not None:
                checkpoint.save(self.best, {"weights": weights, "metrics": row})
        if self.patience is not None and self.record.stale >= self.patience and not loop.done:
            self.record.stopped = loop.stopping = True
        self.reporter.restart_clock()

    def _row(self, loop: Loop, metrics: dict[str, float]) -> Row:
        monitor = self.monitor or next(iter(metrics))
        if monitor not in metrics:
            raise ConfigError(
                f"trainer.monitor is {monitor!r}, which the task does not measure; "
                f"expected one of {', '.join(metrics)}."
            )
        self.record.monitor, self.record.minimized = monitor, not loop.learner.task.higher(monitor)
        if math.isnan(metrics[monitor]) and not self._warned:
            self._warned = True
            warnings.warn(
                f"{monitor} on the validation set is not a number (are all its examples of one class?); "
                "the best checkpoint cannot be told by it. Monitor the loss: trainer.monitor=loss.",
                stacklevel=2,
            )
        log_metrics(self.reporter.loggers, metrics, loop.step, prefix="val/")
        return {"step": loop.step, "epoch": loop.epochs, **metrics}


def log_metrics(
    loggers: Sequence[MetricLogger], metrics: dict[str, float], step: int, *, prefix: str
) -> None:
    """Report metrics under `prefix`."""
    for logger in loggers:
        logger.log_metrics({f"{prefix}{name}": value for name, value in metrics.items()}, step)


class Keeper(Observer):
    """Writes `last.ckpt`: every few steps, and whenever the run ends.

    Args:
        settings: what must be the same for a run to go on (see `require_same`).
        path: None on all ranks but the first.
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
        if loop.stopping or loop.step % self.every == 0:
            self.save(loop)

    def finish(self, loop: Loop) -> None:
        if loop.done or self.record.stopped:
            self._measure_average(loop)
            self.save(loop)

    def save(self, loop: Loop) -> None:
        """Every rank takes part, the first writes."""
        self.reporter.report(loop)
        state = {**loop.state_dict(), "record": self.record.as_dict(), "settings": self.settings}
        state["threads"] = torch.get_num_threads()
        if self.path is not None:
            checkpoint.save(self.path, state)

    def _measure_average(self, loop: Loop) -> None:
        if not loop.average.count or loop.data.validate is None:
            return
        with loop.average.inside(loop.learner):
            self.record.final = loop.evaluate()
        log_metrics(self.reporter.loggers, self.record.final, loop.step, prefix="average/")


class Stopper(Observer):
    """Ends a run after the step at hand on Ctrl-C or SIGTERM; a second Ctrl-C ends it at once."""

    def __init__(self) -> None:
        self.asked = False
        self._before: dict[signal.Signals, Any] = {}

    def after_step(self, loop: Loop) -> None:
        if loop.plan.ranks > 1:
            self.asked = loop.fabric.strategy.reduce_boolean_decision(self.asked, all=False)
        loop.stopping = loop.stopping or self.asked

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Catch the signals inside the block (in the main thread, the only one that can)."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
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
        if self.asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.asked = True
