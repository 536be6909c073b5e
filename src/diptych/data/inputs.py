"""Checksums of the inputs of a run, so that resumed work notices a file that has changed."""

import json
from collections.abc import Iterable, Mapping
from hashlib import file_digest, sha256
from pathlib import Path
from typing import Any

from diptych.images import picture_bytes

INDEX = "index.arrow"  # the file that marks a folder as a feature store


def digest(content: Any) -> str:
    """SHA-256 of plain values (whatever JSON can hold); the order of keys does not matter."""
    return sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def file_checksum(path: Path) -> str:
    """SHA-256 of a file, or of all files of a folder with their names."""
    if path.is_dir():
        # Sorted, because file systems list files in different orders; with names,
        # so that swapped files differ.
        files = sorted(file for file in path.rglob("*") if file.is_file())
        return digest([[file.relative_to(path).as_posix(), file_checksum(file)] for file in files])
    with path.open("rb") as stream:
        return file_digest(stream, "sha256").hexdigest()


def checksums(paths: Iterable[Path]) -> dict[str, str]:
    """Map each path to its checksum: `file_checksum`, or for a feature store the checksum in its metadata."""
    return {str(path): _store_checksum(path) or file_checksum(path) for path in paths}


def picture_checksum(images: Mapping[str, Any]) -> str:
    """SHA-256 of the names and sizes of picture files; reading their content would take as long as training.

    Args:
        images: picture files by key, also in archives. Opened pictures and missing files are left out.

    Raises:
        FormatError: an archive is damaged.
    """
    files = {key: Path(image) for key, image in images.items() if isinstance(image, str | Path)}
    sizes = ((key, file.name, picture_bytes(file)) for key, file in files.items())
    # Not where a file is: a run goes on after its archive was unpacked.
    return digest(sorted([key, name, size] for key, name, size in sizes if size is not None))


def _store_checksum(path: Path) -> str | None:
    # A store was summed up once when it was written; reading its gigabytes for every run would take minutes.
    if not (path / INDEX).is_file():
        return None
    from diptych.features import FeatureStore  # loads pyarrow

    return FeatureStore(path).meta.checksum
