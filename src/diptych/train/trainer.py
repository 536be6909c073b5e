"""Settings of a training run, and the devices that they select."""

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
# Warnings of Fabric and torch that users can do nothing about.
NOISE = (r"GPU available but not used", r"`isinstance\(treespec, LeafSpec\)` is deprecated")
PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")


@dataclass(frozen=True, kw_only=True)
class Trainer:
    """Settings of a run. Names and meanings follow Lightning's Trainer where it has the same setting.

    Args:
        max_epochs: passes over the training data. None means 1 unless `max_steps` is given.
        max_steps: optimizer steps. With both limits, the first one reached ends the run. 0 trains nothing:
            the run measures and saves the weights that it starts with.
        precision: `32-true`, `bf16-mixed` or `16-mixed`.
        accelerator: kind of device, such as `cpu`, `cuda` or `auto`.
        devices: number of devices, or a list of their numbers.
        strategy: how several devices work together, as in Lightning. `auto` uses DDP.
        accumulate_grad_batches: batches whose gradients make one optimizer step.
        gradient_clip_val: largest L2 norm of all gradients together. None does not clip.
        reduction: `mean` weighs all examples of a step alike. `sum` multiplies the mean loss of a batch by
            its number of rows, as Vilio does.
        rate_per_example: compat: the optimizer's rate is for one example, and the run uses it times the
            examples of a step: devices x batch x accumulated batches. VL-BERT and MM-BERT state their rates
            so.
        val_check_interval: optimizer steps (int) or fraction of an epoch (float) between validations.
        checkpoint_every: optimizer steps between checkpoints. None is `val_check_interval`.
        limit_train_batches: batches per epoch (int) or fraction of them (float).
        overfit_batches: train on this number of batches only, again and again.
        log_every_n_steps: optimizer steps between reports to the loggers.
        monitor: metric that decides which weights are best. None is the task's first metric.
        patience: validations without improvement before the run stops. None never stops.
        min_delta: an improvement smaller than this does not count.
        activation_checkpointing: store only the input of each layer, and compute the layer again for the
            gradients. This saves memory, takes about a third more time and gives the same numbers.
        keep: weights that the run returns. None is `average` with SWA, else `best` with a validation set,
            else `last`.

    Raises:
        ConfigError: a setting is outside of its range.
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
    rate_per_example: bool = False
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
            # No steps: the weights are measured and saved as they are, as for zero-shot models.
            least = 0 if name == "max_steps" else 1
            if value is not None and value < least:
                raise ConfigError(f"trainer.{name} is {value}; expected at least {least}.")
        for name in ("val_check_interval", "gradient_clip_val", "limit_train_batches"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ConfigError(f"trainer.{name} is {value}; expected more than 0.")

    def launch(self) -> Fabric:
        """Set up devices, precision and communication; starts one more process for each further device.

        Under `torchrun`, which has started all processes already, its numbers of nodes and of processes
        replace `devices`.

        Raises:
            ConfigError: the settings are impossible on this machine.
        """
        cores = os.cpu_count() or 1
        nodes, devices = _torchrun() or (1, self.devices)
        on_cpu = self.accelerator == "cpu" or (self.accelerator == "auto" and not torch.cuda.is_available())
        # On its level INFO, Fabric prints the precision at every start.
        logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
        try:
            # Fabric itself would start any number of processes on a CPU.
            if on_cpu and isinstance(devices, int) and devices > cores:
                raise ValueError(f"devices is {devices}, but there are {cores} processor cores")
            # Tasks may leave parameters unused, such as a model's pooler; plain DDP would wait for them.
            several = (nodes > 1 or devices not in (1, "1")) and self.strategy in ("auto", "ddp")
            with warnings.catch_warnings():
                for message in NOISE:
                    warnings.filterwarnings("ignore", message=message)
                # Fabric only warns here, and then trains in another precision than the settings say.
                warnings.filterwarnings("error", message=".*AMP with fp16 is not supported on CPU")
                fabric = Fabric(
                    accelerator=self.accelerator,
                    devices=devices,
                    num_nodes=nodes,
                    strategy="ddp_find_unused_parameters_true" if several else self.strategy,
                    precision=self.precision,  # type: ignore[arg-type]
                )
        except (MisconfigurationException, ValueError, UserWarning) as error:
            raise ConfigError(
                f"trainer.accelerator={self.accelerator}, devices={self.devices}, strategy={self.strategy} "
                f"and precision={self.precision} do not work on this machine: {error}"
            ) from error
        # With DDP, the other processes start here and run the same script up to this line.
        fabric.launch()
        return fabric

    def total_steps(self, steps_per_epoch: int) -> int:
        """Return the number of optimizer steps of the whole run."""
        epochs = self.max_epochs or (1 if self.max_steps is None else None)
        # `max_steps` alone sets no limit of epochs.
        limits = [self.max_steps, None if epochs is None else epochs * steps_per_epoch]
        return min(limit for limit in limits if limit is not None)

    def validate_every(self, steps_per_epoch: int) -> int:
        """Return the number of optimizer steps between validations."""
        if isinstance(self.val_check_interval, int):
            return self.val_check_interval
        # A tiny fraction of a short epoch would round to validating never.
        return max(1, int(self.val_check_interval * steps_per_epoch))


def _torchrun() -> tuple[int, int] | None:
    """Numbers of nodes and of processes on this one, if `torchrun` has started this process."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return None
    here = int(os.environ["LOCAL_WORLD_SIZE"])
    return int(os.environ["WORLD_SIZE"]) // here, here
