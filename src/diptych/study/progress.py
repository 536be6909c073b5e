"""On-disk progress of a study: records of its steps, and checksums of its input files."""

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, NotRequired

from typing_extensions import TypedDict

from diptych.data.inputs import digest, file_checksum
from diptych.documents import closed, read_json
from diptych.errors import ConfigError, FormatError
from diptych.files import atomic_file

State = Literal["done", "failed"]


@closed
class StepRecordNode(TypedDict):
    """JSON form of a `StepRecord`."""

    step: str
    state: State
    seconds: float
    error: NotRequired[str | None]
    facts: NotRequired[dict[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRecord:
    """Result of a step.

    Args:
        seconds: wall time of the call that finished the step; interrupted calls before it are not counted.
        error: message of a failed step.
        facts: values for the run card.
    """

    step: str
    state: State
    seconds: int | float
    error: str | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)


def read_record(folder: Path, key: str) -> StepRecord | None:
    """Read the record of a step; None if the step was never finished."""
    path = folder / f"{key}.json"
    if not path.exists():
        return None
    return StepRecord(**read_json(path, StepRecordNode, advice="Remove it; the step runs again."))


def require_own(out: Path) -> None:
    """Check that a study may write into `out`: it is empty or missing, or already holds a study.

    Raises:
        ConfigError: it holds other files; names the first of them.
    """
    if any((out / "steps").glob("*.json")):  # a study writes these before any other file
        return
    # Empty folders are no files of the user, links are.
    entries = sorted(entry for entry in out.rglob("*") if entry.is_symlink() or not entry.is_dir())
    # a process killed at its very start leaves only an unfinished file or a lock
    if strange := [entry for entry in entries if not entry.name.endswith((".part", "lock"))]:
        raise ConfigError(
            f"{out} contains {strange[0]}, which no study wrote; choose another folder with --out."
        )


def write_record(folder: Path, key: str, record: StepRecord) -> None:
    """Write the record of a step. Call it last: a record means that all files of the step are complete."""
    with atomic_file(folder / f"{key}.json", "w", encoding="utf-8") as file:
        json.dump(asdict(record), file, indent=1)


class Checksums:
    """SHA-256 of files, cached by path, size and modification time.

    Args:
        path: file of the cache.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.known: dict[str, str] = {}
        with suppress(FormatError):  # a missing or damaged cache costs only time
            self.known = read_json(path, dict[str, str])

    def __call__(self, path: Path) -> str:
        """Return the checksum of a file, or of a folder: of the names and content of all its files."""
        if path.is_dir():
            # Sorted, because the order of a folder depends on the disk.
            files = sorted(entry for entry in path.rglob("*") if entry.is_file())
            return digest([[str(file.relative_to(path)), self(file)] for file in files])
        state = path.stat()
        # A file that changes gets another stamp; hashing all inputs at every call would take minutes.
        stamp = f"{path.resolve()} {state.st_size} {state.st_mtime_ns}"
        if stamp not in self.known:
            self.known[stamp] = file_checksum(path)
            # saved after every file, so that a killed planning does not hash large files again
            with atomic_file(self.path, "w", encoding="utf-8") as out:
                json.dump(self.known, out, indent=0)
        return self.known[stamp]
