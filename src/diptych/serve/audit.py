"""The audit log: one line per decision, each with its checksum and that of the line before it.

A line cannot be changed, removed or put in between without `verify` noticing. Whoever can write the files may
cut off lines at the end unnoticed, or write all lines from one on anew: note the last checksum elsewhere.
"""

import json
import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from io import FileIO
from pathlib import Path
from threading import Lock
from typing import Any

from diptych.errors import ConfigError, FormatError
from diptych.files import claimed, make_parents, require_file

START = "0" * 64  # the checksum before the first line
TAIL = re.compile(rb'(?P<body>.*), "sha256": "(?P<sum>[0-9a-f]{64})"}\n', re.DOTALL)
DAY = re.compile(r"\d{4}-\d{2}-\d{2}\.jsonl")
PREVIOUS = "previous"


class AuditLog:
    """Appends lines to a file per day. One process writes a folder.

    Args:
        sync: seconds between the moments when lines are forced onto the disk; 0 forces every line.

    Raises:
        ConfigError: another process writes this folder.
        FormatError: its last line is damaged.
    """

    def __init__(self, folder: Path, *, sync: float = 1.0) -> None:
        self.folder, self.sync = folder, sync
        self._stack = ExitStack()
        make_parents(folder / "audit")
        # Two writers would both continue from one line, and the chain would fork.
        self._stack.enter_context(claimed(folder / "audit"))
        try:
            self._previous = _resumed(folder)
        except BaseException:
            self._stack.close()
            raise
        self._file: FileIO | None = None
        self._day, self._synced, self._lock = "", 0.0, Lock()

    def append(self, record: Mapping[str, Any]) -> None:
        """Write a line; `time` and `previous` are added.

        Raises:
            OSError: the disk is full; the log is as before.
        """
        with self._lock:
            now = datetime.now(UTC)
            line = json.dumps(
                {"time": now.isoformat(timespec="milliseconds"), **record, PREVIOUS: self._previous},
                ensure_ascii=True,  # a text may hold a lone surrogate, which is no UTF-8
            ).encode()
            checksum = sha256(line).hexdigest()
            # The checksum is over the line as it would be without it.
            line = line[:-1] + f', "sha256": "{checksum}"}}\n'.encode()
            # By the day of the line's own time, so that a line at midnight is in the file of its date.
            file = self._opened(now.strftime("%Y-%m-%d"))
            start = file.tell()
            try:
                # A disk that becomes full takes a part of the line without an error.
                if (written := file.write(line)) < len(line):
                    file.write(line[written:])
            except OSError:
                # Half a line would break the chain for all that follow.
                os.ftruncate(file.fileno(), start)
                raise
            self._previous = checksum
            # A crash of the machine may lose this second; one of the process loses nothing.
            if time.monotonic() - self._synced >= self.sync:
                os.fsync(file.fileno())
                self._synced = time.monotonic()

    def close(self) -> None:
        """Force all lines onto the disk."""
        with self._lock:
            if self._file is not None:
                os.fsync(self._file.fileno())
                self._file.close()
                self._file = None
            self._stack.close()

    def _opened(self, day: str) -> FileIO:
        if self._file is None or day != self._day:
            if self._file is not None:
                os.fsync(self._file.fileno())
                self._file.close()
            # Unbuffered, so that a failed write leaves nothing behind that a later one would add.
            self._file, self._day = FileIO(self.folder / f"{day}.jsonl", "ab"), day
        return self._file


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """Result of `verify`.

    Args:
        lines: number of lines in order.
        files: number of files.
        whole: whether the first line is the first that was ever written; False if old files were removed.
        last: checksum of the last line, to be noted elsewhere.
        broken: file and line where the chain breaks, and why; None if it holds.
    """

    lines: int
    files: int
    whole: bool
    last: str
    broken: tuple[Path, int, str] | None


def verify(folder: Path) -> Verified:
    """Check the chain of an audit log over all its files.

    Raises:
        FormatError: the folder has no audit log.
    """
    files = _days(folder)
    if not files:
        raise FormatError(f"{folder} has no audit log; expected files such as 2026-11-30.jsonl.")
    previous: str | None = None
    whole, count = True, 0
    for path in files:
        for number, line in enumerate(_lines(path), 1):
            why, said, own = _fault(line, previous)
            # The first line that is kept tells whether lines before it were removed with their files.
            if previous is None and not why:
                whole = said == START
            if why:
                last = previous or START
                return Verified(
                    lines=count, files=len(files), whole=whole, last=last, broken=(path, number, why)
                )
            previous = own
            count += 1
    return Verified(lines=count, files=len(files), whole=whole, last=previous or START, broken=None)


def records(folder: Path) -> Iterator[dict[str, Any]]:
    """The lines of an audit log, oldest first, without checks."""
    for path in _days(folder):
        for line in _lines(path):
            yield json.loads(line)


def _fault(line: bytes, previous: str | None) -> tuple[str, str, str]:
    """Why a line does not continue the chain, or an empty string; the checksum before it, and its own."""
    if not line.endswith(b"\n"):
        return "the line is cut off", "", ""
    found = TAIL.fullmatch(line)
    if found is None:
        return "the line has no checksum at its end", "", ""
    body, own = found["body"] + b"}", found["sum"].decode()
    if sha256(body).hexdigest() != own:
        return "the line was changed: its checksum is another one", "", own
    try:
        record = json.loads(body)
    except (ValueError, RecursionError):
        return "the line is not JSON", "", own
    said = record.get(PREVIOUS) if isinstance(record, dict) else None
    if not isinstance(said, str):
        return f"the line has no {PREVIOUS!r}", "", own
    if previous is not None and said != previous:
        return "the line does not follow the one before it: lines are missing, or were put in", said, own
    return "", said, own


def _days(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise FormatError(f"{folder} is no folder; expected that of `diptych serve --audit`.")
    return sorted(path for path in folder.iterdir() if DAY.fullmatch(path.name))


def _lines(path: Path) -> Iterator[bytes]:
    with open(require_file(path, "an audit log"), "rb") as file:
        yield from file


def _resumed(folder: Path) -> str:
    """The checksum of the last line of an earlier process; half a line, left by a kill, is removed."""
    for path in reversed(_days(folder)):
        last, place = b"", 0
        for line in _lines(path):
            if not line.endswith(b"\n"):
                with open(path, "r+b") as file:
                    file.truncate(place)
                break
            last, place = line, place + len(line)
        # A file that had only half a line: the chain goes on from the day before.
        if not last:
            continue
        why, _, own = _fault(last, None)
        if why:
            raise FormatError(f"{path}: {why}; keep the folder as it is, and log to another one.")
        return own
    return START


def require_folder(folder: Path) -> Path:
    """Return `folder` if an audit log can be written there.

    Raises:
        ConfigError: it is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder} is a file; expected a folder for the audit log.")
    return folder
