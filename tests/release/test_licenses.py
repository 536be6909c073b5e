import json
import re
import runpy
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LICENSES = runpy.run_path(str(ROOT / "scripts" / "licenses.py"))
ROWS = LICENSES["rows"]()


def test_the_page_lists_every_distribution() -> None:
    """After a change of requirements: `make licenses`."""
    listed = dict(re.findall(r"^\| (\S+) \| \S+ \| (.+?) \|", LICENSES["PAGE"].read_text(), re.MULTILINE))
    assert {name: terms for name, _, terms, _ in ROWS}.items() <= listed.items()


def test_the_extras_are_those_of_the_project() -> None:
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert {*LICENSES["EXTRAS"]} == groups.keys() - {"dev", "docs"}  # these are no part of what a user runs


def test_licenses_are_known_and_permit_use() -> None:
    for name, _, terms, _ in ROWS:
        assert terms != "unknown", name
        assert "GPL" not in terms or name in LICENSES["PROGRAMS"], name


def test_the_bill_of_materials_is_complete(tmp_path: Path) -> None:
    for name in ("first.json", "second.json"):
        assert LICENSES["main"](["--sbom", str(tmp_path / name)]) == 0
    assert (tmp_path / "first.json").read_bytes() == (tmp_path / "second.json").read_bytes()
    bill = json.loads((tmp_path / "first.json").read_text())
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    known = {component["bom-ref"] for component in bill["components"]}
    assert len(known) == len(bill["components"]) == len(ROWS)
    edges = {entry["ref"]: entry["dependsOn"] for entry in bill["dependencies"]}
    assert edges.keys() == known | {bill["metadata"]["component"]["bom-ref"]}
    assert {need for needs in edges.values() for need in needs} <= known
    numpy = next(ref for ref in known if ref.startswith("pkg:pypi/numpy@"))
    assert numpy in edges[next(ref for ref in known if ref.startswith("pkg:pypi/scipy@"))]


def test_a_wrong_argument_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert LICENSES["main"](["--spdx"]) == 2
    assert "--sbom" in capsys.readouterr().err
