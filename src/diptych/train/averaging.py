"""Averages of the weights during training: two variants of SWA, and EMA.

A variant is a frozen setting. It decides when weights join the average and how the learning rate changes;
`Average` holds the mean. Only parameters are averaged. Buffers (batch-norm statistics) stay those of the
model in training.
"""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from diptych.errors import ConfigError
from diptych.train.schedules import Schedule


@runtime_checkable
class Averaging(Protocol):
    """Decides when weights join the mean, and which learning rate a step has."""

    @property
    def validate(self) -> bool:
        """Whether validation during training uses the mean instead of the current weights."""
        ...

    def rate(self, schedule: Schedule, step: int, total: int, base: float) -> float:
        """Return the learning rate at `step` (from 0) of a parameter group whose peak rate is `base`."""
        ...

    def share(self, done: int, total: int, count: int) -> float | None:
        """Return the share of the current weights in the new mean, or None if they do not join.

        Args:
            done: optimizer steps done so far.
            total: optimizer steps of the run.
            count: how many times weights have joined the mean so far.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class JumpSWA:
    """SWA as in torchcontrib: the learning rate jumps back up, and weights join the mean every few steps.

    From step `int(start * total)`, the learning rate is `lr` instead of the schedule's. The weights join
    after each later step whose number is a multiple of `every`. All joined weights count alike.

    Args:
        start: fraction of the run before averaging begins, in [0, 1).
        every: optimizer steps between joins.
        lr: learning rate while averaging. None is the peak rate of each parameter group.
        validate: validate the mean instead of the current weights.
    """

    start: float = 0.75
    every: int = 5
    lr: float | None = None
    validate: bool = False

    def __post_init__(self) -> None:
        _check_start(self.start)

    def rate(self, schedule: Schedule, step: int, total: int, base: float) -> float:
        if step < int(self.start * total):
            return base * schedule(step, total)
        return base if self.lr is None else self.lr

    def share(self, done: int, total: int, count: int) -> float | None:
        # Example of 40 steps, start 0.75, every 5: weights join after the steps 35 and 40. Step 30 is the
        # start itself and does not count, as in torchcontrib.
        joins = done > int(self.start * total) and done % self.every == 0
        return 1 / (count + 1) if joins else None  # a running mean in which all joined weights count alike


@dataclass(frozen=True, kw_only=True)
class AnnealSWA:
    """SWA as in torch: a short cosine from the scheduled rate to `lr`, and weights join after every step.

    Args:
        start: fraction of the run before averaging begins, in [0, 1).
        lr: learning rate after annealing. None is the peak rate of each parameter group.
        anneal: optimizer steps from the scheduled rate to `lr`.
        validate: validate the mean instead of the current weights.
    """

    start: float = 0.75
    lr: float | None = None
    anneal: int = 10
    validate: bool = False

    def __post_init__(self) -> None:
        _check_start(self.start)

    def rate(self, schedule: Schedule, step: int, total: int, base: float) -> float:
        # The first averaged step still has the scheduled rate, as in the original.
        first = self._first(total)
        if step <= first:
            return base * schedule(step, total)
        part = min(1.0, (step - first) / max(1, self.anneal))  # `anneal` may be 0: jump to `lr`
        goal, origin = base if self.lr is None else self.lr, base * schedule(first, total)
        return origin + (goal - origin) * 0.5 * (1 - math.cos(math.pi * part))

    def share(self, done: int, total: int, count: int) -> float | None:
        return 1 / (count + 1) if done - 1 >= self._first(total) else None

    def _first(self, total: int) -> int:
        """The first step that is averaged."""
        # Strictly more than `start * total`, which is `index > 0.75 * T` in Vilio.
        return math.floor(self.start * total) + 1


@dataclass(frozen=True, kw_only=True)
class EMA:
    """Exponential moving average over all steps: `mean = decay * mean + (1 - decay) * weights`.

    At join n the decay is at most `(1 + n) / (10 + n)`. The small decay at the start keeps the first weights
    from dominating the mean.

    Args:
        decay: weight of the old mean, in [0, 1).
        validate: validate the mean instead of the current weights.
    """

    decay: float = 0.999
    validate: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.decay < 1:
            raise ConfigError(f"averaging.decay is {self.decay}; expected at least 0 and below 1.")

    def rate(self, schedule: Schedule, step: int, total: int, base: float) -> float:
        return base * schedule(step, total)

    def share(self, done: int, total: int, count: int) -> float | None:
        # The ramp (1 + n) / (10 + n) is that of TensorFlow's ExponentialMovingAverage.
        return 1.0 if count == 0 else 1 - min(self.decay, (1 + count) / (10 + count))


def _check_start(start: float) -> None:
    if not 0 <= start < 1:
        raise ConfigError(
            f"averaging.start is {start}; expected a fraction of the run, at least 0 and below 1."
        )


class Average:
    """The running mean of the trainable parameters of a module, in float32."""

    def __init__(self) -> None:
        self.count = 0
        self.mean: dict[str, Tensor] = {}

    @torch.no_grad()
    def join(self, module: nn.Module, share: float) -> None:
        """Add the weights of `module` to the mean: `mean += share * (weights - mean)`."""
        live = _trainable(module)
        if self.count == 0:
            # `float()` copies nothing of float32, so `clone` is needed to keep the mean apart from the model.
            self.mean = {name: parameter.detach().float().clone() for name, parameter in live.items()}
        else:
            # In float32 also for half-precision weights, in which small shares would be lost by rounding.
            weights = [parameter.float() for parameter in live.values()]
            torch._foreach_lerp_([self.mean[name] for name in live], weights, share)
        self.count += 1

    @contextmanager
    def inside(self, module: nn.Module) -> Iterator[None]:
        """Put the mean into `module` inside the block, and the current weights back after it.

        While nothing has joined the mean, the weights stay.
        """
        if self.count == 0:
            yield
            return
        # A copy, because `write` overwrites the parameters in place, which the optimizer refers to.
        live = {name: parameter.detach().clone() for name, parameter in _trainable(module).items()}
        self.write(module)
        try:
            yield
        finally:  # also after an error, so that a checkpoint never holds the mean as current weights
            _copy(live, module)

    def write(self, module: nn.Module) -> None:
        """Replace the weights of `module` by the mean."""
        _copy(self.mean, module)

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` needs to resume."""
        return {"count": self.count, "mean": dict(self.mean)}

    def load_state_dict(self, state: Mapping[str, Any], device: torch.device) -> None:
        """Restore the mean of a checkpoint, on `device`."""
        self.count = state["count"]
        self.mean = {name: tensor.to(device) for name, tensor in state["mean"].items()}


def _trainable(module: nn.Module) -> dict[str, nn.Parameter]:
    return {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}


@torch.no_grad()
def _copy(source: Mapping[str, Tensor], module: nn.Module) -> None:
    for name, parameter in module.named_parameters():
        if name in source:
            parameter.copy_(source[name])
