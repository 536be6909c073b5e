"""Everything diptych raises on purpose.

    DiptychError
    |-- FormatError         a file is not what it should be (file, line, what was expected)
    |-- MissingFeatures     images without regions (how many, which, in which store, what to do)
    |-- CheckpointMismatch  weights that do not fit (unfilled, unused, wrong shape)
    `-- ConfigError         a setting that cannot work (key, got, allowed, nearest name)

Messages follow one pattern: what failed, where, got, expected, what to do. The command line prints them
without a traceback and exits with 2.
"""

from collections.abc import Collection, Iterable
from difflib import get_close_matches


class DiptychError(Exception):
    """Base of all errors that a user can cause and mend."""


class FormatError(DiptychError):
    """A file whose content breaks its format."""


class MissingFeatures(DiptychError):
    """Images for which a feature store has no regions."""

    def __init__(self, missing: Collection[str], store: object) -> None:
        first = ", ".join(sorted(missing)[:5])
        more = ", ..." if len(missing) > 5 else ""
        super().__init__(
            f"{len(missing)} image(s) have no regions in {store}: {first}{more}. "
            "Import features that hold them with `diptych import` (end to end: add their boxes), or list the "
            "gaps with `diptych check`."
        )


class CheckpointMismatch(DiptychError):
    """Weights that do not fit the model they are loaded into."""


class ConfigError(DiptychError):
    """A setting that cannot work."""


def nearest(name: str, allowed: Iterable[str]) -> str:
    """` Did you mean 'x'?` for the allowed name closest to `name`, or an empty string."""
    close = get_close_matches(name, list(allowed), n=1)
    return f" Did you mean {close[0]!r}?" if close else ""
