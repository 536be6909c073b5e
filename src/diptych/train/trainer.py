"""How a run goes: its settings, and the devices that they ask for."""

import logging
import os
import warnings
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from lightning_fabric import Fabric
from lightning_fabric.utilities.exceptions import MisconfigurationException

from diptych.errors import ConfigError, nearest

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
NOISE = (r"GPU available but not used", r"`isinstance\(treespec, LeafSpec\)` is deprecated")
PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")


@dataclass(frozen=True, kw_only=True)
class Trainer:
    """How a run goes; names and meanings are those of Lightning's Trainer wherever it has one.

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
        monitor: the metric that decides what is best; None is the task's first; losses are minimized.
        patience: validations without improvement before a run stops.
        min_delta: an improvement smaller than this does not count.
        activation_checkpointing: keep only what enters each layer, and compute the rest again for the
            gradients: less memory, about a third more time, the same numbers.
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
    activation_checkpointing: bool = False
    keep: Weights | None = None

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise ConfigError(
                f"trainer.precision is {self.precision!r}; expected one of {', '.join(PRECISIONS)}."
                f"{nearest(self.precision, PRECISIONS)}"
            )
        if self.keep is not None and self.keep not in get_args(Weights):
            raise ConfigError(
                f"trainer.keep is {self.keep!r}; expected one of {', '.join(get_args(Weights))}."
            )
        for name in COUNTS:
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"trainer.{name} is {value}; expected at least 1.")
        for name in ("val_check_interval", "gradient_clip_val", "limit_train_batches"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ConfigError(f"trainer.{name} is {value}; expected more than 0.")

    def launch(self) -> Fabric:
        """Devices, precision and communication of a run; starts the processes of further devices.

        Raises:
            ConfigError: this machine cannot do what is asked for.
        """
        cores = os.cpu_count() or 1
        on_cpu = self.accelerator == "cpu" or (self.accelerator == "auto" and not torch.cuda.is_available())
        logging.getLogger("lightning_fabric").setLevel(
            logging.WARNING
        )  # else it says which precision it uses
        try:
            if on_cpu and isinstance(self.devices, int) and self.devices > cores:
                raise ValueError(f"devices is {self.devices}, and there are {cores} processor cores")
            several = self.devices not in (1, "1") and self.strategy in ("auto", "ddp")
            with warnings.catch_warnings():
                for message in NOISE:
                    warnings.filterwarnings("ignore", message=message)
                warnings.filterwarnings("error", message=".*AMP with fp16 is not supported on CPU")
                fabric = Fabric(
                    accelerator=self.accelerator,
                    devices=self.devices,
                    strategy="ddp_find_unused_parameters_true" if several else self.strategy,
                    precision=self.precision,  # type: ignore[arg-type]
                )
        except (MisconfigurationException, ValueError, UserWarning) as error:
            raise ConfigError(f"the trainer's settings cannot work on this machine: {error}") from error
        fabric.launch()
        return fabric

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
