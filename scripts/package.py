"""Build sdist and wheel twice and compare the bytes, so that anybody can check a release against its source.

python scripts/package.py              write dist/
python scripts/package.py FOLDER       write FOLDER

The second build is made of the unpacked sdist, elsewhere, at another time: a file that depends on the folder,
on the clock or on git, or that the sdist lacks, makes another wheel.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parent.parent


def build(source: Path, out: Path) -> dict[str, str]:
    """Build sdist and wheel of `source` into `out`; returns the SHA-256 by file name."""
    command = [sys.executable, "-m", "hatchling", "build", "-d", str(out.absolute())]
    # a checkout may set it; without it, hatchling stamps every file with one date of its own
    environment = {name: value for name, value in os.environ.items() if name != "SOURCE_DATE_EPOCH"}
    done = subprocess.run(command, cwd=source, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"hatchling failed in {source}:\n{done.stderr}")
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(out.glob("diptych-*"))
    }


def build_twice(out: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Build into the new folder `out`, then again from the sdist; returns the checksums of both."""
    out.mkdir(parents=True)
    first = build(ROOT, out)
    with TemporaryDirectory() as folder, tarfile.open(next(out.glob("*.tar.gz"))) as archive:
        archive.extractall(folder, filter="data")
        source = next(path for path in Path(folder).iterdir() if path.is_dir())
        for path in source.rglob("*"):
            os.utime(path, (time.time(), time.time()))
        return first, build(source, Path(folder) / "again")


def main(argv: list[str]) -> int:
    out = Path(argv[0]) if argv else ROOT / "dist"
    beside = out.with_name(f".{out.name}.part")
    shutil.rmtree(beside, ignore_errors=True)
    try:
        first, second = build_twice(beside)
        if first != second:
            different = sorted({name for name, _ in first.items() ^ second.items()})
            sys.stderr.write(f"two builds differ in {', '.join(different)}; nothing was written.\n")
            return 1
        out.mkdir(parents=True, exist_ok=True)
        for name, digest in first.items():
            (beside / name).replace(out / name)
            sys.stdout.write(f"{digest}  {out / name}\n")
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
