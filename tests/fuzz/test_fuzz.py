"""A short cut of `make fuzz`, and proofs that it would see what it looks for."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.fuzz.command import MEMORY, Outcome
from tests.fuzz.trial import short

pytestmark = [pytest.mark.journey, pytest.mark.timeout(900)]  # a minute where nothing else runs
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def trials(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, object]]]:
    """What came of the short cut, by target."""
    out = tmp_path_factory.mktemp("fuzz")
    words = [
        "--short",
        "--seed",
        "1",
        "--jobs",
        "1",
        "--patience",
        "100",
        "--json",
        str(out / "trials.jsonl"),
    ]
    # its children are forked, which wants a process without the threads of pytest
    command = [sys.executable, "-m", "tests.fuzz", *words, "--work", str(out / "work")]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True
    )
    assert done.returncode in (0, 1), done.stderr
    found: dict[str, list[dict[str, object]]] = {}
    for line in (out / "trials.jsonl").read_text().splitlines():
        tried = json.loads(line)
        found.setdefault(tried["target"], []).append(tried)
    return found


@pytest.mark.parametrize("name", sorted({name for name, _ in short()}))
def test_damage_gets_one_clear_error(name: str, trials: dict[str, list[dict[str, object]]]) -> None:
    kept = ("number", "faults", "notes", "command", "message")
    faults = [{key: tried[key] for key in kept} for tried in trials[name] if tried["faults"]]
    assert not faults, json.dumps(faults, indent=1)


TRACE = """Traceback (most recent call last):
  File "/somewhere/src/diptych/cli/__init__.py", line 5, in main
  File "/somewhere/src/diptych/features/tsv.py", line 40, in tsv_entries
ValueError: odd
"""


@pytest.mark.parametrize(
    ("code", "printed", "peak", "fault"),
    [
        (None, "", 0, "hang"),
        (-11, "", 0, "signal SIGSEGV"),
        (0, "", MEMORY + 1, "memory"),
        (1, TRACE, 0, "ValueError at features/tsv.py:40 tsv_entries"),
        (1, "diptych: internal error in x", 0, "internal error in x"),
        (1, "", 0, "exit 1"),
        (2, "", 0, "exit 2 without a word"),
        (2, "diptych: error: a\ndiptych: error: b\n", 0, "several error lines"),
    ],
)
def test_a_broken_promise_is_seen(code: int | None, printed: str, peak: int, fault: str) -> None:
    assert Outcome(code=code, printed=printed, seconds=0, peak=peak).faults() == [fault]


@pytest.mark.parametrize(
    ("code", "printed"), [(0, ""), (2, "diptych: error: a\n"), (2, "usage: x\nx: error: a\n")]
)
def test_what_is_promised_is_no_fault(code: int, printed: str) -> None:
    assert Outcome(code=code, printed=printed, seconds=0, peak=0).faults() == []
