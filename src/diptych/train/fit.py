"""One training run, from a model and data to its best weights."""

import logging
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import lightning.pytorch as lightning
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import nn

from diptych.data.module import DataModule
from diptych.errors import ConfigError, nearest
from diptych.files import require_new
from diptych.tasks.base import Task
from diptych.train import checkpoint
from diptych.train.averaging import Averaging
from diptych.train.callbacks import Keeper, Reporter, Stopper, Validator
from diptych.train.checkpoint import Record
from diptych.train.learner import Companion, Learner
from diptych.train.loggers import MetricLogger, open_loggers
from diptych.train.optim import OptimizerFactory
from diptych.train.progress import ProgressBar
from diptych.train.schedules import Schedule, constant

Weights = Literal["best", "last", "average"]
COUNTS = (
    "max_epochs",
    "max_steps",
    "accumulate_grad_batches",
    "checkpoint_every",
    "patience",
    "overfit_batches",
    "log_every_n_steps",
)
NOISE = (
    r"The '\w+' does not have many workers",
    r".*find_unused_parameters=True was specified in DDP constructor",
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",
    r"Found \d+ module\(s\) in eval mode",  # a model may freeze parts on purpose
)
PRECISIONS = ("32-true", "bf16-mixed", "16-mixed", "bf16-true", "64-true")


@dataclass(frozen=True, kw_only=True)
class Trainer:
    """How a run goes; names and meanings are Lightning's wherever it has one.

    Args:
        max_epochs: passes over the training data; None means 1 unless `max_steps` is given.
        max_steps: optimizer steps; with both, what comes first ends the run.
        gradient_clip_val: largest L2 norm of all gradients together; None does not clip.
        reduction: `mean` weighs every example of a step alike; `sum` multiplies a batch's mean loss by its
            rows, as Vilio trains.
        val_check_interval: optimizer steps (int) or a part of an epoch (float) between validations.
        checkpoint_every: optimizer steps between checkpoints; None is after every validation.
        limit_train_batches: batches per epoch (int) or a part of them (float).
        overfit_batches: batches to learn by heart: every epoch consists of these alone.
        monitor: the metric that decides what is best; None is the task's first, `loss` is minimized.
        patience: validations without improvement before a run stops.
        min_delta: an improvement smaller than this does not count.
        keep: weights that a run hands back; None is `average` with SWA, `best` where there is a validation
            set, else `last`.
    """

    max_epochs: int | None = None
    max_steps: int | None = None
    precision: str = "32-true"
    accelerator: str = "auto"
    devices: int | str | list[int] = 1
    strategy: str = "auto"
    accumulate_grad_batches: int = 1
    gradient_clip_val: int | float | None = 1.0
    reduction: Literal["mean", "sum"] = "mean"
    val_check_interval: int | float = 1.0
    checkpoint_every: int | None = None
    limit_train_batches: int | float | None = None
    overfit_batches: int | None = None
    log_every_n_steps: int = 10
    monitor: str | None = None
    patience: int | None = None
    min_delta: float = 0.0
    keep: Weights | None = None

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise ConfigError(
                f"trainer.precision is {self.precision!r}; expected one of {', '.join(PRECISIONS)}."
                f"{nearest(self.precision, PRECISIONS)}"
            )
        for name in COUNTS:
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"trainer.{name} is {value}; expected at least 1.")
        for name in ("val_check_interval", "gradient_clip_val", "limit_train_batches"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ConfigError(f"trainer.{name} is {value}; expected more than 0.")

    def engine(self) -> lightning.Trainer:
        """Lightning's trainer for one long epoch; what it would do beside the steps is done by companions."""
        several = self.devices not in (1, "1") and self.strategy in ("auto", "ddp")
        return lightning.Trainer(
            accelerator=self.accelerator,
            devices=self.devices,
            strategy="ddp_find_unused_parameters_true" if several else self.strategy,
            precision=self.precision,  # type: ignore[arg-type]
            accumulate_grad_batches=self.accumulate_grad_batches,
            gradient_clip_val=self.gradient_clip_val,
            max_epochs=1,
            min_epochs=0,
            limit_val_batches=0,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
        )

    def total_steps(self, steps_per_epoch: int) -> int:
        """Optimizer steps of the whole run."""
        epochs = self.max_epochs or (1 if self.max_steps is None else None)
        limits = [self.max_steps, None if epochs is None else epochs * steps_per_epoch]
        return min(limit for limit in limits if limit is not None)

    def validate_every(self, steps_per_epoch: int) -> int:
        """Optimizer steps between validations."""
        if isinstance(self.val_check_interval, int):
            return self.val_check_interval
        return max(1, int(self.val_check_interval * steps_per_epoch))


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
    history: tuple[dict[str, float], ...]
    steps: int
    total_steps: int
    interrupted: bool
    stopped_early: bool
    seconds: float
    folder: Path
    main: bool


def fit(
    model: nn.Module,
    task: Task,
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
    called again ends in the same weights as one that was not (bit for bit on a CPU).

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
    if not (run.learner.done or run.record.stopped):
        run.train(loggers, progress=progress)
    return run.result(seconds=time.perf_counter() - began)


class _Run:
    """The parts of one run, put together."""

    def __init__(
        self,
        model: nn.Module,
        task: Task,
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
        with _quiet():
            self.engine = _possible(trainer)
        self.plan = data.plan(
            seed=seed,
            ranks=self.engine.world_size,
            accumulate=trainer.accumulate_grad_batches,
            limit=trainer.overfit_batches or trainer.limit_train_batches,
            repeat=trainer.overfit_batches is not None,
        )
        self.record, self.stopper = Record(), Stopper()

    def prepare(self, optim: OptimizerFactory, schedule: Schedule, *, restart: bool) -> None:
        """Make the learner, and bring it to where the folder stands."""
        self.learner = Learner(
            self.model,
            self.task,
            data=self.data,
            plan=self.plan,
            optim=optim,
            schedule=schedule,
            averaging=self.averaging,
            total_steps=self.trainer.total_steps(self.plan.steps_per_epoch),
            reduction=self.trainer.reduction,
        )
        self.settings = self._settings(optim, schedule)
        if restart:
            state = checkpoint.load(self.last)
            checkpoint.require_same(state["settings"], self.settings, self.last)
            checkpoint.fill(self.learner, state, self.last)
            self.record = Record(**state["record"])
            self.learner.resume(state)

    def train(self, loggers: Sequence[str] | None, *, progress: bool) -> None:
        """Run to the end, to the last validation that patience allows, or until someone asks to stop."""
        learner, main = self.learner, self.engine.is_global_zero
        with _quiet():
            sinks = open_loggers(loggers, self.folder, step=learner.step) if main else []
            bar = self._companions(sinks, bar=progress and main)
            learner.train()
            try:
                with self.stopper.listening():
                    self.engine.fit(learner)
            except SystemExit as error:
                raise KeyboardInterrupt from error  # a second Ctrl-C, which Lightning turned into an exit
            finally:
                learner.close()
                if bar is not None:
                    bar.close()

    def result(self, *, seconds: float) -> FitResult:
        """Load the weights to keep, and say how it went."""
        learner, record = self.learner, self.record
        self.engine.strategy.barrier()  # the first rank may still be writing
        kept, metrics = self._keep()
        learner.eval()
        return FitResult(
            kept=kept,
            metrics={name: value for name, value in metrics.items() if name not in ("step", "epoch")},
            monitor=record.monitor,
            best=record.best,
            best_step=record.best_step,
            history=tuple(record.history),
            steps=learner.step,
            total_steps=learner.total_steps,
            interrupted=self.stopper.asked and not learner.done,
            stopped_early=record.stopped,
            seconds=seconds,
            folder=self.folder,
            main=self.engine.is_global_zero,
        )

    def _keep(self) -> tuple[Weights, dict[str, float]]:
        learner, record = self.learner, self.record
        wanted = self.trainer.keep or self._usual()
        if wanted == "best" and self.best.exists():
            state = checkpoint.load(self.best)
            checkpoint.fill(learner, state, self.best)
            return "best", state["metrics"]
        if wanted == "average" and learner.average.count:
            learner.average.write(learner)
            return "average", record.final
        return "last", record.row(learner.step)

    def _usual(self) -> Weights:
        measured = self.data.validate is not None
        if self.averaging is not None and not (self.averaging.validate and measured):
            return "average"
        return "best" if measured else "last"

    def _companions(self, sinks: list[MetricLogger], *, bar: bool) -> ProgressBar | None:
        """Give the learner its companions, in the order in which they look at a step."""
        trainer, record, main = self.trainer, self.record, self.engine.is_global_zero
        reporter = Reporter(trainer.log_every_n_steps, sinks)
        companions: list[Companion] = [reporter]
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
            companions.append(validator)
        keeper = Keeper(
            record,
            reporter,
            every=trainer.checkpoint_every or interval,
            settings=self.settings,
            path=self.last if main else None,
        )
        shown = ProgressBar(record, reporter) if bar else None
        companions += [self.stopper, keeper, *([shown] if shown else [])]
        self.learner.companions = companions
        return shown

    def _settings(self, optim: OptimizerFactory, schedule: Schedule) -> dict[str, Any]:
        """What must not change when a run goes on."""
        chosen = asdict(self.trainer)
        names = ("accumulate_grad_batches", "gradient_clip_val", "precision", "reduction")
        return {
            **{f"trainer.{name}": chosen[name] for name in names},
            "seed": self.plan.seed,
            "devices": self.plan.ranks,
            "training examples": self.plan.examples,
            "examples per step": self.plan.step_size,
            "total steps": self.learner.total_steps,
            "optim": repr(optim),
            "schedule": _text(schedule),
            "averaging": repr(self.averaging),
        }


def _possible(trainer: Trainer) -> lightning.Trainer:
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message=".*AMP with fp16 is not supported on CPU")
            return trainer.engine()
    except (MisconfigurationException, ValueError, UserWarning) as error:
        raise ConfigError(f"the trainer's settings cannot work on this machine: {error}") from error


def _text(schedule: Schedule) -> str:
    inner = getattr(schedule, "func", schedule)
    return f"{getattr(inner, '__name__', inner)} {getattr(schedule, 'keywords', '')}"


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Lightning's advice: its info lines, and the warnings that do not apply here."""
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            for message in NOISE:
                warnings.filterwarnings("ignore", message=message)
            yield
    finally:
        logger.setLevel(level)
