"""Reads the annotations, pictures and regions that `diptych check` examines, and keeps no example."""

import hashlib
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np

from diptych.boxes import doubts
from diptych.datasets import Data, Split, find_data
from diptych.errors import ConfigError, FormatError
from diptych.features import NamedStores
from diptych.images import open_image
from diptych.types import Example, Progress, RegionSource

SHOWN = 5  # examples listed per finding
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # first characters that spreadsheets evaluate
LONG_TEXT = 100  # words; the longest text of Hateful Memes has 70, and models usually read 128 tokens
AT_ONCE = 4096  # pictures that wait for a thread; each takes a kilobyte


@dataclass(slots=True)
class Tally:
    """How often something was found, and the first places."""

    count: int = 0
    first: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, places: Iterable[str]) -> "Tally":
        tally = cls()
        for place in places:
            tally.add(place)
        return tally

    def add(self, place: str) -> None:
        self.count += 1
        if len(self.first) < SHOWN:
            self.first.append(place)


@dataclass(slots=True)
class Counts:
    """What one pass over a split gives; 20 bytes per example, whatever its texts are.

    Args:
        labels: number of examples by label; an example may count for several.
        single: whether every label is one class.
        words: number of pairs by their number of words.
        ids: hash of the id of every example. Of 10 million ids, two have the same one in 1 of 370,000 runs.
        pictures: `Picture.number` of every picture of every example; `owners` are the rows of the examples.
    """

    labels: Counter[str] = field(default_factory=Counter)
    unlabeled: int = 0
    single: bool = True
    groups: Counter[str] = field(default_factory=Counter)
    words: Counter[int] = field(default_factory=Counter)
    ids: "array[int]" = field(default_factory=lambda: array("q"))
    pictures: "array[int]" = field(default_factory=lambda: array("i"))
    owners: "array[int]" = field(default_factory=lambda: array("i"))

    def label(self, example: Example) -> None:
        target = example.target
        if isinstance(target, Mapping):
            # A soft label counts where it is at least as likely as not.
            self.labels.update(name for name, score in target.items() if score >= 0.5)
            self.single = False
        elif target is not None:
            self.labels[str(target)] += 1
            self.single &= isinstance(target, str)
        self.unlabeled += target is None
        if example.group is not None:
            self.groups[example.group] += 1


@dataclass(slots=True)
class Picture:
    """A picture file, and the result of reading it: an error, or size and digest of the pixels.

    Args:
        key: image key; of several examples the last one.
        number: place among all pictures.
    """

    key: str
    number: int
    error: str = ""
    size: tuple[int, int] = (0, 0)
    digest: bytes = b""


@dataclass(frozen=True, slots=True)
class Seen:
    """What is checked of the regions of a picture; `doubts` are names in `diptych.boxes.DOUBTS`."""

    count: int
    size: tuple[int, int]
    doubts: tuple[str, ...]


@dataclass(slots=True)
class Folder:
    """What was read from a data set's folder.

    Args:
        examples: valid examples of every split, which are read from the disk whenever they are asked for.
        files: picture below the root by key, if pairs name none.
        pictures: every picture by its path below the root, in the order of the examples.
        clashes: the paths of keys that have several.
        hint: what to say about the spelling of the store's keys, if none of the pictures is found.
    """

    root: Path
    data: Data
    examples: dict[str, Split | Sequence[Example]] = field(default_factory=dict)
    counts: dict[str, Counts] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    problems: list[FormatError] = field(default_factory=list)
    pictures: dict[str, Picture] = field(default_factory=dict)
    first: dict[str, str] = field(default_factory=dict)
    clashes: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    formulas: Tally = field(default_factory=Tally)
    empty: Tally = field(default_factory=Tally)
    long: Tally = field(default_factory=Tally)
    regions: dict[str, Seen | FormatError | None] = field(default_factory=dict)
    hint: str = ""

    def count(self, split: str) -> Counts:
        """Go through the examples of a split once."""
        counts = Counts()
        for row, example in enumerate(self.examples[split]):
            # A hash of 8 bytes in place of the id: hash() differs from run to run, but is compared within one
            # only.
            counts.ids.append(hash(example.id))
            counts.label(example)
            self._words(split, example, counts)
            if example.id[:1] in FORMULA:
                self.formulas.add(example.id)
            for key, path in self._pictures_of(example):
                counts.pictures.append(self._number(key, path))
                counts.owners.append(row)
        return counts

    def _words(self, split: str, example: Example, counts: Counts) -> None:
        words = [len(f"{pair.text} {pair.text_b or ''}".split()) for pair in example.pairs]
        counts.words.update(words)
        most = max(words, default=0)
        if not most:
            self.empty.add(f"{split} {example.id}")
        if most > LONG_TEXT:
            self.long.add(f"{split} {example.id} ({most} words)")

    def _pictures_of(self, example: Example) -> Iterable[tuple[str, str]]:
        """Key and path below the root of every picture of an example."""
        for pair in example.pairs:
            keys = (pair.image,) if isinstance(pair.image, str) else pair.image or ()
            paths = pair.files or [self.files.get(key, key) for key in keys]
            yield from zip(keys, paths, strict=True)

    def _number(self, key: str, path: str) -> int:
        # `a/1.png` and `b/1.jpg` have the key "1" in feature stores, and would get each other's regions.
        if (other := self.first.setdefault(key, path)) != path:
            self.clashes[key].update((other, path))
        picture = self.pictures.get(path)
        if picture is None:
            picture = self.pictures[path] = Picture(key, len(self.pictures))
        picture.key = key
        return picture.number

    def paths_of(self, split: str, *, without: np.ndarray | None = None) -> list[str]:
        """The pictures of a split, each once, sorted.

        Args:
            without: hashes of ids of examples that do not count.
        """
        counts = self.counts[split]
        numbers = np.frombuffer(counts.pictures, np.int32)
        if without is not None:
            left_out = np.isin(np.frombuffer(counts.ids, np.int64), without)
            numbers = numbers[~left_out[np.frombuffer(counts.owners, np.int32)]]
        # A mark per picture and no set: a split may name a picture a hundred times.
        chosen = np.zeros(len(self.pictures), bool)
        chosen[numbers] = True
        return sorted(path for path, picture in self.pictures.items() if chosen[picture.number])


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
        folder.examples[split], problems = kind.lint(root, split, **settings)
        # Errors are collected and not raised: a check tells all of them.
        folder.problems += problems
        images: Mapping[str, Path] = getattr(folder.examples[split], "images", {})
        folder.files |= {key: str(path.relative_to(root)) for key, path in images.items()}
    folder.counts |= {split: folder.count(split) for split in folder.examples}
    return folder


def picture_files(root: Path, data: Data, splits: Sequence[str] | None = None) -> dict[str, Path]:
    """Find the pictures named in the annotations of a folder, by key."""
    pictures = open_folder(root, data, splits).pictures
    return {picture.key: root / path for path, picture in pictures.items()}


def read_pictures(folder: Folder, progress: Progress | None) -> None:
    """Read every picture once, in threads: decoding releases Python's global lock."""
    paths = sorted(folder.pictures)
    done = 0
    with ThreadPoolExecutor() as pool:
        for start in range(0, len(paths), AT_ONCE):
            window = paths[start : start + AT_ONCE]
            files = (folder.root / path for path in window)
            for _ in pool.map(_read_picture, files, (folder.pictures[path] for path in window)):
                done += 1
                if progress is not None:
                    progress(done, len(paths))


def _read_picture(path: Path, picture: Picture) -> None:
    try:
        image = open_image(path)
    except FormatError as error:
        picture.error = str(error)
        return
    # A digest, because the pixels of all pictures would not fit into memory.
    picture.size, picture.digest = image.size, hashlib.blake2b(image.tobytes(), digest_size=16).digest()


def read_regions(folder: Folder, features: RegionSource) -> None:
    """Read and verify the regions of every picture; None if the source has none."""
    if stores := folder.data.kind.stores:
        # The data set's keys name stores; the one that was given stands for all of them.
        features = NamedStores(dict.fromkeys(stores, features))
    for path, picture in folder.pictures.items():
        folder.regions[path] = _read_regions(path, picture.key, features)
    # If not a single picture is found, the store's keys are probably of another form.
    # Region sources need not have `keys`, and stores may have millions.
    keys = [*islice(getattr(features, "keys", tuple)(), 3)]
    if keys and all(result is None for result in folder.regions.values()):
        spelled = ", ".join(map(repr, keys))
        folder.hint = f" Its keys look like {spelled}, but file names without suffix are looked up."


def _read_regions(path: str, key: str, features: RegionSource) -> Seen | FormatError | None:
    try:
        regions = features[key] if key in features else None  # noqa: SIM401 (no `get`)
    except FormatError as error:
        return error
    if regions is None:
        return None
    try:
        # Stores verify on writing; other sources, such as boxes from a file, may hold anything.
        regions.verify()
    except FormatError as error:
        return FormatError(f"{path}: {error}")
    return Seen(len(regions), regions.size, doubts(regions.boxes, regions.size))
