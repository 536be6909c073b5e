import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FORBIDDEN = {"img", "imgs", "feat", "feats", "cfg", "ckpt", "utils", "helpers"}
MACHINE_PATH = re.compile(r"(?<![\w.])/(?:work|home|Users|root|mnt|data)/\w")


def names_given(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Every name that a file gives: to variables, attributes, arguments, functions, classes.

    Names that others gave, such as the fields of a file format, are used and not given.
    """
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name, ctx=ast.Store()):
                yield name, node.lineno
            case ast.Attribute(value=ast.Name(id="self"), attr=name, ctx=ast.Store()):
                yield name, node.lineno
            case ast.arg(arg=name) | ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                yield name, node.lineno


@pytest.mark.parametrize("folder", ["src", "bench", "scripts"])
def test_words_are_never_shortened(folder: str) -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line} {name}"
        for path in (ROOT / folder).rglob("*.py")
        for name, line in names_given(ast.parse(path.read_text(encoding="utf-8")))
        if FORBIDDEN & set(name.lower().split("_"))
    ]
    assert not found


def test_no_module_is_a_drawer() -> None:
    assert not [path for path in (ROOT / "src").rglob("*.py") if FORBIDDEN & set(path.stem.split("_"))]


def test_code_is_ascii_except_in_strings() -> None:
    for path in (ROOT / "src").rglob("*.py"):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            comment = line.partition("#")[2] if '"' not in line else ""
            assert comment.isascii(), f"{path}:{number}"


def tracked() -> list[Path]:
    """Text files under version control; all files where there is no git."""
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    names = [name for name in done.stdout.split("\0") if name]
    return [ROOT / name for name in names if (ROOT / name).suffix not in (".png", ".safetensors", ".bin")]


def test_no_file_names_a_machine() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number} {line.strip()[:80]}"
        for path in tracked()
        if path.is_file() and path != Path(__file__)
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1)
        if MACHINE_PATH.search(line)
    ]
    assert not found
