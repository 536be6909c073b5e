"""What a result was made of, as checksums: a file with another content is noticed when work goes on."""

import json
from collections.abc import Iterable, Mapping
from hashlib import file_digest, sha256
from pathlib import Path
from typing import Any

INDEX = "index.arrow"  # only feature stores have it


def digest(content: Any) -> str:
    """SHA-256 of plain values."""
    return sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def file_checksum(path: Path) -> str:
    """SHA-256 of a file, or of the files of a folder with their names."""
    if path.is_dir():
        files = sorted(one for one in path.rglob("*") if one.is_file())
        return digest([[one.relative_to(path).as_posix(), file_checksum(one)] for one in files])
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


def checksums(paths: Iterable[Path]) -> dict[str, str]:
    """By path: of a feature store the checksum that it has of its content, else `file_checksum`."""
    return {str(path): _store_checksum(path) or file_checksum(path) for path in paths}


def picture_checksum(images: Mapping[str, Any]) -> str:
    """Of the names and sizes of picture files. Their content is not read: that takes as long as training.

    Args:
        images: picture files by key; others, such as Pillow images, do not count.
    """
    files = {key: Path(one) for key, one in images.items() if isinstance(one, str | Path)}
    return digest(sorted([key, one.name, one.stat().st_size] for key, one in files.items() if one.is_file()))


def _store_checksum(path: Path) -> str | None:
    if not (path / INDEX).is_file():
        return None
    from diptych.features import FeatureStore  # which loads pyarrow

    return FeatureStore(path).meta.checksum
