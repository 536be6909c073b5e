"""Install the wheel in bare environments, one for each version of Python that this machine has, and use it.

python scripts/matrix.py                       Python 3.11 to 3.14, as far as they are found
python scripts/matrix.py --lowest              Python 3.11 with constraints-lowest.txt
python scripts/matrix.py --python 3.13         this one alone; may be repeated
python scripts/matrix.py --find-links FOLDER   also wheels of FOLDER, such as a torch for CPUs

Every environment gets the wheel and what it requires, nothing else; then `pip check`, `diptych --help`,
`diptych doctor` and a demo of 60 memes. A version that is not found is reported, never skipped in silence.
"""

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parent.parent
VERSIONS = ("3.11", "3.12", "3.13", "3.14")


def interpreter(version: str) -> str | None:
    """The path of a `python3.X` that really is one, of the command path or of pyenv."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    # pyenv's own names on the command path only print an error unless their version is selected
    found = [shutil.which(f"python{version}"), *sorted(pyenv.glob(f"{version}.*/bin/python{version}"))]
    question = "import sys; print('%d.%d' % sys.version_info[:2])"
    for path in map(str, filter(None, found)):
        done = subprocess.run([path, "-c", question], capture_output=True, text=True)
        if done.stdout.strip() == version:
            return path
    return None


def commands(python: Path, wheel: Path, constraints: Path, links: list[str], demo: Path) -> list[list[str]]:
    """What is run in an environment, in order."""
    diptych = str(python.with_name("diptych"))
    found = [word for link in links for word in ("--find-links", link)]
    pip = [str(python), "-m", "pip", "--disable-pip-version-check"]
    return [
        [*pip, "install", "--quiet", "-c", str(constraints), *found, str(wheel)],
        [*pip, "check"],
        [diptych, "--help"],
        [diptych, "doctor"],
        [diptych, "demo", "--out", str(demo), "--size", "60"],
    ]


def try_one(base: str, wheel: Path, constraints: Path, links: list[str]) -> str:
    """Run all commands with one interpreter; returns `passed`, or which command failed with what."""
    # PYTHONPATH may name a checkout, and the wheel is what is tried
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    with TemporaryDirectory() as folder:
        subprocess.run([base, "-m", "venv", f"{folder}/venv"], check=True)
        python = Path(folder) / "venv" / "bin" / "python"
        for command in commands(python, wheel, constraints, links, Path(folder) / "demo"):
            done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
            if done.returncode:
                last = (done.stderr.strip() or done.stdout.strip() or "no output").splitlines()[-1]
                return f"failed: {' '.join([Path(command[0]).name, *command[1:4]])}: {last}"
    return "passed"


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--lowest", action="store_true", help="the lowest versions, on Python 3.11")
    parser.add_argument("--python", action="append", choices=VERSIONS)
    parser.add_argument("--find-links", action="append", default=[], metavar="FOLDER")
    options = parser.parse_args(argv)
    wheels = sorted((ROOT / "dist").glob("diptych-*.whl"), key=lambda path: path.stat().st_mtime)
    if not wheels:
        sys.stderr.write("dist/ has no wheel; make one with `make package`.\n")
        return 2
    constraints = ROOT / ("constraints-lowest.txt" if options.lowest else "constraints.txt")
    failed = False
    for version in options.python or (VERSIONS[:1] if options.lowest else VERSIONS):
        base = interpreter(version)
        result = "not on this machine" if base is None else try_one(
            base, wheels[-1], constraints, options.find_links
        )  # fmt: skip
        failed |= result.startswith("failed")
        sys.stdout.write(f"Python {version}: {result}\n")
        sys.stdout.flush()
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
