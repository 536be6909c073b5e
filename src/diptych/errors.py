"""Everything diptych raises on purpose.

    DiptychError
    |-- FormatError         a file is not what it should be (file, line, what was expected)
    |-- MissingFeatures     images without regions (how many, which, in which store, what to do)
    |-- CheckpointMismatch  weights that do not fit (unfilled, unused, wrong shape)
    `-- ConfigError         a setting that cannot work (key, got, allowed, nearest name)

Messages follow one pattern: what failed, where, got, expected, what to do. The command line prints them
without a traceback and exits with 2.
"""

import errno
import re
import sys
from collections.abc import Collection, Iterable
from difflib import get_close_matches
from pathlib import Path

from diptych import __version__

NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class DiptychError(Exception):
    """Base of all errors that a user can cause and mend."""


class FormatError(DiptychError):
    """A file whose content breaks its format."""


class MissingFeatures(DiptychError):
    """Images for which a feature store has no regions."""

    def __init__(self, missing: Collection[str], store: object) -> None:
        super().__init__(
            f"{len(missing)} image(s) have no regions in {store}: {first_five(sorted(missing))}. "
            "Import features that hold them with `diptych import` (end to end: add their boxes), or list the "
            "gaps with `diptych check`."
        )


class CheckpointMismatch(DiptychError):
    """Weights that do not fit the model they are loaded into."""


class ConfigError(DiptychError):
    """A setting that cannot work."""


def unlabeled(key: str) -> ConfigError:
    """The error for an example that balanced sampling cannot place."""
    return ConfigError(
        f"example {key} has no label; balanced sampling needs one of every training example. "
        "Set data.balance=null or give labels."
    )


def nearest(name: str, allowed: Iterable[str]) -> str:
    """` Did you mean 'x'?` for the allowed name closest to `name`, or an empty string."""
    close = get_close_matches(name, list(allowed), n=1)
    return f" Did you mean {close[0]!r}?" if close else ""


def first_five(names: Iterable[object]) -> str:
    """`a, b, c, d, e, ...` of the names, with the dots only where there are more."""
    names = list(names)
    return ", ".join([*map(str, names[:5]), *(["..."] if len(names) > 5 else [])])


def missing_library(what: str, extra: str, error: Exception) -> ConfigError:
    """The error for a library that is not installed; raise it from `error`.

    Args:
        what: what needs which library, such as `HDF5 files need h5py`.
        extra: of diptych, which installs it.
    """
    return ConfigError(f'{what} ({error}). Install it: pip install "diptych[{extra}]"')


def full_disk(error: BaseException | None) -> OSError | None:
    """The full disk that is behind an error; None where it was something else."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in NO_SPACE:
            return error
        error = error.__cause__ or error.__context__
    return None


def report_internal(error: BaseException, folder: Path | None = None) -> str:
    """One line about a mistake of ours; the traceback goes into a file that the line names.

    Args:
        folder: where the file is written (default: the system's folder for temporary files).
    """
    import traceback
    from tempfile import NamedTemporaryFile

    trace = "".join(traceback.format_exception(error))
    text = f"diptych {__version__}, Python {sys.version}\n{sys.argv}\n{trace}"
    try:
        with NamedTemporaryFile(
            "w", prefix="diptych-error-", suffix=".txt", dir=folder, delete=False,
            encoding="utf-8", errors="backslashreplace",
        ) as file:  # fmt: skip
            file.write(text)
        report = f"please report it with {file.name}"
    except OSError:  # the disk may be what is full
        report = "DIPTYCH_DEBUG=1 shows the traceback; please report it"
    words = str(error).strip()
    words = " ".join((words.rpartition("\n")[2] if "Original Traceback" in words else words).split())
    said = f": {words if len(words) <= 200 else words[:197] + '...'}" if words else ""
    return f"internal error in {_place(error)} ({type(error).__name__}{said}); {report}."


def _place(error: BaseException) -> str:
    """The function of ours that was running: `diptych.features.tsv.read`."""
    import traceback

    worker = re.findall(r'/(diptych/[\w/]+)\.py", line \d+, in (\S+)', str(error))
    if worker:  # an error of a loader process carries its traceback as text
        return f"{worker[-1][0].replace('/', '.')}.{worker[-1][1]}"
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    ours = [one for one in frames if str(one.f_globals.get("__name__")).partition(".")[0] == "diptych"]
    if not (ours or frames):
        return "diptych"
    last = (ours or frames)[-1]
    return f"{last.f_globals.get('__name__')}.{last.f_code.co_qualname.replace('.<locals>', '')}"
