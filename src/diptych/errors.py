"""Errors that diptych raises.

    DiptychError
    |-- FormatError         a file has invalid content (file, line, expected content)
    |-- MissingFeatures     images have no regions (number, names, store, what to do)
    |-- CheckpointMismatch  weights do not fit the model (unfilled, unused, wrong shape)
    |-- ConfigError         a setting is invalid (key, value, allowed values, nearest name)
    |-- ReaderDied          the process that reads words in pictures has ended (`detect.ocr`)
    `-- ServiceError        a service answered with a problem (`client`)

Messages follow one pattern: what failed, where, got, expected, what to do. The command line prints them
without a traceback and exits with status 2.
"""

import errno
import re
import sys
from collections.abc import Collection, Iterable
from difflib import get_close_matches
from pathlib import Path

from diptych import __version__

# Switches that messages advise, first as settings and as Python writes them, then as options.
OVERWRITE, RESUME = "overwrite=true (or --overwrite)", "resume=true (or --resume)"
AGAIN = f"Set {OVERWRITE} to start again."
NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # quotas and size limits, too


class DiptychError(Exception):
    """Base of all errors that a user can cause and fix."""


class FormatError(DiptychError):
    """A file has invalid content."""


class MissingFeatures(DiptychError):
    """A feature store has no regions for some images."""

    def __init__(self, missing: Collection[str], store: object) -> None:
        super().__init__(
            f"{len(missing)} image(s) have no regions in {store}: {first_five(sorted(missing))}. "
            "Import features that include them with `diptych import` (end-to-end models: add their boxes; "
            "heads on stored vectors: `diptych embed`, or `diptych score --towers MODEL`), or list all with "
            "`diptych check`."
        )


class CheckpointMismatch(DiptychError):
    """Weights do not fit the model."""


class ConfigError(DiptychError):
    """A setting is invalid."""


def unlabeled(key: str) -> ConfigError:
    """The error for an example that balanced sampling cannot place."""
    return ConfigError(
        f"example {key} has no label; balanced sampling needs one of every training example. "
        "Set data.balance=null or give labels."
    )


def nearest(name: str, allowed: Iterable[str]) -> str:
    """Return ` Did you mean 'x'?` with the allowed name closest to `name`, or an empty string."""
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
    seen: set[int] = set()
    # the chain may be a circle: an error that is raised anew while its wrapper is handled has it as context
    while error is not None and id(error) not in seen:
        if isinstance(error, OSError) and error.errno in NO_SPACE:
            return error
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return None


def report_internal(error: BaseException, folder: Path | None = None) -> str:
    """Describe an internal error in one line; write the traceback to a file that the line names.

    Args:
        folder: folder of that file; by default the system's folder for temporary files.
    """
    import traceback
    from tempfile import NamedTemporaryFile

    trace = "".join(traceback.format_exception(error))
    # What a maintainer asks for first.
    text = f"diptych {__version__}, Python {sys.version}\n{sys.argv}\n{trace}"
    try:
        with NamedTemporaryFile(
            "w", prefix="diptych-error-", suffix=".txt", dir=folder, delete=False,
            encoding="utf-8", errors="backslashreplace",
        ) as file:  # fmt: skip
            file.write(text)
        report = f"please report it with {file.name}"
    except OSError:  # a full disk may be the cause of the error
        report = "DIPTYCH_DEBUG=1 shows the traceback; please report it"
    words = str(error).strip()
    # Of the traceback that torch puts into a worker's error, only the last line.
    words = " ".join((words.rpartition("\n")[2] if "Original Traceback" in words else words).split())
    said = f": {words if len(words) <= 200 else words[:197] + '...'}" if words else ""
    return f"internal error in {_place(error)} ({type(error).__name__}{said}); {report}."


def _place(error: BaseException) -> str:
    """Name the innermost function of diptych in the traceback, such as `diptych.features.tsv.read`."""
    import traceback

    worker = re.findall(r'/(diptych/[\w/]+)\.py", line \d+, in (\S+)', str(error))
    if worker:  # torch reraises errors of data workers with their traceback as text
        return f"{worker[-1][0].replace('/', '.')}.{worker[-1][1]}"
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    ours = [frame for frame in frames if str(frame.f_globals.get("__name__")).partition(".")[0] == "diptych"]
    if not (ours or frames):
        return "diptych"
    # The innermost frame of ours: what lies below is a library that did what it was told.
    last = (ours or frames)[-1]
    return f"{last.f_globals.get('__name__')}.{last.f_code.co_qualname.replace('.<locals>', '')}"
