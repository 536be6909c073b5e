"""What a policy is asked for."""

from dataclasses import dataclass

from diptych.calibrate.bands import Costs
from diptych.calibrate.maps import METHODS, Method
from diptych.errors import ConfigError, nearest


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a policy is asked for.

    Args:
        method: a map, or `auto` for the best of cross-validation.
        max_miss: promised largest share of positive examples that are allowed; None for no promise.
        max_wrong_block: promised largest share of negative examples that are blocked.
        delta: largest probability that a label's promises do not hold; two promises share it.
        costs: for the band of least cost.
        review_capacity: largest share of the examples that people can look at.
        samples: number of bootstrap resamples per interval, drawn with `seed`.

    Without promises, costs or capacity, the promises are 5 % and 2 %.
    """

    method: Method | str = "auto"
    max_miss: float | None = None
    max_wrong_block: float | None = None
    delta: float = 0.1
    costs: Costs | None = None
    review_capacity: float | None = None
    samples: int = 2000
    seed: int = 0

    def __post_init__(self) -> None:
        if self.method not in ("auto", *METHODS):
            known = ("auto", *METHODS)
            raise ConfigError(
                f"method is {self.method!r}; expected one of {known}.{nearest(self.method, known)}"
            )
        for name in ("max_miss", "max_wrong_block", "delta", "review_capacity"):
            value = getattr(self, name)
            # Also refuses nan, with which every comparison is false.
            if value is not None and not 0 < value < 1:
                raise ConfigError(f"{name} is {value}; expected a share between 0 and 1.")
        if self.samples < 1:
            raise ConfigError(f"samples is {self.samples}; expected at least 1.")
        if all(value is None for value in (*self.promised, self.costs, self.review_capacity)):
            # Frozen, but the defaults depend on each other.
            object.__setattr__(self, "max_miss", 0.05)
            object.__setattr__(self, "max_wrong_block", 0.02)

    @property
    def promised(self) -> tuple[float | None, float | None]:
        return self.max_miss, self.max_wrong_block
