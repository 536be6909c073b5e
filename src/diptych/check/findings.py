"""Finds problems of a data set before training, with advice on each."""

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import accumulate, combinations
from pathlib import Path

import numpy as np

from diptych.boxes import DOUBTS
from diptych.check.reading import (
    LONG_TEXT,
    SHOWN,
    Counts,
    Folder,
    Seen,
    Tally,
    open_folder,
    read_pictures,
    read_regions,
)
from diptych.check.report import CheckReport, Finding, Severity, SplitSummary, Spread
from diptych.datasets import Data
from diptych.datasets.base import DuplicateId
from diptych.errors import FormatError
from diptych.images import picture_exists
from diptych.types import Progress, RegionSource

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
    read_pictures(folder, progress)
    if features is not None:
        read_regions(folder, features)
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


def _finding(severity: Severity, what: str, found: Tally | Iterable[str], advice: str) -> list[Finding]:
    """Return one finding in a list, or an empty list if nothing was found."""
    tally = found if isinstance(found, Tally) else Tally.of(found)
    if not tally.count:
        return []
    return [
        Finding(severity=severity, what=what, count=tally.count, examples=tuple(tally.first), advice=advice)
    ]


def _record_findings(folder: Folder) -> list[Finding]:
    # Repeated ids are told apart: they are mended in another way than damaged lines.
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
            # `=CMD(...)` in a CSV file runs when somebody opens it in a spreadsheet.
            folder.formulas,
            "Do not open prediction files with these ids in a spreadsheet; they are not escaped.",
        ),
        *_finding(
            "error",
            f"splits without a single {folder.data.kind.noun}",
            (split for split, counts in folder.counts.items() if not counts.ids),
            "Is the file cut off?",
        ),
    ]


def _picture_findings(folder: Folder) -> list[Finding]:
    # They are listed with commas, and each error is a sentence.
    bad = [picture.error.removesuffix(".") for picture in folder.pictures.values() if picture.error]
    # LXMERT publishes features without pictures: then the regions alone can be looked at.
    absent = bool(folder.regions) and not any(picture_exists(folder.root / path) for path in folder.pictures)
    tiny = [
        f"{path} ({picture.size[0]} x {picture.size[1]})"
        for path, picture in folder.pictures.items()
        if not picture.error and min(picture.size) < TINY_SIDE
    ]
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
            (f"{key}: {', '.join(sorted(paths))}" for key, paths in folder.clashes.items()),
            "Features are looked up by file name; give every picture a unique name.",
        ),
    ]


def _overlap_findings(folder: Folder) -> list[Finding]:
    findings = []
    for first, second in combinations(folder.counts, 2):
        # Ids are compared between splits only; equal ids within one split are errors of reading.
        ids, others = (np.frombuffer(folder.counts[split].ids, np.int64) for split in (first, second))
        both = np.intersect1d(ids, others)
        rows = np.flatnonzero(np.isin(ids, both))
        shared = Tally(len(rows), sorted(folder.examples[first][row].id for row in rows[:SHOWN].tolist()))
        known = frozenset({first, second}) in folder.data.kind.overlaps
        names = f"{first} and {second}"
        findings += _finding(
            "note" if known else "error",
            f"{folder.data.kind.noun}s in both {names}",
            shared,
            "A known property of this benchmark; do not train on one split and evaluate on the other."
            if known
            else "Remove them from one split, or its scores are meaningless.",
        )
        findings += _finding(
            "warning",
            f"pictures in both {names}",
            # Examples in both splits are reported once, not again for their pictures.
            _same_pictures(folder, *(folder.paths_of(split, without=both) for split in (first, second))),
            "Scores on them are too optimistic; remove them from one split. Pixels are compared, not names.",
        )
    return findings


def _same_pictures(folder: Folder, ones: list[str], others: list[str]) -> list[str]:
    """List pairs of files with equal pixels, and files used by both groups."""
    # A dictionary instead of all pairs, which would be quadratic in the number of pictures.
    known: dict[object, str] = {_identity(folder, path): path for path in others}
    same = [(image, known[key]) for image in ones if (key := _identity(folder, image)) in known]
    return [image if image == other else f"{image} = {other}" for image, other in same]


def _identity(folder: Folder, image: str) -> object:
    picture = folder.pictures[image]
    # A picture that cannot be read equals only itself.
    return image if picture.error else (picture.size, picture.digest)


def _text_findings(folder: Folder) -> list[Finding]:
    return [
        *_finding(
            "warning",
            f"{folder.data.kind.noun}s without text",
            folder.empty,
            "Models will see the picture only.",
        ),
        *_finding(
            "warning",
            f"texts of more than {LONG_TEXT} words",
            folder.long,
            "Models truncate them; raise processor.max_tokens if the end matters.",
        ),
    ]


def _label_findings(folder: Folder) -> list[Finding]:
    partly, lopsided, unlabeled = [], [], []
    for split, counts in folder.counts.items():
        labels, missing, total = counts.labels, counts.unlabeled, len(counts.ids)
        if labels and missing and not folder.data.kind.partial:
            partly.append(f"{split} ({missing} of {total} without label)")
        names = folder.data.kind.labels or sorted(labels)
        # With more than two labels the limit shrinks: a fifth of an equal share, as 0.1 is for two.
        least = UNBALANCED * (total - missing) * 2 / max(2, len(names))
        # Answers and several labels are rare by nature, so balance is asked of plain classes only.
        if labels and counts.single and min(labels[name] for name in names) < least:
            lopsided.append(f"{split} ({', '.join(f'{labels[name]} {name}' for name in names)})")
        if total and not labels:
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
            "error" if folder.data.kind.labeled and folder.data.train in unlabeled else "note",
            "splits without labels",
            unlabeled,
            "They can be predicted but not scored; provide an answers file to score them.",
        ),
    ]


def _labels(folder: Folder, counts: Counts) -> dict[str, int]:
    """Number of examples by label, in the order of the classes."""
    found = counts.labels
    order = dict.fromkeys((*(folder.data.kind.labels or sorted(found)), *found))
    unlabeled = {"unlabeled": counts.unlabeled} if counts.unlabeled else {}
    return {name: found[name] for name in order if found[name]} | unlabeled


def _feature_findings(folder: Folder) -> list[Finding]:
    readable = {path: seen for path, seen in folder.regions.items() if isinstance(seen, Seen)}
    resized = [
        f"{path} (features {seen.size}, picture {folder.pictures[path].size})"
        for path, seen in readable.items()
        if not folder.pictures[path].error and seen.size != folder.pictures[path].size
    ]
    # One finding for each kind of doubt, so that each has its own examples.
    odd = [
        (what, [path for path, seen in readable.items() if name in seen.doubts])
        for name, what in DOUBTS.items()
    ]
    return [
        *_finding(
            "error",
            "pictures without features",
            (path for path, seen in folder.regions.items() if seen is None),
            f"Import features that include them.{folder.hint}",
        ),
        *_finding(
            "error",
            "features that cannot be read",
            (str(seen) for seen in folder.regions.values() if isinstance(seen, FormatError)),
            "Import the features again.",
        ),
        *_finding(
            "warning",
            "pictures in which nothing was detected",
            (path for path, seen in readable.items() if not seen.count),
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
    counts = folder.counts[split]
    paths = folder.paths_of(split)
    sizes = [folder.pictures[path].size for path in paths if not folder.pictures[path].error]
    regions = (folder.regions.get(path) for path in paths)
    return SplitSummary(
        split=split,
        examples=len(counts.ids),
        pictures=len(paths),
        labels=_labels(folder, counts),
        groups=dict(counts.groups),
        words=_spread(counts.words),
        widths=_spread(Counter(width for width, _ in sizes)),
        heights=_spread(Counter(height for _, height in sizes)),
        regions=_spread(Counter(seen.count for seen in regions if isinstance(seen, Seen))),
    )


def _spread(values: Counter[int]) -> Spread | None:
    """Least, median and largest value; `values` has how often each occurs."""
    if not values:
        return None
    order = sorted(values)
    ends = [*accumulate(values[value] for value in order)]
    middle = [
        order[int(np.searchsorted(ends, place, side="right"))]
        # Both middle values: of an odd number they are the same.
        for place in ((ends[-1] - 1) // 2, ends[-1] // 2)
    ]
    return order[0], round(sum(middle) / 2), order[-1]
