"""Finds problems of a data set before training, with advice on each."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from statistics import median

from diptych.boxes import DOUBTS, doubts
from diptych.check.reading import Folder, open_folder, paths_of, pictures_of, read_pictures, read_regions
from diptych.check.report import CheckReport, Finding, Severity, SplitSummary, Spread
from diptych.datasets import Data
from diptych.datasets.base import DuplicateId
from diptych.errors import FormatError
from diptych.types import Example, Progress, Regions, RegionSource

SHOWN = 5  # examples listed per finding
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # first characters that spreadsheets evaluate
LONG_TEXT = 100  # words; the longest text of Hateful Memes has 70, and models usually read 128 tokens
TINY_SIDE = 16  # pixels
UNBALANCED = 0.1  # share of the rarer label


def check(
    root: Path | str,
    *,
    data: Data | None = None,
    features: RegionSource | None = None,
    splits: Sequence[str] | None = None,
    progress: Progress | None = None,
) -> CheckReport:
    """Check annotations, pictures and regions of a folder, without changing anything.

    Args:
        data: data set of the folder; by default inferred from its layout.
        features: regions that the pictures should have.
        splits: splits to check; all by default.
        progress: called with the number of pictures read and the total.

    Raises:
        ConfigError: the folder or a split does not exist.
    """
    folder = open_folder(Path(root), data, splits)
    # Everything is read once; all findings below only look at it.
    folder.pictures = read_pictures(folder, progress)
    if features is not None:
        folder.regions = read_regions(folder, features)
    findings = [
        # From the file inwards: a broken record explains findings further down.
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
        data=folder.data.kind.name,
        findings=tuple(sorted(findings, key=lambda finding: order.index(finding.severity))),
        splits=tuple(_summary(folder, split) for split in folder.examples),
    )


def _finding(severity: Severity, what: str, examples: Iterable[str], advice: str) -> list[Finding]:
    """Return one finding in a list, or an empty list if there are no examples."""
    all_examples = list(examples)
    if not all_examples:
        return []
    shown = tuple(all_examples[:SHOWN])
    return [Finding(severity=severity, what=what, count=len(all_examples), examples=shown, advice=advice)]


def _record_findings(folder: Folder) -> list[Finding]:
    repeated = [problem for problem in folder.problems if isinstance(problem, DuplicateId)]
    broken = [problem for problem in folder.problems if not isinstance(problem, DuplicateId)]
    return [
        *_finding("error", "records that cannot be read", map(str, broken), "Repair or remove these lines."),
        *_finding(
            "error", "ids that occur twice in a split", map(str, repeated), "Give each example its own id."
        ),
        *_finding(
            "warning",
            "ids that a spreadsheet takes for formulas",
            (
                example.id
                for examples in folder.examples.values()
                for example in examples
                # `=CMD(...)` in a CSV file runs when somebody opens it in a spreadsheet.
                if example.id[:1] in FORMULA
            ),
            "Do not open prediction files with these ids in a spreadsheet; they are not escaped.",
        ),
        *_finding(
            "error",
            f"splits without a single {folder.data.kind.noun}",
            (split for split, examples in folder.examples.items() if not examples),
            "Is the file cut off?",
        ),
    ]


def _picture_findings(folder: Folder) -> list[Finding]:
    bad = [picture.error for picture in folder.pictures.values() if picture.error]
    # LXMERT publishes features without pictures: then the regions alone can be looked at.
    absent = bool(folder.regions) and not any((folder.root / path).exists() for path in folder.pictures)
    tiny = [
        f"{path} ({picture.size[0]} x {picture.size[1]})"
        for path, picture in folder.pictures.items()
        if not picture.error and min(picture.size) < TINY_SIDE
    ]
    # `a/1.png` and `b/1.jpg` have the key "1" in feature stores, and would get each other's regions.
    paths: dict[str, set[str]] = defaultdict(set)
    for examples in folder.examples.values():
        for example in examples:
            for key, path in pictures_of(folder, example):
                paths[key].add(path)
    clashes = [f"{key}: {', '.join(sorted(files))}" for key, files in paths.items() if len(files) > 1]
    return [
        *_finding(
            "note" if absent else "error",
            "pictures that are missing or cannot be read",
            bad,
            "None is there; models that read regions need none."
            if absent
            else "Get these files again, or shrink them.",
        ),
        *_finding("warning", f"pictures under {TINY_SIDE} pixels", tiny, "Are they placeholders?"),
        *_finding(
            "error",
            "different pictures with the same key",
            clashes,
            "Features are looked up by file name; give every picture a unique name.",
        ),
    ]


def _overlap_findings(folder: Folder) -> list[Finding]:
    findings = []
    for first, second in combinations(folder.examples, 2):
        # Ids are compared between splits only; equal ids within one split are errors of reading.
        by_id = {example.id for example in folder.examples[first]} & {
            example.id for example in folder.examples[second]
        }
        # Examples in both splits are reported once, not again for their pictures.
        rest = [
            [example for example in folder.examples[split] if example.id not in by_id]
            for split in (first, second)
        ]
        known = frozenset({first, second}) in folder.data.kind.overlaps
        names = f"{first} and {second}"
        findings += _finding(
            "note" if known else "error",
            f"{folder.data.kind.noun}s in both {names}",
            sorted(by_id),
            "A known property of this benchmark; do not train on one split and evaluate on the other."
            if known
            else "Remove them from one split, or its scores are meaningless.",
        )
        findings += _finding(
            "warning",
            f"pictures in both {names}",
            _same_pictures(folder, *rest),
            "Scores on them are too optimistic; remove them from one split. Pixels are compared, not names.",
        )
    return findings


def _same_pictures(folder: Folder, ones: list[Example], others: list[Example]) -> list[str]:
    """List pairs of files with equal pixels, and files used by both groups."""
    # A dictionary instead of all pairs, which would be quadratic in the number of pictures.
    known: dict[object, str] = {_identity(folder, path): path for path in paths_of(folder, others)}
    images = paths_of(folder, ones)
    same = [(image, known[key]) for image in images if (key := _identity(folder, image)) in known]
    return [image if image == other else f"{image} = {other}" for image, other in same]


def _identity(folder: Folder, image: str) -> object:
    picture = folder.pictures[image]
    # A picture that cannot be read equals only itself.
    return image if picture.error else (picture.size, picture.digest)


def _text_findings(folder: Folder) -> list[Finding]:
    words = [
        (f"{split} {example.id}", max(_words(example), default=0))
        for split, examples in folder.examples.items()
        for example in examples
    ]
    empty = [name for name, count in words if not count]
    long = [f"{name} ({count} words)" for name, count in words if count > LONG_TEXT]
    return [
        *_finding(
            "warning", f"{folder.data.kind.noun}s without text", empty, "Models will see the picture only."
        ),
        *_finding(
            "warning",
            f"texts of more than {LONG_TEXT} words",
            long,
            "Models truncate them; raise processor.max_tokens if the end matters.",
        ),
    ]


def _words(example: Example) -> list[int]:
    """Number of words of each pair."""
    return [len(f"{pair.text} {pair.text_b or ''}".split()) for pair in example.pairs]


def _label_findings(folder: Folder) -> list[Finding]:
    partly, lopsided, unlabeled = [], [], []
    for split, examples in folder.examples.items():
        counts = _labels(folder, examples)
        missing = sum(example.target is None for example in examples)
        if counts and missing and not folder.data.kind.partial:
            partly.append(f"{split} ({missing} of {len(examples)} without label)")
        shares = [counts[name] for name in folder.data.kind.labels or counts]
        # Answers and several labels are rare by nature, so balance is asked of plain classes only.
        single = all(isinstance(example.target, str) for example in examples if example.target is not None)
        # With more than two labels the limit shrinks: a fifth of an equal share, as 0.1 is for two.
        if (
            counts
            and single
            and min(shares) < UNBALANCED * (len(examples) - missing) * 2 / max(2, len(shares))
        ):
            shown = ", ".join(f"{counts[name]} {name}" for name in folder.data.kind.labels or sorted(counts))
            lopsided.append(f"{split} ({shown})")
        if examples and not counts:
            unlabeled.append(split)
    return [
        *_finding(
            "warning", "splits that are partly labeled", partly, "Scores need a label for every example."
        ),
        *_finding(
            "warning",
            f"splits with hardly any {folder.data.kind.noun}s of one label",
            lopsided,
            "Use class weights in training; report AUROC with its interval.",
        ),
        *_finding(
            # Test splits are published without labels; a training split without them is of no use.
            "error" if folder.data.train in unlabeled else "note",
            "splits without labels",
            unlabeled,
            "They can be predicted but not scored; provide an answers file to score them.",
        ),
    ]


def _labels(folder: Folder, examples: Iterable[Example]) -> Counter[str]:
    """Number of examples by label, in the order of the classes; an example may count for several labels."""
    counts: Counter[str] = Counter()
    for example in examples:
        target = example.target
        if isinstance(target, Mapping):
            # A soft label counts where it is at least as likely as not.
            counts.update(name for name, score in target.items() if score >= 0.5)
        elif target is not None:
            counts[str(target)] += 1
    order = folder.data.kind.labels or sorted(counts)
    return Counter({name: counts[name] for name in (*order, *counts) if counts[name]})


def _feature_findings(folder: Folder) -> list[Finding]:
    readable = {path: regions for path, regions in folder.regions.items() if isinstance(regions, Regions)}
    resized = [
        f"{path} (features {regions.size}, picture {folder.pictures[path].size})"
        for path, regions in readable.items()
        if not folder.pictures[path].error and regions.size != folder.pictures[path].size
    ]
    doubted = {path: doubts(regions.boxes, regions.size) for path, regions in readable.items()}
    odd = [(what, [path for path in doubted if name in doubted[path]]) for name, what in DOUBTS.items()]
    return [
        *_finding(
            "error",
            "pictures without features",
            (path for path, regions in folder.regions.items() if regions is None),
            f"Import features that include them.{folder.keys}",
        ),
        *_finding(
            "error",
            "features that cannot be read",
            (str(error) for error in folder.regions.values() if isinstance(error, FormatError)),
            "Import the features again.",
        ),
        *_finding(
            "warning",
            "pictures in which nothing was detected",
            (path for path, regions in readable.items() if not len(regions)),
            "Models will see the text only.",
        ),
        *(item for what, paths in odd for item in _finding("warning", what, paths, "Look at the boxes.")),
        *_finding(
            "warning",
            "features of pictures of another size",
            resized,
            "Were they extracted from these files? Boxes are in pixels of the original.",
        ),
    ]


def _summary(folder: Folder, split: str) -> SplitSummary:
    examples = folder.examples[split]
    pictures = paths_of(folder, examples)
    sizes = [folder.pictures[image].size for image in pictures if not folder.pictures[image].error]
    readable = [item for image in pictures if isinstance(item := folder.regions.get(image), Regions)]
    unlabeled = sum(example.target is None for example in examples)
    return SplitSummary(
        split=split,
        examples=len(examples),
        pictures=len(pictures),
        labels=dict(_labels(folder, examples)) | ({"unlabeled": unlabeled} if unlabeled else {}),
        groups=dict(Counter(example.group for example in examples if example.group is not None)),
        words=_spread([count for example in examples for count in _words(example)]),
        widths=_spread([width for width, _ in sizes]),
        heights=_spread([height for _, height in sizes]),
        regions=_spread([len(regions) for regions in readable]),
    )


def _spread(values: list[int]) -> Spread | None:
    return (min(values), round(median(values)), max(values)) if values else None
