import os
import re
import runpy
import subprocess
import sys
import tomllib
import venv
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = runpy.run_path(str(ROOT / "scripts" / "package.py"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))

Built = tuple[Path, dict[str, str], dict[str, str]]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """The folder of sdist and wheel, and the checksums of two builds."""
    out = tmp_path_factory.mktemp("dist") / "dist"
    return (out, *PACKAGE["build_twice"](out))


@pytest.fixture(scope="module")
def site(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment into which the wheel is unpacked, with the libraries of this one."""
    folder = tmp_path_factory.mktemp("site") / "venv"
    venv.create(folder, with_pip=False)
    packages = next(folder.glob("lib/python*/site-packages"))
    with zipfile.ZipFile(next(built[0].glob("*.whl"))) as wheel:
        wheel.extractall(packages)
    # after the wheel's own folder, so that the checkout installed there is not seen
    own = next(path for path in map(Path, sys.path) if (path / "torch").is_dir())
    (packages / "libraries.pth").write_text(f"{own}\n")
    return folder


def outside(*command: str | Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a program in `folder`; PYTHONPATH may name this checkout, and the wheel is what is tested."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment)


@pytest.mark.slow
def test_two_builds_have_the_same_bytes(built: Built) -> None:
    _, first, second = built
    assert {Path(name).suffix for name in first} == {".gz", ".whl"}
    assert first == second


@pytest.mark.slow
def test_the_wheel_holds_every_file_of_the_package(built: Built) -> None:
    with zipfile.ZipFile(next(built[0].glob("*.whl"))) as wheel:
        names = set(wheel.namelist())
    package = ROOT / "src" / "diptych"
    here = {
        path.relative_to(ROOT / "src").as_posix()
        for path in package.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert here == {name for name in names if name.startswith("diptych/")}
    assert any(name.endswith("licenses/LICENSE") for name in names)


@pytest.mark.slow
def test_an_installed_wheel_runs(site: Path, tmp_path: Path) -> None:
    program = (
        "import diptych, sys; from diptych.cli import main; print(diptych.__file__); main(['ls', 'model'])"
    )
    done = outside(site / "bin" / "python", "-c", program, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert str(site) in done.stdout.splitlines()[0]
    assert "uniter_tiny" in done.stdout  # from the YAML files within the wheel


@pytest.mark.slow
def test_a_project_that_uses_diptych_is_type_checked(site: Path, tmp_path: Path) -> None:
    (tmp_path / "use.py").write_text(
        "import diptych\nfrom diptych.errors import nearest\n"
        "reveal_type(diptych.load('runs/mine'))\n"
        "reveal_type(nearest('trian', ['train']))\n"
        "nearest(3, ['train'])\n"
    )
    # what is asked is whether types reach the project; reading all modules, and torch, takes a minute
    (tmp_path / "mypy.ini").write_text(
        "[mypy]\nfollow_imports = skip\n"
        "[mypy-diptych,diptych.errors,diptych.predict,diptych.predict.predictor]\nfollow_imports = silent\n"
    )
    done = outside(
        sys.executable, "-m", "mypy", "--python-executable", site / "bin" / "python", "use.py",
        "--cache-dir", tmp_path / "cache", folder=tmp_path,
    )  # fmt: skip
    found = re.findall(r"use\.py:(\d+): (\w+): (.*)", done.stdout)
    assert [line for line, *_ in found] == ["3", "4", "5"], done.stdout + done.stderr
    assert "diptych.predict.predictor.Predictor" in found[0][2]
    assert '"str"' in found[1][2]
    assert found[2][1] == "error"
    assert "arg-type" in found[2][2]


def test_the_version_is_the_same_everywhere() -> None:
    own = PROJECT["project"]["version"]
    assert own == version("diptych")
    assert f'__version__ = "{own}"' in (ROOT / "src/diptych/__init__.py").read_text(encoding="utf-8")
    assert f"version: {own}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")


def bounds(text: str) -> dict[str, str]:
    return dict(re.findall(r"^([\w.-]+)==(\S+)$", text, re.MULTILINE))


def test_the_lowest_versions_are_those_of_the_project() -> None:
    lowest = bounds((ROOT / "constraints-lowest.txt").read_text(encoding="utf-8"))
    for requirement in PROJECT["project"]["dependencies"]:
        name, _, least = requirement.partition(">=")
        if name != "torch":  # the file says why
            assert re.fullmatch(rf"{re.escape(least)}(\.0)*", lowest[name]), requirement


def test_every_extra_has_tested_versions() -> None:
    pinned = {name.lower().replace("_", "-") for name in bounds((ROOT / "constraints.txt").read_text())}
    for extra, requirements in PROJECT["project"]["optional-dependencies"].items():
        names = [re.match(r"[\w.-]+", line)[0].lower().replace("_", "-") for line in requirements]
        assert {*names} - {"diptych"} <= pinned, extra
