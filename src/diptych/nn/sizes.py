"""Sizes of layers, checked where a layer is made."""

from numbers import Integral

from diptych.errors import ConfigError


def require_sizes(**sizes: object) -> None:
    """Whole numbers from 1; torch takes some others and fails much later.

    Raises:
        ConfigError: names the first one that is none.
    """
    for name, size in sizes.items():
        if isinstance(size, bool) or not isinstance(size, Integral) or int(size) < 1:
            raise ConfigError(f"{name} is {size!r}; expected a whole number from 1.")
