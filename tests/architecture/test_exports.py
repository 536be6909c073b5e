import ast
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2] / "src"
PLAIN = {"diptych.cli", "diptych.conf"}  # the command line, and a folder of YAML
PACKAGES = {
    ".".join(path.parent.relative_to(ROOT).parts): path
    for path in sorted(ROOT.glob("diptych/**/__init__.py"))
}


@pytest.mark.parametrize("name", sorted(PACKAGES.keys() - PLAIN))
def test_all_is_what_the_package_offers(name: str) -> None:
    package = importlib.import_module(name)
    assert len(package.__all__) == len(set(package.__all__))
    missing = [entry for entry in package.__all__ if getattr(package, entry, None) is None]
    assert not missing
    body = ast.parse(PACKAGES[name].read_text(encoding="utf-8")).body
    offered = {node.name for node in body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    for node in ast.walk(ast.Module(body, [])):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(f"{name}."):
            offered |= {alias.asname or alias.name for alias in node.names}
    assert {entry for entry in offered if not entry.startswith("_")} == set(package.__all__)


def test_modules_have_no_all_of_their_own() -> None:
    for path in ROOT.rglob("*.py"):
        if path.name != "__init__.py":
            assert "__all__" not in path.read_text(encoding="utf-8"), path
