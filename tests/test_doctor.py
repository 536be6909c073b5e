import importlib
import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

from diptych import doctor
from diptych.doctor import EXTRAS, MODULES, Diagnosis, Entry, Extra, Section, core, diagnose


def finding(diagnosis: Diagnosis, name: str) -> Entry:
    return next(f for section in diagnosis.sections for f in section.entries if f.name.startswith(name))


@pytest.mark.slow
def test_this_machine_is_diagnosed(tmp_path: Path) -> None:
    diagnosis = diagnose(tmp_path / "not" / "yet" / "there")
    assert [section.title for section in diagnosis.sections] == ["versions", "devices", "options"]
    assert finding(diagnosis, "torch").value[0].isdigit()
    assert "Python 3." in finding(diagnosis, "diptych").value
    assert "threads" in finding(diagnosis, "processor").value
    assert finding(diagnosis, "floret").status == "ok"
    assert finding(diagnosis, f"free space in {tmp_path}").value.endswith(" GB")
    json.dumps(diagnosis.as_dict())


def test_tables_agree_with_the_project() -> None:
    text = (Path(__file__).parent.parent / "pyproject.toml").read_text(encoding="utf-8")
    project = tomllib.loads(text)["project"]
    assert {line.split(">")[0] for line in project["dependencies"]} >= set(MODULES)
    assert {extra.group for extra in EXTRAS if extra.group} == set(project["optional-dependencies"]) - {
        "dev",
        "docs",
    }


def test_what_diptych_needs_is_read_from_its_metadata(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = ["pyyaml>=6", "scipy>=1.13", "no-such-thing>=1", "h5py>=3; extra == 'hdf5'", "tokenizers (>=0.2)"]
    monkeypatch.setattr(doctor, "requires", lambda _: lines)
    assert core() == ["pyyaml", "scipy", "no-such-thing", "tokenizers"]
    assert [finding(diagnose(), name).status for name in core()] == ["ok", "ok", "problem", "ok"]


def test_missing_option_names_the_install(monkeypatch: pytest.MonkeyPatch) -> None:
    absent = Extra(module="no_such_module", distribution="no-such-thing", group="fasttext", purpose="wonders")
    monkeypatch.setattr(doctor, "EXTRAS", (absent,))
    found = finding(diagnose(), "no-such-thing (wonders)")
    assert (found.status, found.value) == ("missing", "not installed")
    assert found.advice == 'pip install "diptych[fasttext]"'
    assert Extra(module="w", distribution="wandb", group="", purpose="logs").install == "pip install wandb"
    assert diagnose().healthy, "a missing option is no problem"


def test_library_that_does_not_load_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.import_module

    def broken(name: str) -> Any:
        if name in ("pyarrow", "matplotlib"):
            raise RuntimeError("operator does not exist\nand more")
        return real(name)

    monkeypatch.setattr(doctor, "import_module", broken)
    diagnosis = diagnose()
    assert not diagnosis.healthy
    assert finding(diagnosis, "pyarrow").value.endswith("but does not load: operator does not exist")
    assert finding(diagnosis, "pyarrow").status == "problem"
    assert finding(diagnosis, "matplotlib").status == "missing"


def test_full_disk_is_a_problem(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(doctor, "LOW_DISK", 10**9)
    found = finding(diagnose(tmp_path), "free space")
    assert found.status == "problem"
    assert "out=" in found.advice


def test_lines_mark_what_needs_attention() -> None:
    entries = (
        Entry(name="a", value="1"),
        Entry(name="long", value="2", status="problem", advice="mend"),
    )
    option = Entry(name="o", value="not installed", status="missing", advice="pip install o")
    sections = (Section(title="one", entries=entries), Section(title="two", entries=(option,)))
    assert Diagnosis(sections=sections).lines() == [
        "one",
        "  a     1",
        "! long  2   mend",
        "",
        "two",
        "- o     not installed   pip install o",
    ]
