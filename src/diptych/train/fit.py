"""One training run, from a model and data to its best weights."""

import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from diptych.data.module import DataModule
from diptych.files import require_new
from diptych.nn import checkpointed
from diptych.tasks.base import Trainable
from diptych.train import checkpoint
from diptych.train.averaging import Averaging
from diptych.train.callbacks import Keeper, Reporter, Stopper, Validator
from diptych.train.checkpoint import Row, ValidationRecord
from diptych.train.loggers import MetricLogger, open_loggers
from diptych.train.loop import Loop, Observer
from diptych.train.optim import OptimizerFactory
from diptych.train.progress import ProgressBar
from diptych.train.schedules import Schedule, constant
from diptych.train.trainer import Trainer, Weights


@dataclass(frozen=True, kw_only=True)
class FitResult:
    """How a run ended. The model and the task hold the weights that `kept` names.

    Args:
        metrics: validation metrics of those weights; empty if they were never validated.
        monitor: metric that decided; `best` its best value, reached after `best_step` steps.
        history: one row per validation.
        steps: optimizer steps done, of `total_steps`.
        interrupted: stopped by Ctrl-C or SIGTERM; the same call resumes.
        stopped_early: patience ran out.
        seconds: of this call.
        main: False on all but the first process of a distributed run; only the first should write files.
    """

    kept: Weights
    metrics: dict[str, float]
    monitor: str | None
    best: float | None
    best_step: int | None
    history: tuple[Row, ...]
    steps: int
    total_steps: int
    interrupted: bool
    stopped_early: bool
    seconds: float
    folder: Path
    main: bool


def fit(
    model: nn.Module,
    task: Trainable,
    data: DataModule,
    *,
    folder: Path | str,
    optim: OptimizerFactory,
    schedule: Schedule | None = None,
    averaging: Averaging | None = None,
    trainer: Trainer | None = None,
    seed: int = 0,
    resume: bool = True,
    loggers: Sequence[str] | None = None,
    progress: bool = True,
) -> FitResult:
    """Train, and leave the kept weights in `model` and `task` (on the CPU, in evaluation mode).

    Everything random depends on `seed` and the step alone: two runs are equal, and one that was killed and
    called again ends in the same weights as one that was not: bit for bit on the same CPU and with as many
    threads.

    Args:
        folder: gets `checkpoints/last.ckpt`, `checkpoints/best.ckpt` and `metrics.csv`.
        schedule: None is a constant rate.
        resume: go on where `folder` stands; off, a folder with checkpoints is refused.
        loggers: None is TensorBoard if installed; `metrics.csv` is always written.

    Raises:
        ConfigError: settings that cannot work, a run with other settings in `folder`, or a loss that is not
            finite.
    """
    began, folder, trainer = time.perf_counter(), Path(folder), trainer or Trainer()
    run = _Run(model, task, data, folder=folder, trainer=trainer, seed=seed, averaging=averaging)
    if not resume:
        require_new(folder / "checkpoints")
    run.prepare(optim, schedule or constant(), restart=run.last.exists())
    if not (run.loop.done or run.record.stopped):
        run.train(loggers, progress=progress)
    return run.result(seconds=time.perf_counter() - began)


class _Run:
    """The parts of one run, put together."""

    def __init__(
        self,
        model: nn.Module,
        task: Trainable,
        data: DataModule,
        *,
        folder: Path,
        trainer: Trainer,
        seed: int,
        averaging: Averaging | None,
    ) -> None:
        self.model, self.task, self.data = model, task, data
        self.folder, self.trainer, self.averaging = folder, trainer, averaging
        self.last, self.best = (folder / "checkpoints" / name for name in ("last.ckpt", "best.ckpt"))
        self.fabric = trainer.launch()
        self.plan = data.plan(
            seed=seed,
            ranks=self.fabric.world_size,
            accumulate=trainer.accumulate_grad_batches,
            limit=trainer.overfit_batches or trainer.limit_train_batches,
            repeat=trainer.overfit_batches is not None,
        )
        self.record, self.stopper = ValidationRecord(), Stopper()

    def prepare(self, optim: OptimizerFactory, schedule: Schedule, *, restart: bool) -> None:
        """Make the loop, and bring it to where the folder stands."""
        trainer = self.trainer
        self.loop = Loop(
            self.model,
            self.task,
            fabric=self.fabric,
            data=self.data,
            plan=self.plan,
            optim=optim,
            schedule=schedule,
            averaging=self.averaging,
            total_steps=trainer.total_steps(self.plan.steps_per_epoch),
            reduction=trainer.reduction,
            clip=trainer.gradient_clip_val,
        )
        self.settings = self._settings(optim, schedule)
        if restart:
            state = checkpoint.load(self.last)
            checkpoint.require_same(state["settings"], self.settings, self.last)
            if self.fabric.device.type == "cpu":
                checkpoint.warn_of_threads(state.get("threads"), torch.get_num_threads(), self.last)
            checkpoint.load_weights(self.loop.learner, state, self.last)
            self.record = ValidationRecord(**state["record"])
            self.loop.load_state_dict(state)

    def train(self, loggers: Sequence[str] | None, *, progress: bool) -> None:
        """Run to the end, to the last validation that patience allows, or until someone asks to stop."""
        main, status = self.fabric.is_global_zero, "failed"
        sinks = open_loggers(loggers, self.folder, step=self.loop.step) if main else []
        bar = self._observe(sinks, bar=progress and main)
        try:
            layers = checkpointed(self.model) if self.trainer.activation_checkpointing else nullcontext()
            with self.stopper.listening(), layers:
                self.loop.run()
            status = "success"
        finally:
            if bar is not None:
                bar.close()
            for sink in sinks:
                sink.finalize(status)

    def result(self, *, seconds: float) -> FitResult:
        """Load the weights to keep, and say how it went."""
        loop, record = self.loop, self.record
        self.fabric.barrier()  # the first rank may still be writing
        kept, metrics = self._keep()
        self.loop.learner.eval().cpu()
        return FitResult(
            kept=kept,
            metrics={name: value for name, value in metrics.items() if name not in ("step", "epoch")},
            monitor=record.monitor,
            best=record.best,
            best_step=record.best_step,
            history=tuple(record.history),
            steps=loop.step,
            total_steps=loop.total_steps,
            interrupted=self.stopper.asked and not loop.done,
            stopped_early=record.stopped,
            seconds=seconds,
            folder=self.folder,
            main=self.fabric.is_global_zero,
        )

    def _keep(self) -> tuple[Weights, Mapping[str, int | float]]:
        loop, record = self.loop, self.record
        wanted = self.trainer.keep or self._usual()
        if wanted == "best" and self.best.exists():
            state = checkpoint.load(self.best)
            checkpoint.load_weights(loop.learner, state, self.best)
            return "best", state["metrics"]
        if wanted == "average" and loop.average.count:
            loop.average.write(loop.learner)
            return "average", record.final
        return "last", record.row(loop.step)

    def _usual(self) -> Weights:
        measured = self.data.validate is not None
        if self.averaging is not None and not (self.averaging.validate and measured):
            return "average"
        return "best" if measured else "last"

    def _observe(self, sinks: list[MetricLogger], *, bar: bool) -> ProgressBar | None:
        """Give the loop its observers, in the order in which they look at a step."""
        trainer, record, main = self.trainer, self.record, self.fabric.is_global_zero
        reporter = Reporter(trainer.log_every_n_steps, sinks)
        observers: list[Observer] = [reporter]
        per_epoch = self.plan.steps_per_epoch
        interval = trainer.validate_every(per_epoch)
        if self.data.validate is not None:
            validator = Validator(
                record,
                reporter,
                every=interval,
                monitor=trainer.monitor,
                patience=trainer.patience,
                min_delta=trainer.min_delta,
                best=self.best if main else None,
            )
            observers.append(validator)
        keeper = Keeper(
            record,
            reporter,
            every=trainer.checkpoint_every or interval,
            settings=self.settings,
            path=self.last if main else None,
        )
        shown = ProgressBar(record, reporter) if bar else None
        observers += [self.stopper, keeper, *([shown] if shown else [])]
        self.loop.observers = observers
        return shown

    def _settings(self, optim: OptimizerFactory, schedule: Schedule) -> dict[str, Any]:
        """What must not change when a run goes on."""
        chosen = asdict(self.trainer)
        names = ("accumulate_grad_batches", "gradient_clip_val", "precision", "reduction", "monitor")
        return {
            **{f"trainer.{name}": chosen[name] for name in names},
            "seed": self.plan.seed,
            "devices": self.plan.ranks,
            "training examples": self.plan.examples,
            "examples per step": self.plan.step_size,
            "steps per epoch": self.plan.steps_per_epoch,
            "total steps": self.loop.total_steps,
            "optim": repr(optim),
            "schedule": _text(schedule),
            "averaging": repr(self.averaging),
        }


def _text(schedule: Schedule) -> str:
    inner = getattr(schedule, "func", schedule)
    return f"{getattr(inner, '__name__', inner)} {getattr(schedule, 'keywords', '')}"
