"""Where weights come from: a path, `hub:owner/name`, `https://...`, or a name of the list of public files.

What is downloaded stays in `~/.cache/diptych`, or in the folder that DIPTYCH_CACHE names.
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
from diptych.errors import ConfigError, FormatError, nearest
from diptych.files import atomic_folder

Progress = Callable[[int, int], None]
HUB = re.compile(r"hub:(?P<repo>[\w.-]+/[\w.-]+)(@(?P<revision>[^/]+))?(/(?P<file>.+))?")
WHOLE = ("config.json", "vocab.txt", "*.safetensors", "*.safetensors.index.json")  # of a hub repository
OLDER = ("config.json", "vocab.txt", "pytorch_model*.bin", "pytorch_model.bin.index.json")
ATTEMPTS, BLOCK, SECONDS = 3, 1 << 20, 30


def checkpoints() -> dict[str, dict[str, Any]]:
    """The list of public files by name: family, source, size, SHA-256, and what is known of the link."""
    content = yaml.safe_load((Path(__file__).parent / "checkpoints.yaml").read_text(encoding="utf-8"))
    assert isinstance(content, dict)
    return content


def find(source: Path | str, *, progress: Progress | None = None) -> Path:
    """The local file or folder that a source names, downloaded where it has to be.

    Args:
        source: a path; `hub:owner/name`, with `@revision` and `/file` where wanted; an address, with
            `#sha256=...` where known; a name of the list.
        progress: called with bytes done and bytes in all.

    Raises:
        ConfigError: there is no such path or name, a link is dead, or the extra `hub` is not installed.
        FormatError: a download broke off, or is not what it should be.
    """
    text = str(source)
    listed = checkpoints()
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
        f"{text}: no such file or folder, and no name of the list of public checkpoints.{hint} "
        "Sources are paths, hub:owner/name, https://..., and what `diptych convert --list` names."
    )


def download(
    url: str, *, sha256: str | None = None, size: int | None = None, progress: Progress | None = None
) -> Path:
    """The file behind an address, from the cache if it is there; what broke off is continued.

    Args:
        sha256: of the file, checked where given; `size` in bytes likewise.

    Raises:
        ConfigError: the link is dead or the server cannot be reached.
        FormatError: the connection broke again and again, or size or SHA-256 are others than expected.
    """
    folder = cache() / hashlib.sha256(url.encode()).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / (Path(unquote(urlsplit(url).path)).name or "download")
    part = folder / "download.part"
    with FileLock(folder / "lock"):
        if not path.exists():
            for _ in range(ATTEMPTS):
                if _continue(url, part, progress):
                    break
            else:
                raise FormatError(
                    f"{url}: the connection broke {ATTEMPTS} times, after {part.stat().st_size:,} bytes. "
                    "The same command continues there."
                )
            _check(url, part, sha256=sha256, size=size)
            part.replace(path)
        elif sha256 is not None:
            _check(url, path, sha256=sha256, size=size)
    return path


def cache() -> Path:
    """The folder of downloads."""
    return Path(os.environ.get("DIPTYCH_CACHE") or Path.home() / ".cache" / "diptych")


def _find_listed(name: str, listed: Mapping[str, Mapping[str, Any]], progress: Progress | None) -> Path:
    entry = listed[name]
    source = entry["source"]
    try:
        if source.startswith("hub:"):
            return _from_hub(source)
        if not source.startswith(("http://", "https://")):
            raise ConfigError("no program can download it.")
        return _unpacked(
            download(source, sha256=entry.get("sha256"), size=entry.get("bytes"), progress=progress)
        )
    except ConfigError as error:
        others = [
            other for other, one in listed.items() if one["family"] == entry["family"] and other != name
        ]
        raise ConfigError(
            f"{name}: {error} The list says: {entry['status']}. Others of the family: "
            f"{', '.join(others) or 'none'}. If you have the file, give its path."
        ) from error


def _continue(url: str, part: Path, progress: Progress | None) -> bool:
    """Fetch what is missing; False when the connection broke."""
    tag, done = part.with_suffix(".etag"), part.stat().st_size if part.exists() else 0
    headers = {"User-Agent": "diptych"}
    if done and tag.exists():  # without If-Range, another file could be appended
        headers |= {"Range": f"bytes={done}-", "If-Range": tag.read_text(encoding="utf-8")}
    try:
        with urlopen(Request(url, headers=headers), timeout=SECONDS) as answer:
            return _receive(answer, part, tag, progress)
    except HTTPError as error:
        if error.code == 416:  # what we have is not a beginning of what is there
            part.unlink()
            return False
        raise ConfigError(f"{url} cannot be had: HTTP {error.code} {error.reason}.") from error
    except URLError as error:
        raise ConfigError(f"{url} cannot be reached: {error.reason}.") from error
    except (OSError, HTTPException):  # in the middle of the file
        return False


def _receive(answer: HTTPResponse, part: Path, tag: Path, progress: Progress | None) -> bool:
    resumed = answer.status == 206
    done = part.stat().st_size if resumed else 0
    length = answer.headers.get("Content-Length") or ""
    total = done + int(length) if length.isascii() and length.isdecimal() and len(length) < 20 else None
    # weak tags and missing ones cannot tell whether a file is still the same
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
    return total is None or done == total


def _check(url: str, part: Path, *, sha256: str | None, size: int | None) -> None:
    """What is not the expected file is removed, so that the next attempt starts afresh."""
    with open(part, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    for what, got, expected in (("bytes", part.stat().st_size, size), ("SHA-256", digest, sha256)):
        if expected is not None and str(got) != str(expected).lower():
            part.unlink()
            raise FormatError(
                f"{url}: {what} {got}; expected {expected}. The file was removed; download it again, or "
                "correct the expectation if you trust the source."
            )


def _unpacked(path: Path) -> Path:
    """The folder of an archive's content; other files as they are, torch's own archives among them."""
    folder = path.parent / "unpacked"
    if folder.exists():
        return folder
    with guarded(path, "an archive that can be unpacked"):
        if tarfile.is_tarfile(path):
            with tarfile.open(path) as tar:
                names = tar.getnames()
                require_room(path, sum(member.size for member in tar.getmembers()))
                if not {"storages", "tensors", "pickle"} <= set(names):
                    with atomic_folder(folder) as beside:
                        tar.extractall(beside, filter="data")
                    return folder
        elif zipfile.is_zipfile(path):
            with open_archive(path) as archive:
                if not any(name.endswith(("data.pkl", ".npy")) for name in archive.namelist()):
                    with atomic_folder(folder) as beside:
                        archive.extractall(beside)
                    return folder
    return path


def _from_hub(text: str) -> Path:
    """A repository of the Hugging Face hub, or one file of it; HF_ENDPOINT names another server."""
    found = HUB.fullmatch(text)
    if found is None:
        raise ConfigError(f"{text}: expected hub:owner/name, with @revision and /file where wanted.")
    try:
        from huggingface_hub import HfApi
    except ImportError as error:
        raise ConfigError(f'{text} needs huggingface_hub: pip install "diptych[hub]".') from error
    api = HfApi(endpoint=os.environ.get("HF_ENDPOINT"))
    place: dict[str, Any] = {"repo_id": found["repo"], "revision": found["revision"]}
    place["cache_dir"] = cache() / "hub"
    try:
        if found["file"] is not None:
            return Path(api.hf_hub_download(filename=found["file"], **place))
        names = api.list_repo_files(found["repo"], revision=found["revision"])
        patterns = WHOLE if any(name.endswith(".safetensors") for name in names) else OLDER
        return Path(api.snapshot_download(allow_patterns=list(patterns), **place))
    except Exception as error:  # the client's own, and those of whatever it speaks HTTP with
        for patterns in () if found["file"] else (WHOLE, OLDER):
            with suppress(Exception):  # what was downloaded before serves without a network
                kept = api.snapshot_download(allow_patterns=list(patterns), local_files_only=True, **place)
                if any(Path(kept).glob(patterns[2])):
                    return Path(kept)
        raise ConfigError(
            f"{text} cannot be had: {str(error).splitlines()[0]}. If you have the files, give their path."
        ) from error
