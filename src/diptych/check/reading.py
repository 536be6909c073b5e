"""Reads the annotations, pictures and regions that `diptych check` examines."""

import hashlib
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from diptych.datasets import Data, find_data
from diptych.errors import ConfigError, FormatError
from diptych.features import NamedStores
from diptych.images import open_image
from diptych.types import Example, Progress, Regions, RegionSource


@dataclass(slots=True)
class Picture:
    """Result of reading a picture: an error, or size and digest of the pixels."""

    error: str = ""
    size: tuple[int, int] = (0, 0)
    digest: bytes = b""


@dataclass(slots=True)
class Folder:
    """Everything that was read from a data set's folder."""

    root: Path
    data: Data
    examples: dict[str, list[Example]] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)  # picture below the root by key, if pairs name none
    problems: list[FormatError] = field(default_factory=list)
    pictures: dict[str, Picture] = field(default_factory=dict)
    regions: dict[str, Regions | FormatError | None] = field(default_factory=dict)
    keys: str = ""  # hint on the spelling of the store's keys, if none of the pictures is found


def open_folder(root: Path, data: Data | None, splits: Sequence[str] | None) -> Folder:
    """Read the annotations of a folder.

    Raises:
        ConfigError: the folder has no split.
    """
    folder = Folder(root, data or find_data(root))
    kind, settings = folder.data.kind, folder.data.settings
    names = splits or folder.data.splits(root)
    if not names:
        raise ConfigError(f"{root} has no split of {kind.name}. Is it the right folder?")
    for split in names:
        examples, problems = kind.lint(root, split, **settings)
        folder.examples[split] = list(examples)
        # Errors are collected and not raised: a check tells all of them.
        folder.problems += problems
        folder.files |= {
            key: str(path.relative_to(root)) for key, path in getattr(examples, "images", {}).items()
        }
    return folder


def picture_files(root: Path, data: Data, splits: Sequence[str] | None = None) -> dict[str, Path]:
    """Find the pictures named in the annotations of a folder, by key."""
    folder = open_folder(root, data, splits)
    every = (example for examples in folder.examples.values() for example in examples)
    return {key: root / path for example in every for key, path in pictures_of(folder, example)}


def pictures_of(folder: Folder, example: Example) -> list[tuple[str, str]]:
    """List key and path below the root for every picture of an example."""
    pictures: list[tuple[str, str]] = []
    for pair in example.pairs:
        keys = (pair.image,) if isinstance(pair.image, str) else pair.image or ()
        pictures += zip(keys, pair.files or [folder.files.get(key, key) for key in keys], strict=True)
    return pictures


def paths_of(folder: Folder, examples: Iterable[Example]) -> list[str]:
    """List the pictures of several examples, each once."""
    return sorted({path for example in examples for _, path in pictures_of(folder, example)})


def read_pictures(folder: Folder, progress: Progress | None) -> dict[str, Picture]:
    """Read every picture once, in threads: decoding releases Python's global lock."""
    paths = paths_of(folder, (example for examples in folder.examples.values() for example in examples))
    pictures: dict[str, Picture] = {}
    with ThreadPoolExecutor() as pool:
        for path, picture in zip(
            paths, pool.map(_read_picture, (folder.root / p for p in paths)), strict=True
        ):
            pictures[path] = picture
            if progress is not None:
                progress(len(pictures), len(paths))
    return pictures


def _read_picture(path: Path) -> Picture:
    try:
        image = open_image(path)
    except FormatError as error:
        return Picture(error=str(error))
    # A digest, because the pixels of all pictures would not fit into memory.
    return Picture(size=image.size, digest=hashlib.blake2b(image.tobytes(), digest_size=16).digest())


def read_regions(folder: Folder, features: RegionSource) -> dict[str, Regions | FormatError | None]:
    """Read and verify the regions of every picture; None if the source has none."""
    if stores := folder.data.kind.stores:
        # The data set's keys name stores; the one that was given stands for all of them.
        features = NamedStores(dict.fromkeys(stores, features))
    results: dict[str, Regions | FormatError | None] = {}
    every = (example for examples in folder.examples.values() for example in examples)
    # By path, so that a picture of many examples is looked up once.
    for path, key in {path: key for example in every for key, path in pictures_of(folder, example)}.items():
        try:
            results[path] = features[key] if key in features else None  # noqa: SIM401 (no `get`)
        except FormatError as error:
            results[path] = error
        if isinstance(regions := results[path], Regions):
            try:
                # Stores verify on writing; other sources, such as boxes from a file, may hold anything.
                regions.verify()
            except FormatError as error:
                results[path] = FormatError(f"{path}: {error}")
    # If not a single picture is found, the store's keys are probably of another form.
    # Region sources need not have `keys`, and stores may have millions.
    keys = [*islice(getattr(features, "keys", tuple)(), 3)]
    if keys and all(result is None for result in results.values()):
        spelled = ", ".join(map(repr, keys))
        folder.keys = f" Its keys look like {spelled}, but file names without suffix are looked up."
    return results
