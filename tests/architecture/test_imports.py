import re
import subprocess
import sys
from pathlib import Path

import pytest
from importlinter.cli import EXIT_STATUS_SUCCESS, lint_imports

from diptych.cli import VERBS

ROOT = Path(__file__).parents[2]
HEAVY = {
    "torch",
    "lightning_fabric",
    "hydra",
    "omegaconf",
    "numpy",
    "sklearn",
    "pyarrow",
    "tokenizers",
    "PIL",
}


def test_import_contracts_hold(capsys: pytest.CaptureFixture[str]) -> None:
    status = lint_imports(config_filename=str(ROOT / ".importlinter"), no_cache=True)
    assert status == EXIT_STATUS_SUCCESS, capsys.readouterr().out


def loaded(program: str) -> set[str]:
    """Top-level modules that a fresh process holds after running a program."""
    program += "\nprint('modules:', *{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.rpartition("modules:")[2].split())


def test_importing_diptych_loads_nothing_heavy() -> None:
    assert not loaded("import sys, diptych") & HEAVY


def test_prediction_loads_neither_trainer_nor_metrics() -> None:
    assert not loaded("import sys, diptych.predict") & {"lightning_fabric", "sklearn", "scipy", "pyarrow"}


@pytest.mark.parametrize(("given", "kept"), [(None, "passive"), ("active", "active")])
def test_the_command_line_lets_waiting_threads_sleep(
    given: str | None, kept: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    if given is not None:
        monkeypatch.setenv("OMP_WAIT_POLICY", given)
    loaded(
        "import os, sys; from diptych.cli import main; main(['--version'])\n"
        f"assert os.environ['OMP_WAIT_POLICY'] == {kept!r}"
    )


def test_help_loads_nothing_heavy() -> None:
    calls = [["--help"], ["--version"], ["ls"], *([verb, "--help"] for verb in VERBS)]
    program = f"""
import sys
from diptych.cli import main
for call in {calls}:
    try:
        main(call)
    except SystemExit as end:
        assert not end.code, call
    heavy = {HEAVY} & set(sys.modules)
    assert not heavy, f"diptych {{' '.join(call)}} loads {{heavy}}"
"""
    loaded(program)


def test_module_entry_answers_like_the_command() -> None:
    command = [sys.executable, "-m", "diptych.cli", "--help"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert all(f"  {verb} " in done.stdout for verb in VERBS)


def test_only_data_sets_know_data_sets() -> None:
    package = ROOT / "src" / "diptych"
    demo = package / "cli" / "demo.py"  # shows one data set
    strangers = {
        f"{path.relative_to(package)}: {name}"
        for path in package.rglob("*.py")
        if path.relative_to(package).parts[0] != "datasets" and path != demo
        for name in re.findall(r"diptych\.datasets\.(\w+)", path.read_text(encoding="utf-8"))
        if (package / "datasets" / name).is_dir()
    }
    assert not strangers
