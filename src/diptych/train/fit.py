"""A training run, from a model and data to the best weights."""

import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from diptych.data.module import DataModule
from diptych.errors import ConfigError
from diptych.files import require_new
from diptych.nn import checkpointed
from diptych.tasks.base import Trainable
from diptych.train import checkpoint
from diptych.train.averaging import Averaging
from diptych.train.callbacks import Keeper, Rememberer, Reporter, Stopper, Validator, dropped
from diptych.train.checkpoint import Row, ValidationRecord
from diptych.train.loggers import MetricLogger, open_loggers
from diptych.train.loop import Loop, Observer
from diptych.train.optim import OptimizerFactory
from diptych.train.progress import ProgressBar
from diptych.train.schedules import Plateau, Schedule, constant
from diptych.train.trainer import Trainer, Weights


@dataclass(frozen=True, kw_only=True)
class FitResult:
    """Result of a run. The model and the task hold the weights that `kept` names.

    Args:
        kept: which weights the model has: the best, the last or the averaged ones.
        metrics: validation metrics of these weights; empty if they were never validated.
        monitor: metric that decided which weights are best.
        best: best value of the metric, reached after `best_step` optimizer steps.
        history: one row per validation.
        steps: optimizer steps done, of `total_steps`.
        interrupted: the run was stopped by Ctrl-C or SIGTERM. The same call resumes it.
        stopped_early: the run stopped because it no longer improved.
        seconds: duration of this call.
        folder: the folder of the run.
        main: whether this is the first process of the run. Only this one should write files.
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

    All random numbers depend only on `seed` and the step. Two equal runs give equal weights, and so do a run
    that was killed and resumed and one that was not: bit for bit on the same CPU with the same number of
    threads.

    Args:
        folder: gets `checkpoints/last.ckpt`, `checkpoints/best.ckpt` and `metrics.csv`.
        optim: optimizer factory, such as `adamw(lr=1e-5)`.
        schedule: learning-rate schedule. None is a constant rate.
        averaging: average of the weights during training. None uses the weights themselves.
        trainer: further settings of the run. None uses the defaults.
        resume: continue from the last checkpoint in `folder`. If false, a folder with checkpoints is refused.
        loggers: names of places for the metrics. None is TensorBoard if it is installed. `metrics.csv` is
            always written.
        progress: show a progress bar.

    Raises:
        ConfigError: settings are invalid, `folder` has a run with other settings, or a loss is not finite.
        FormatError: a checkpoint in `folder` is damaged.
    """
    began, folder, trainer = time.perf_counter(), Path(folder), trainer or Trainer()
    run = _Run(model, task, data, folder=folder, trainer=trainer, seed=seed, averaging=averaging)
    # Never train over the checkpoints of another run.
    if not resume:
        require_new(folder / "checkpoints")
    run.prepare(optim, schedule or constant(), restart=run.last.exists())
    unmeasured = not run.loop.total_steps and not run.last.exists()  # a run without steps still validates
    if unmeasured or not (run.loop.done or run.record.stopped):  # a finished run only loads its weights again
        run.train(loggers, progress=progress)
    return run.result(seconds=time.perf_counter() - began)


class _Run:
    """Builds the parts of a run and connects them."""

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
            # `repeat` freezes the first epoch, so that the same batches come again and again.
            limit=trainer.overfit_batches or trainer.limit_train_batches,
            repeat=trainer.overfit_batches is not None,
        )
        self.record, self.stopper = ValidationRecord(), Stopper()

    def prepare(self, optim: OptimizerFactory, schedule: Schedule, *, restart: bool) -> None:
        """Build the loop, and restore the last checkpoint if `restart` says that there is one."""
        trainer = self.trainer
        if isinstance(schedule, Plateau) and self.data.validate is None:
            raise ConfigError("schedule=plateau follows the validations, but the run has no validation set.")
        if trainer.rate_per_example:
            optim = replace(optim, lr=optim.lr * self.plan.step_size)
        self.optim = optim
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
            if self.fabric.device.type == "cpu":  # GPUs do the sums themselves
                checkpoint.warn_of_threads(state.get("threads"), torch.get_num_threads(), self.last)
            # The order matters: settings are compared first, so that an error explains a wrong shape.
            checkpoint.load_weights(self.loop.learner, state, self.last)
            self.record = ValidationRecord(**state["record"])
            self.loop.load_state_dict(state)
            self.loop.drop = dropped(schedule, self.record)

    def train(self, loggers: Sequence[str] | None, *, progress: bool) -> None:
        """Train to the end, or until the patience runs out or a signal asks to stop."""
        main, status = self.fabric.is_global_zero, "failed"
        if progress and main and self.loop.total_steps:
            sys.stderr.write(f"{self._summary()}\n")
        sinks = open_loggers(loggers, self.folder, step=self.loop.step) if main else []
        bar = self._observe(sinks, bar=progress and main)
        try:
            layers = checkpointed(self.model) if self.trainer.activation_checkpointing else nullcontext()
            with self.stopper.listening(), layers:
                self.loop.run()
            status = "success"
        finally:  # also after an error: loggers then mark the run as failed
            if bar is not None:
                bar.close()
            for sink in sinks:
                sink.finalize(status)

    def _summary(self) -> str:
        """What decides about a step, and is easily mistaken for something else: its examples and its rate."""
        plan, each = self.plan, self.data.batch_size
        sizes = self.data.each
        shown = f"{each}" if sizes is None else "+".join(str(size) for _, size in sizes)
        count = f"{plan.ranks} device(s) x {shown} x {plan.accumulate} batch(es)"
        rate = f"{self.optim.lr:.4g}"
        if self.trainer.rate_per_example:
            rate += f", {self.optim.lr / plan.step_size:.4g} per example"
        return f"a step: {plan.step_size} examples ({count}); learning rate up to {rate}"

    def result(self, *, seconds: float) -> FitResult:
        """Load the weights to keep, and return the result."""
        loop, record = self.loop, self.record
        self.fabric.barrier()  # the first rank may still be writing the checkpoint that all now read
        kept, metrics = self._keep()
        # On the CPU, where the caller writes the bundle, whatever the device was.
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
        wanted = self.trainer.keep or self._default()
        # It does not exist if the run was stopped before the first validation.
        if wanted == "best" and self.best.exists():
            state = checkpoint.load(self.best)
            checkpoint.load_weights(loop.learner, state, self.best)
            return "best", state["metrics"]
        if wanted == "average" and loop.average.count:
            loop.average.write(loop.learner)
            return "average", record.final
        return "last", record.row(
            loop.step
        )  # also if the run ended before anything was validated or averaged

    def _default(self) -> Weights:
        validated = self.data.validate is not None
        # If validation used the mean, `best.ckpt` holds the best state of the mean.
        if self.averaging is not None and not (self.averaging.validate and validated):
            return "average"
        return "best" if validated else "last"

    def _observe(self, sinks: list[MetricLogger], *, bar: bool) -> ProgressBar | None:
        """Give the loop its observers; returns the progress bar, which must be closed.

        They are called in this order. The reporter finds losses that are not finite before the others store
        weights; the validator runs before the keeper, so that a checkpoint holds its results.
        """
        trainer, record, main = self.trainer, self.record, self.fabric.is_global_zero
        reporter = Reporter(trainer.log_every_n_steps, sinks)
        observers: list[Observer] = [reporter]
        per_epoch = self.plan.steps_per_epoch
        interval = trainer.validate_every(per_epoch)
        if self.task.cases:  # before the validator, which may decide by them
            observers.append(Rememberer(interval))
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
        progress_bar = ProgressBar(record, reporter) if bar else None
        # The stopper before the keeper, so that a run that is asked to stop is saved at this very step.
        observers += [self.stopper, keeper, *([progress_bar] if progress_bar else [])]
        self.loop.observers = observers
        return progress_bar

    def _settings(self, optim: OptimizerFactory, schedule: Schedule) -> dict[str, Any]:
        """Settings that must be equal to resume the run. The keys are part of the checkpoint."""
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
            # Texts, because a checkpoint holds plain values only;
            # the repr of a frozen dataclass names all settings.
            "optim": repr(optim),
            "schedule": _text(schedule),
            "averaging": repr(self.averaging),
        }


def _text(schedule: Schedule) -> str:
    # The repr of a `partial` contains the address of its function, which differs in every process.
    inner = getattr(schedule, "func", schedule)
    return f"{getattr(inner, '__name__', inner)} {getattr(schedule, 'keywords', '')}"
