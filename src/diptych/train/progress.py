"""Progress of a run on the terminal."""

import sys
import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from diptych.train.callbacks import Reporter
from diptych.train.checkpoint import ValidationRecord
from diptych.train.loop import Loop, Observer

REFRESH = 0.2  # seconds between updates of the bar


class ProgressBar(Observer):
    """Shows epoch, steps, loss, learning rate, speed, time left, and the last and best validation metric.

    If standard error is not a terminal, it prints one line per validation instead of a bar.
    """

    def __init__(self, record: ValidationRecord, reporter: Reporter) -> None:
        self.record, self.reporter = record, reporter
        # `force_terminal`: with the variable FORCE_COLOR, rich would draw a bar into a log file.
        self.console = Console(stderr=True, force_terminal=sys.stderr.isatty())
        self._bar: Progress | None = None
        self._task: Any = None
        self._drawn = 0.0
        self._validations = 0

    def start(self, loop: Loop) -> None:
        self._validations = len(self.record.history)  # a resumed run has some that were printed before
        if not self.console.is_terminal:
            return
        self._bar = Progress(
            TextColumn("epoch {task.fields[epoch]}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[state]}"),
            console=self.console,
            transient=True,
        )
        self._task = self._bar.add_task("", total=loop.total_steps, completed=loop.step, epoch="", state="")
        self._bar.start()

    def after_step(self, loop: Loop) -> None:
        if len(self.record.history) > self._validations:
            self._validations = len(self.record.history)
            self.console.print(self._validation_line(loop), highlight=False, soft_wrap=True)
        now = time.perf_counter()
        # Drawing takes longer than a step of a small model.
        if self._bar is not None and (now - self._drawn > REFRESH or loop.done):
            self._drawn = now
            self._bar.update(self._task, completed=loop.step, epoch=_epoch(loop), state=self._state_line())

    def finish(self, loop: Loop) -> None:
        self.close()

    def close(self) -> None:
        """Remove the bar and restore the terminal."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _state_line(self) -> str:
        latest, record = self.reporter.latest, self.record
        parts = []
        if latest:
            parts = [
                f"loss {latest['train/loss']:.4f}",
                f"lr {latest['train/lr']:.2g}",
                f"{latest['train/examples_per_second']:.0f} examples/s",
            ]
        if record.history and record.monitor:
            last = record.history[-1][record.monitor]
            parts.append(f"{record.monitor} {last:.4f} (best {record.best:.4f})")
        return " | ".join(parts)

    def _validation_line(self, loop: Loop) -> str:
        row, record = self.record.history[-1], self.record
        metrics = ", ".join(
            f"{name} {value:.4f}" for name, value in row.items() if name not in ("step", "epoch")
        )
        train = self.reporter.latest.get("train/loss", float("nan"))
        best = (
            "best so far"
            if record.best_step == row["step"]
            else f"best {record.best:.4f} at {record.best_step}"
        )
        return f"step {loop.step}/{loop.total_steps}: train loss {train:.4f}; {metrics} ({best})"


def _epoch(loop: Loop) -> str:
    per_epoch = loop.plan.steps_per_epoch
    return f"{-(-loop.step // per_epoch)}/{-(-loop.total_steps // per_epoch)}"
