"""Runs one command of diptych in a forked child, where it can hang, crash or eat memory."""

import hashlib
import os
import re
import resource
import select
import signal
import stat
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

PATIENCE = 20.0  # seconds
MEMORY = 2 << 30  # bytes above what the parent holds
PLACE = re.compile(r'File "[^"]*/diptych/([^"]+)", line (\d+), in (\S+)')


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a command.

    Args:
        code: exit code, negative for a signal, None when it was stopped for taking too long.
        printed: what it wrote on stderr.
        peak: bytes of memory above those of the parent.
    """

    code: int | None
    printed: str
    seconds: float
    peak: int

    @property
    def message(self) -> str:
        """The error that a user sees."""
        lines = [line for line in self.printed.splitlines() if "error:" in line]
        return lines[-1][:400] if lines else self.printed[-300:]

    def faults(self, allowed: Sequence[int] = (0, 2)) -> list[str]:
        """What breaks the promise, as signatures that are equal for equal causes."""
        found = []
        lines = sum(line.startswith("diptych: error:") for line in self.printed.splitlines())
        if self.code is None:
            found.append("hang")
        elif self.code < 0 and self.peak <= MEMORY:
            found.append(f"signal {signal.Signals(-self.code).name}")
        if self.peak > MEMORY:
            found.append("memory")
        if "Traceback (most recent call last)" in self.printed:
            found.append(_signature(self.printed))
        elif "internal error" in self.printed:
            found.append(self.printed[self.printed.index("internal error") :].partition("\n")[0][:120])
        elif self.code is not None and self.code >= 0 and self.code not in allowed:
            found.append(f"exit {self.code}")
        if self.code == 2 and not found and lines != 1 and "error:" not in self.printed:
            found.append("exit 2 without a word")
        if lines > 1:
            found.append("several error lines")
        return found


def _signature(printed: str) -> str:
    *_, last = printed.rpartition("Traceback (most recent call last)")
    places = PLACE.findall(last)
    kind = next(
        (line for line in reversed(last.splitlines()) if re.match(r"[\w.]+(:|$)", line)), "?"
    ).partition(":")[0]
    place = ":".join(places[-1][:2]) + f" {places[-1][2]}" if places else "outside"
    return f"{kind.rpartition('.')[2]} at {place}"


def run(
    words: Sequence[str],
    folder: Path,
    box: Path,
    *,
    patience: float,
    before: Callable[[], None] | None = None,
) -> Outcome:
    """Call `diptych` with these words.

    Args:
        folder: where.
        box: where its temporary files go.
        before: called in the child first.
    """
    (box / "tmp").mkdir(exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    start, begin = _memory("self"), time.perf_counter()
    reads, writes = os.pipe()  # a file would fill like the disk of the command
    child = os.fork()
    if child == 0:
        _child(words, folder, box, writes, before)
    os.close(writes)
    printed, late, peak = _watch(child, reads, begin + patience, start + MEMORY)
    for one in (-child, child):  # also those it started: nothing may go on writing
        with suppress(ProcessLookupError):
            os.kill(one, signal.SIGKILL)
    _, status, usage = os.wait4(child, 0)
    return Outcome(
        code=None if late else os.waitstatus_to_exitcode(status),
        printed=printed.decode("utf-8", "replace"),
        seconds=time.perf_counter() - begin,
        peak=max(0, usage.ru_maxrss * 1024 - start, peak - start),
    )


def _watch(child: int, reads: int, until: float, most: int) -> tuple[bytes, bool, int]:
    """Read what a child prints until it ends, takes too long or too much memory."""
    printed, watched, peak, late = bytearray(), os.pidfd_open(child), 0, False
    os.set_blocking(reads, False)
    poll = select.poll()
    poll.register(watched, select.POLLIN)
    poll.register(reads, select.POLLIN)
    try:
        while True:
            ready = dict(poll.poll(50))
            with suppress(BlockingIOError):
                while more := os.read(reads, 1 << 16):
                    printed += more if len(printed) < 1 << 20 else b""
            if watched in ready:
                break
            if ready.get(reads, 0) & select.POLLHUP:
                poll.unregister(reads)
            peak = max(peak, _memory(child))
            late = time.perf_counter() > until
            if late or peak > most:
                break
    finally:
        os.close(watched)
        os.close(reads)
    return bytes(printed), late, peak


def _memory(process: int | str) -> int:
    """Bytes that a process holds."""
    try:
        return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * resource.getpagesize()
    except (OSError, IndexError):  # it has just ended
        return 0


def _child(
    words: Sequence[str], folder: Path, box: Path, writes: int, before: Callable[[], None] | None
) -> None:
    code = 70
    try:
        os.setpgid(0, 0)
        for number, flags in ((0, os.O_RDONLY), (1, os.O_WRONLY)):
            os.dup2(os.open("/dev/null", flags), number)
        os.dup2(writes, 2)
        sys.stdout = os.fdopen(1, "w", encoding="utf-8", errors="backslashreplace", closefd=False)
        sys.stderr = os.fdopen(2, "w", encoding="utf-8", errors="backslashreplace", closefd=False)
        os.environ |= {
            "TMPDIR": str(box / "tmp"),
            "HF_MODULES_CACHE": str(box / "tmp"),
            "HF_HUB_OFFLINE": "1",
            "COLUMNS": "200",
        }
        os.environ.pop("DIPTYCH_DEBUG", None)
        tempfile.tempdir = None
        os.chdir(folder)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        from diptych.cli import main

        if before is not None:
            before()
        code = main(list(words))
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1 if error.code else 0
    except BaseException:
        traceback.print_exc()
    finally:
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(code)


def contents(folder: Path, *, deep: bool = True) -> dict[str, str]:
    """Every entry below a folder and what it holds; not `deep`: only sizes and times."""
    found = {}
    for base, folders, files in os.walk(folder):
        for name in [*folders, *files]:
            path = Path(base) / name
            about = os.lstat(path)
            if stat.S_ISLNK(about.st_mode):
                value = f"-> {path.readlink()}"
            elif not stat.S_ISREG(about.st_mode):
                value = str(stat.S_IFMT(about.st_mode))
            elif deep and about.st_mode & 0o400:
                value = hashlib.sha256(path.read_bytes()).hexdigest()
            else:
                value = f"{about.st_size} {about.st_mtime_ns}"
            found[os.path.relpath(path, folder)] = value
    return found
