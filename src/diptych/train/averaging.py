"""Averages of the weights along the way: two flavors of SWA, and EMA.

A flavor is a frozen setting that says when weights join and what the learning rate does; `Average` holds the
mean. Only parameters are averaged; buffers (batch-norm statistics) stay those of the live model.
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
    """When weights join the mean, and how the learning rate follows."""

    @property
    def validate(self) -> bool:
        """Whether validation during training looks at the mean instead of the live weights."""
        ...

    def rate(self, schedule: Schedule, step: int, total: int, base: float) -> float:
        """Learning rate at `step` (from 0) of a group whose peak is `base`."""
        ...

    def share(self, done: int, total: int, count: int) -> float | None:
        """Share of the live weights in the mean after `done` steps, None when they do not join.

        Args:
            count: how often weights have joined so far.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class JumpSWA:
    """SWA of torchcontrib: the rate jumps back up, and every few steps the weights join an equal mean.

    From step `int(start * total)` on the schedule is overruled by `lr`. After each later step whose number is
    a multiple of `every` the weights join.

    Args:
        start: part of the run that is not averaged.
        lr: None is each group's own peak.
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
        joins = done > int(self.start * total) and done % self.every == 0
        return 1 / (count + 1) if joins else None


@dataclass(frozen=True, kw_only=True)
class AnnealSWA:
    """SWA of torch: a short cosine from the scheduled rate to `lr`, and every step's weights join.

    Args:
        start: part of the run that is not averaged.
        lr: None is each group's own peak.
        anneal: steps from the scheduled rate to `lr`.
    """

    start: float = 0.75
    lr: float | None = None
    anneal: int = 10
    validate: bool = False

    def __post_init__(self) -> None:
        _check_start(self.start)

    def rate(self, schedule: Schedule, step: int, total: int, base: float) -> float:
        first = self._first(total)
        if step <= first:
            return base * schedule(step, total)
        part = min(1.0, (step - first) / max(1, self.anneal))
        goal, origin = base if self.lr is None else self.lr, base * schedule(first, total)
        return origin + (goal - origin) * 0.5 * (1 - math.cos(math.pi * part))

    def share(self, done: int, total: int, count: int) -> float | None:
        return 1 / (count + 1) if done - 1 >= self._first(total) else None

    def _first(self, total: int) -> int:
        return math.floor(self.start * total) + 1


@dataclass(frozen=True, kw_only=True)
class EMA:
    """Exponential moving average of every step: `mean = decay * mean + (1 - decay) * weights`.

    The decay grows from 0.1 to `decay` as `(1 + n) / (10 + n)`, so that the start is forgotten.
    """

    decay: float = 0.999
    validate: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.decay < 1:
            raise ConfigError(f"averaging.decay is {self.decay}; expected at least 0 and below 1.")

    def rate(self, schedule: Schedule, step: int, total: int, base: float) -> float:
        return base * schedule(step, total)

    def share(self, done: int, total: int, count: int) -> float | None:
        return 1.0 if count == 0 else 1 - min(self.decay, (1 + count) / (10 + count))


def _check_start(start: float) -> None:
    if not 0 <= start < 1:
        raise ConfigError(f"averaging.start is {start}; expected a part of the run, at least 0 and below 1.")


class Average:
    """The running mean of a module's trainable parameters, in float32."""

    def __init__(self) -> None:
        self.count = 0
        self.mean: dict[str, Tensor] = {}

    @torch.no_grad()
    def join(self, module: nn.Module, share: float) -> None:
        """Let the weights of `module` into the mean."""
        live = _trainable(module)
        if self.count == 0:
            self.mean = {name: parameter.detach().float().clone() for name, parameter in live.items()}
        else:
            weights = [parameter.float() for parameter in live.values()]
            torch._foreach_lerp_([self.mean[name] for name in live], weights, share)
        self.count += 1

    @contextmanager
    def inside(self, module: nn.Module) -> Iterator[None]:
        """The mean stands in for the live weights within the block; nothing happens while it is empty."""
        if self.count == 0:
            yield
            return
        live = {name: parameter.detach().clone() for name, parameter in _trainable(module).items()}
        self.write(module)
        try:
            yield
        finally:
            _copy(live, module)

    def write(self, module: nn.Module) -> None:
        """Replace the weights of `module` by the mean."""
        _copy(self.mean, module)

    def state_dict(self) -> dict[str, Any]:
        return {"count": self.count, "mean": dict(self.mean)}

    def load_state_dict(self, state: Mapping[str, Any], device: torch.device) -> None:
        self.count = state["count"]
        self.mean = {name: tensor.to(device) for name, tensor in state["mean"].items()}


def _trainable(module: nn.Module) -> dict[str, nn.Parameter]:
    return {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}


@torch.no_grad()
def _copy(source: Mapping[str, Tensor], module: nn.Module) -> None:
    for name, parameter in module.named_parameters():
        if name in source:
            parameter.copy_(source[name])
