"""Lint a Hateful-Memes-style folder before a model reads it: every problem, and what to do about it."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import combinations, islice
from pathlib import Path
from statistics import median
from typing import Literal

from diptych.boxes import DOUBTS, doubts
from diptych.data.images import open_image
from diptych.datasets.hateful_memes import KNOWN_OVERLAP, LABELS, DuplicateId, Meme, read_memes, split_path
from diptych.errors import ConfigError, FormatError
from diptych.types import Regions, RegionSource

Severity = Literal["error", "warning", "note"]
Progress = Callable[[int, int], None]
Spread = tuple[int, int, int]
SHOWN = 5
FORMULA = ("=", "+", "-", "@", "\t", "\r")
SPLIT_PREFIXES = ("train", "dev", "val", "test")  # other JSON lines may lie beside the splits
LONG_TEXT = 100  # words; the longest text of the challenge has 70, and 128 tokens are what models read
TINY_SIDE = 16  # pixels
UNBALANCED = 0.1  # share of the rarer label


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One kind of problem.

    Args:
        count: how often it occurs; `examples` are the first of them.
        advice: what to do.
    """

    severity: Severity
    what: str
    count: int
    examples: tuple[str, ...]
    advice: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitSummary:
    """One split in numbers.

    Args:
        labels: number of memes by label name, and `unlabeled`.
        words: of the texts; `widths` and `heights` of the pictures that can be read; `regions` per picture.
            Each is the least, the median and the most, or None where there is nothing to count.
    """

    split: str
    memes: int
    pictures: int
    labels: dict[str, int]
    words: Spread | None
    widths: Spread | None
    heights: Spread | None
    regions: Spread | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckReport:
    """All findings, worst first, and a row per split."""

    root: Path
    findings: tuple[Finding, ...]
    splits: tuple[SplitSummary, ...]

    @property
    def ok(self) -> bool:
        """Whether there is no error; warnings and notes do not count."""
        return not any(finding.severity == "error" for finding in self.findings)


@dataclass(slots=True)
class _Picture:
    """What reading a file gave: an error, or size and digest of the pixels."""

    error: str = ""
    size: tuple[int, int] = (0, 0)
    digest: bytes = b""


@dataclass(slots=True)
class _Folder:
    """Everything that was read."""

    root: Path
    memes: dict[str, list[Meme]] = field(default_factory=dict)
    problems: list[FormatError] = field(default_factory=list)
    pictures: dict[str, _Picture] = field(default_factory=dict)
    regions: dict[str, Regions | FormatError | None] = field(default_factory=dict)
    keys: str = ""  # how those of the store are spelled, where none is found


def check(
    root: Path | str,
    *,
    features: RegionSource | None = None,
    splits: Sequence[str] | None = None,
    progress: Progress | None = None,
) -> CheckReport:
    """Look at annotations, pictures and regions of a folder; change nothing.

    Args:
        features: regions that the pictures should have.
        splits: annotation files to read; all of the folder by default, answers files apart.
        progress: called with the number of pictures read, and of all.

    Raises:
        ConfigError: the folder or a split does not exist.
    """
    folder = _Folder(Path(root))
    for split in splits or _all_splits(folder.root):
        folder.memes[split], problems = read_memes(split_path(folder.root, split))
        folder.problems += problems
    folder.pictures = _read_pictures(folder, progress)
    if features is not None:
        folder.regions = _read_regions(folder, features)
    findings = [
        *_record_findings(folder),
        *_picture_findings(folder),
        *_overlap_findings(folder),
        *_text_findings(folder),
        *_label_findings(folder),
        *_feature_findings(folder),
    ]
    order: list[Severity] = ["error", "warning", "note"]
    return CheckReport(
        root=folder.root,
        findings=tuple(sorted(findings, key=lambda finding: order.index(finding.severity))),
        splits=tuple(_summary(folder, split) for split in folder.memes),
    )


def picture_files(root: Path, splits: Sequence[str] | None = None) -> dict[str, Path]:
    """The pictures that the annotations of a folder name, by key."""
    memes = (meme for split in splits or _all_splits(root) for meme in read_memes(split_path(root, split))[0])
    return {meme.key: root / meme.image for meme in memes}


def _all_splits(root: Path) -> list[str]:
    if not root.is_dir():
        raise ConfigError(
            f"{root} is not a folder; expected one with img/ and train.jsonl, dev_seen.jsonl, ..."
        )
    names = [path.stem for path in sorted(root.glob("*.jsonl"))]
    found = [name for name in names if name.startswith(SPLIT_PREFIXES) and not name.endswith(".answers")]
    if not found:
        raise ConfigError(f"{root} holds no annotation file; expected train.jsonl, dev_seen.jsonl, ...")
    return found


def _finding(severity: Severity, what: str, examples: Iterable[str], advice: str) -> list[Finding]:
    """A list of one finding, or of none when there are no examples."""
    all_examples = list(examples)
    if not all_examples:
        return []
    shown = tuple(all_examples[:SHOWN])
    return [Finding(severity=severity, what=what, count=len(all_examples), examples=shown, advice=advice)]


def _read_pictures(folder: _Folder, progress: Progress | None) -> dict[str, _Picture]:
    """Read every picture once. Decoding happens outside Python's lock, so threads help."""
    paths = sorted({meme.image for memes in folder.memes.values() for meme in memes})
    pictures: dict[str, _Picture] = {}
    with ThreadPoolExecutor() as pool:
        for path, picture in zip(
            paths, pool.map(_read_picture, (folder.root / p for p in paths)), strict=True
        ):
            pictures[path] = picture
            if progress is not None:
                progress(len(pictures), len(paths))
    return pictures


def _read_picture(path: Path) -> _Picture:
    try:
        image = open_image(path)
    except FormatError as error:
        return _Picture(error=str(error))
    return _Picture(size=image.size, digest=hashlib.blake2b(image.tobytes(), digest_size=16).digest())


def _record_findings(folder: _Folder) -> list[Finding]:
    repeated = [problem for problem in folder.problems if isinstance(problem, DuplicateId)]
    broken = [problem for problem in folder.problems if not isinstance(problem, DuplicateId)]
    return [
        *_finding("error", "records that cannot be read", map(str, broken), "Repair or remove these lines."),
        *_finding(
            "error", "ids that occur twice in a split", map(str, repeated), "Give each meme its own id."
        ),
        *_finding(
            "warning",
            "ids that a spreadsheet takes for formulas",
            (meme.id for memes in folder.memes.values() for meme in memes if meme.id[:1] in FORMULA),
            "Do not open prediction files with them in a spreadsheet; they are written as they are.",
        ),
        *_finding(
            "error",
            "splits without a single meme",
            (split for split, memes in folder.memes.items() if not memes),
            "Is the file cut off?",
        ),
    ]


def _picture_findings(folder: _Folder) -> list[Finding]:
    bad = [picture.error for picture in folder.pictures.values() if picture.error]
    tiny = [
        f"{path} ({picture.size[0]} x {picture.size[1]})"
        for path, picture in folder.pictures.items()
        if not picture.error and min(picture.size) < TINY_SIDE
    ]
    paths: dict[str, set[str]] = defaultdict(set)
    for path in folder.pictures:
        paths[Path(path).stem].add(path)
    clashes = [f"{key}: {', '.join(sorted(files))}" for key, files in paths.items() if len(files) > 1]
    return [
        *_finding(
            "error",
            "pictures that are missing or cannot be read",
            bad,
            "Get these files again, or shrink them.",
        ),
        *_finding("warning", f"pictures under {TINY_SIDE} pixels", tiny, "Are they placeholders?"),
        *_finding(
            "error",
            "different pictures with the same key",
            clashes,
            "Features are found by file name; give every picture its own.",
        ),
    ]


def _overlap_findings(folder: _Folder) -> list[Finding]:
    findings = []
    for one, other in combinations(folder.memes, 2):
        by_id = {meme.id for meme in folder.memes[one]} & {meme.id for meme in folder.memes[other]}
        rest = [[meme for meme in folder.memes[split] if meme.id not in by_id] for split in (one, other)]
        known = {one, other} == KNOWN_OVERLAP
        names = f"{one} and {other}"
        findings += _finding(
            "note" if known else "error",
            f"memes in both {names}",
            sorted(by_id),
            "Known of this benchmark; do not train on one and evaluate on the other."
            if known
            else "Remove them from one split, or scores on it mean nothing.",
        )
        findings += _finding(
            "warning",
            f"pictures in both {names}",
            _same_pictures(folder, *rest),
            "Scores on them are flattering; leave them out of one split. Equal pixels count, not names.",
        )
    return findings


def _same_pictures(folder: _Folder, ones: list[Meme], others: list[Meme]) -> list[str]:
    """Pairs of files with equal pixels, or the same file."""
    theirs: dict[object, str] = {_identity(folder, meme.image): meme.image for meme in others}
    images = sorted({meme.image for meme in ones})
    same = [(image, theirs[key]) for image in images if (key := _identity(folder, image)) in theirs]
    return [one if one == other else f"{one} = {other}" for one, other in same]


def _identity(folder: _Folder, image: str) -> object:
    picture = folder.pictures[image]
    return image if picture.error else (picture.size, picture.digest)


def _text_findings(folder: _Folder) -> list[Finding]:
    memes = [(split, meme) for split, members in folder.memes.items() for meme in members]
    empty = [f"{split} {meme.id}" for split, meme in memes if not meme.text.strip()]
    lengths = [(split, meme.id, len(meme.text.split())) for split, meme in memes]
    long = [f"{split} {key} ({words} words)" for split, key, words in lengths if words > LONG_TEXT]
    return [
        *_finding("warning", "memes without text", empty, "Models will see the picture alone."),
        *_finding(
            "warning",
            f"texts of more than {LONG_TEXT} words",
            long,
            "Models cut them; raise processor.max_tokens if the end matters.",
        ),
    ]


def _label_findings(folder: _Folder) -> list[Finding]:
    partly, lopsided, unlabeled = [], [], []
    for split, memes in folder.memes.items():
        counts = Counter(meme.label for meme in memes)
        missing, rarer = counts.pop(None, 0), min(counts.get(0, 0), counts.get(1, 0))
        if counts and missing:
            partly.append(f"{split} ({missing} of {len(memes)} without label)")
        if counts and rarer < UNBALANCED * (len(memes) - missing):
            lopsided.append(f"{split} ({counts.get(0, 0)} benign, {counts.get(1, 0)} hateful)")
        if memes and not counts:
            unlabeled.append(split)
    return [
        *_finding("warning", "splits that are partly labeled", partly, "Scores need a label for every meme."),
        *_finding(
            "warning",
            "splits with hardly any memes of one label",
            lopsided,
            "Weigh the classes in training; read AUROC with its interval.",
        ),
        *_finding(
            "error" if "train" in unlabeled else "note",
            "splits without labels",
            unlabeled,
            "They can be predicted, not scored; give an answers file to score them.",
        ),
    ]


def _read_regions(folder: _Folder, features: RegionSource) -> dict[str, Regions | FormatError | None]:
    """Regions of every picture; None where there are none."""
    found: dict[str, Regions | FormatError | None] = {}
    for path in folder.pictures:
        key = Path(path).stem
        try:
            found[path] = features[key] if key in features else None  # noqa: SIM401 (no `get`)
        except FormatError as error:
            found[path] = error
        if isinstance(regions := found[path], Regions):
            try:
                regions.verify()
            except FormatError as error:
                found[path] = FormatError(f"{path}: {error}")
    keys = [*islice(getattr(features, "keys", tuple)(), 3)]
    if keys and all(one is None for one in found.values()):
        spelled = ", ".join(map(repr, keys))
        folder.keys = f" Its keys are spelled {spelled}; looked up are file names without ending."
    return found


def _feature_findings(folder: _Folder) -> list[Finding]:
    regions = {path: found for path, found in folder.regions.items() if isinstance(found, Regions)}
    resized = [
        f"{path} (features {found.size}, picture {folder.pictures[path].size})"
        for path, found in regions.items()
        if not folder.pictures[path].error and found.size != folder.pictures[path].size
    ]
    doubted = {path: doubts(found.boxes, found.size) for path, found in regions.items()}
    odd = [(what, [path for path in doubted if name in doubted[path]]) for name, what in DOUBTS.items()]
    return [
        *_finding(
            "error",
            "pictures without features",
            (path for path, found in folder.regions.items() if found is None),
            f"Import features that hold them.{folder.keys}",
        ),
        *_finding(
            "error",
            "features that cannot be read",
            (str(found) for found in folder.regions.values() if isinstance(found, FormatError)),
            "Import the features again.",
        ),
        *_finding(
            "warning",
            "pictures in which nothing was detected",
            (path for path, found in regions.items() if not len(found)),
            "Models will see the text alone.",
        ),
        *(one for what, paths in odd for one in _finding("warning", what, paths, "Look at the boxes.")),
        *_finding(
            "warning",
            "features of pictures of another size",
            resized,
            "Were they extracted from these files? Boxes are in pixels of the original.",
        ),
    ]


def _summary(folder: _Folder, split: str) -> SplitSummary:
    memes = folder.memes[split]
    pictures = sorted({meme.image for meme in memes})
    sizes = [folder.pictures[image].size for image in pictures if not folder.pictures[image].error]
    regions = [found for image in pictures if isinstance(found := folder.regions.get(image), Regions)]
    counts = Counter("unlabeled" if meme.label is None else LABELS[meme.label] for meme in memes)
    return SplitSummary(
        split=split,
        memes=len(memes),
        pictures=len(pictures),
        labels={name: counts[name] for name in (*LABELS, "unlabeled") if counts[name]},
        words=_spread([len(meme.text.split()) for meme in memes]),
        widths=_spread([width for width, _ in sizes]),
        heights=_spread([height for _, height in sizes]),
        regions=_spread([len(found) for found in regions]),
    )


def _spread(values: list[int]) -> Spread | None:
    return (min(values), round(median(values)), max(values)) if values else None
