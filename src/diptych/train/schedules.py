"""Learning-rate schedules: functions of the step and the total number of steps that return a factor.

The factor is relative to the peak rate and lies in [0, 1]. `step` counts from 0, so with warm-up the first
step has the rate 0. A `warmup` below 1 is a fraction of the run. It is not rounded (0.1 of 45 steps are 4.5
steps), unless `whole` rounds it down. A `warmup` of 1 or more is a number of steps; a negative one raises
`ConfigError`.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, get_args

from diptych.errors import ConfigError

Schedule = Callable[[int, int], float]
Method = Literal["linear", "constant"]


def linear(*, warmup: int | float = 0.1, whole: bool = False) -> Schedule:
    """Linear warm-up, then linear decay to 0 at the end."""
    # Partials of module functions instead of closures: they can be pickled, and compared by `fit`.
    return partial(_linear, warmup=_checked(warmup), whole=whole)


def triangle(*, warmup: int | float = 0.5) -> Schedule:
    """`linear` with the peak in the middle. VL-BERT's `triangle` is this with `warmup` in steps."""
    return linear(warmup=warmup)


def cosine(*, warmup: int | float = 0.1, whole: bool = False, floor: float = 0.0) -> Schedule:
    """Linear warm-up, then half a cosine down to `floor` times the peak rate."""
    return partial(_cosine, warmup=_checked(warmup), whole=whole, floor=floor)


def constant(*, warmup: int | float = 0.0) -> Schedule:
    """Linear warm-up, then the peak rate."""
    return partial(_constant, warmup=_checked(warmup))


def steps(
    *,
    milestones: Sequence[int],
    factor: float = 0.1,
    warmup: int | float = 0.0,
    warmup_factor: float = 0.0,
    warmup_method: str = "linear",
) -> Schedule:
    """Warm-up, then the peak rate, which is multiplied by `factor` at each milestone (ERNIE-ViL, VL-BERT).

    Args:
        milestones: steps at which the rate drops.
        factor: factor of each drop.
        warmup_factor: fraction of the peak rate at which warm-up begins.
        warmup_method: `linear` rises from there to the peak. `constant` stays there until warm-up ends.

    Raises:
        ConfigError: `warmup_method` is unknown.
    """
    if warmup_method not in get_args(Method):
        raise ConfigError(
            f"schedule.warmup_method is {warmup_method!r}; expected one of {', '.join(get_args(Method))}."
        )
    return partial(
        _stairs,
        milestones=tuple(milestones),
        factor=factor,
        warmup=_checked(warmup),
        start=warmup_factor,
        method=warmup_method,
    )


@dataclass(frozen=True, kw_only=True)
class Plateau:
    """Warm-up, then the peak rate, times `factor` whenever the monitored metric stops improving.

    As torch's `ReduceLROnPlateau`, which VL-BERT offers. The rate follows from the results of the validations
    alone, which checkpoints hold, so that a resumed run goes on exactly; the original forgets them.

    Args:
        factor: factor of each drop.
        patience: validations without improvement that are tolerated.
        cooldown: validations after a drop in which none counts as lacking improvement.
        threshold: an improvement of less than this share of the best value does not count.
        warmup: as in the other schedules.
    """

    factor: float = 0.1
    patience: int = 1
    cooldown: int = 2
    threshold: float = 1e-4
    warmup: int | float = 0.0

    def __post_init__(self) -> None:
        _checked(self.warmup)
        if not 0 < self.factor < 1 or self.patience < 0 or self.cooldown < 0 or self.threshold < 0:
            raise ConfigError(
                f"schedule has factor={self.factor}, patience={self.patience}, cooldown={self.cooldown}, "
                f"threshold={self.threshold}; expected a factor between 0 and 1, and 0 or more."
            )

    def __call__(self, step: int, total: int) -> float:
        return _constant(step, total, warmup=self.warmup)

    def drop(self, values: Iterable[float], *, minimized: bool) -> float:
        """Factor of the rate after these results of the monitored metric."""
        best, bad, cooling, drops = math.inf if minimized else -math.inf, 0, 0, 0
        for value in values:
            margin = self.threshold * abs(best) if math.isfinite(best) else 0.0
            improved = value < best - margin if minimized else value > best + margin
            best, bad = (value, 0) if improved else (best, bad + 1)
            if cooling:
                cooling, bad = cooling - 1, 0
            if bad > self.patience:
                drops, cooling, bad = drops + 1, self.cooldown, 0
        return float(self.factor**drops)


def plateau(
    *,
    factor: float = 0.1,
    patience: int = 1,
    cooldown: int = 2,
    threshold: float = 1e-4,
    warmup: int | float = 0.0,
) -> Plateau:
    """Drop the rate when the monitored metric no longer improves; see `Plateau`. Needs a validation set."""
    return Plateau(factor=factor, patience=patience, cooldown=cooldown, threshold=threshold, warmup=warmup)


def _linear(step: int, total: int, *, warmup: int | float, whole: bool) -> float:
    rise = _steps(warmup, total, whole)
    # `max(1e-9, ...)`: the warm-up may take the whole run.
    return step / rise if step < rise else max(0.0, (total - step) / max(1e-9, total - rise))


def _cosine(step: int, total: int, *, warmup: int | float, whole: bool, floor: float) -> float:
    rise = _steps(warmup, total, whole)
    if step < rise:
        return step / rise
    part = min(1.0, (step - rise) / max(1e-9, total - rise))
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * part))


def _constant(step: int, total: int, *, warmup: int | float) -> float:
    rise = _steps(warmup, total)
    return step / rise if step < rise else 1.0


def _stairs(
    step: int,
    total: int,
    *,
    milestones: tuple[int, ...],
    factor: float,
    warmup: int | float,
    start: float,
    method: str,
) -> float:
    passed = sum(step >= milestone for milestone in milestones)  # drops count during warm-up, too
    risen = _constant(step, total, warmup=warmup)
    if risen < 1:
        # Linear from `start` to 1.
        risen = start if method == "constant" else start * (1 - risen) + risen
    return risen * float(factor**passed)


def _steps(warmup: int | float, total: int, whole: bool = False) -> float:
    """Length of the warm-up in steps."""
    # 1.0 is one step and not the whole run.
    rise = warmup * total if warmup < 1 else float(warmup)
    return float(math.floor(rise)) if whole else rise


def _checked(warmup: int | float) -> int | float:
    if warmup < 0:
        raise ConfigError(
            f"schedule.warmup is {warmup}; expected a fraction of the run (0 to 1) or a number of steps."
        )
    return warmup
