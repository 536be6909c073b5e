"""Checks the sizes of layers when they are built."""

from numbers import Integral

from diptych.errors import ConfigError


def require_sizes(**sizes: object) -> None:
    """Check that sizes are whole numbers of at least 1; torch accepts some others and fails much later.

    Raises:
        ConfigError: names the first size that is not.
    """
    for name, size in sizes.items():
        # Integral and not int: NumPy's whole numbers are sizes, too.
        if isinstance(size, bool) or not isinstance(size, Integral) or int(size) < 1:
            raise ConfigError(f"{name} is {size!r}; expected a whole number of at least 1.")
