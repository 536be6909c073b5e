"""What a study remembers on disk: which steps are done, and the checksums of its input files."""

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
    """The file of a `StepRecord`."""

    step: str
    state: State
    seconds: float
    error: NotRequired[str | None]
    facts: NotRequired[dict[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRecord:
    """How a step went.

    Args:
        seconds: of the call that finished it; what a killed one had done before is not counted.
        facts: what the run card tells.
    """

    step: str
    state: State
    seconds: int | float
    error: str | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)


def read_record(folder: Path, key: str) -> StepRecord | None:
    """None when the step with this key was never finished."""
    path = folder / f"{key}.json"
    if not path.exists():
        return None
    return StepRecord(**read_json(path, StepRecordNode, advice="Remove it; the step runs again."))


def require_own(out: Path) -> None:
    """Refuse a folder for a study that holds other things.

    Raises:
        ConfigError: names the first of them.
    """
    if any((out / "steps").glob("*.json")):  # written before everything else
        return
    entries = sorted(one for one in out.rglob("*") if one.is_symlink() or not one.is_dir())
    if strange := [one for one in entries if not one.name.endswith((".part", "lock"))]:
        raise ConfigError(f"{strange[0]} is there, so {out} is no folder of a study; choose another --out.")


def write_record(folder: Path, key: str, record: StepRecord) -> None:
    """Written last of a step: its presence means that everything else is there."""
    with atomic_file(folder / f"{key}.json", "w", encoding="utf-8") as file:
        json.dump(asdict(record), file, indent=1)


class Checksums:
    """SHA-256 of files; a file of the same path, size and time is not read again.

    Args:
        path: file that remembers them.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.known: dict[str, str] = {}
        with suppress(FormatError):  # nothing is lost but time
            self.known = read_json(path, dict[str, str])

    def __call__(self, path: Path) -> str:
        """Of a file, or of all files of a folder with their names."""
        if path.is_dir():
            files = sorted(one for one in path.rglob("*") if one.is_file())
            return digest([[str(one.relative_to(path)), self(one)] for one in files])
        state = path.stat()
        stamp = f"{path.resolve()} {state.st_size} {state.st_mtime_ns}"
        if stamp not in self.known:
            self.known[stamp] = file_checksum(path)
            with atomic_file(self.path, "w", encoding="utf-8") as out:
                json.dump(self.known, out, indent=0)
        return self.known[stamp]
