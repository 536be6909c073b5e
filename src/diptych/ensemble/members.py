"""Prediction files of several models, as a complete table of members by splits."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from diptych.datasets.binary_csv import Kind
from diptych.ensemble.blend import Missing, completed, member_names, stack_scores
from diptych.ensemble.files import read_together
from diptych.errors import ConfigError, FormatError
from diptych.predictions import Predictions

Incomplete = Literal["stop", "drop"]
# a split in a file name; the lookahead keeps `testing` and `valentine` from being splits
SPLIT = re.compile(r"_?(dev_seen|dev_unseen|test_seen|test_unseen|(?:train|dev|val|test)(?![a-z]))_?")
OURS = "FIN_"  # prefix of the files that an ensemble writes, which are not members


@dataclass(frozen=True, slots=True, kw_only=True)
class Members:
    """Predictions of all members for all splits.

    Args:
        names: names of the members, in alphabetical order.
        predictions: predictions by split, one per member in the order of `names`.
        dropped: members that were left out, and the splits they lack; they are not in `names`.
        missing: ids that members lack, by split and member; their scores are nan.
    """

    names: tuple[str, ...]
    predictions: Mapping[str, tuple[Predictions, ...]]
    dropped: Mapping[str, tuple[str, ...]]
    missing: Mapping[str, Mapping[str, tuple[str, ...]]] = field(default_factory=dict)


def read_members(
    paths: Iterable[Path],
    *,
    kind: Kind | None = None,
    classes: Sequence[str] | None = None,
    splits: Sequence[str] = (),
    incomplete: Incomplete = "stop",
    missing: Missing = "stop",
) -> Members:
    """Read prediction files. A folder means its `.csv` and `.npz` files, except those named `FIN_...`.

    If a folder has both forms of a file, the `.npz` is read. The file name contains the split; the rest of
    the name is the member, or the folder if nothing is left: `O36_dev_seen.csv`, `dev_seenO36.csv`,
    `runs/O36/predictions/dev_seen.csv`.

    Args:
        kind: scale of the scores in CSV files; see `read_predictions`.
        classes: class names for CSV files; see `read_predictions`.
        splits: names of the data set's splits, in addition to the usual ones.
        incomplete: if a member lacks a split: `stop` raises an error, `drop` leaves the member out.
        missing: if a member lacks examples: `stop` raises an error, `renormalize` adds rows of nan.

    Raises:
        FormatError: a file name contains no split, two files are the same member and split, a member lacks a
            split, or members do not cover the same examples.
        ConfigError: there are no files.
    """
    table: dict[str, dict[str, Path]] = defaultdict(dict)
    for path in sorted({file for given in paths for file in _files(given)}):
        member, split = name_of(path, splits)
        if split in table[member]:
            raise FormatError(
                f"{path} and {table[member][split]} are both {split} of the member {member}; expected one "
                "file. Rename or leave out the other."
            )
        table[member][split] = path
    if not table:
        raise ConfigError("there is nothing to blend; expected prediction files, or folders of them.")
    present = sorted({split for files in table.values() for split in files})
    lacking = {name: tuple(split for split in present if split not in table[name]) for name in table}
    dropped = {name: missing for name, missing in lacking.items() if missing}
    if dropped and (incomplete == "stop" or len(dropped) == len(table)):
        gaps = "; ".join(f"{name} lacks {', '.join(missing)}" for name, missing in dropped.items())
        raise FormatError(
            f"members do not cover the same splits: {gaps}. Predict them, or leave such members out with "
            "--incomplete drop."
        )
    names = tuple(name for name in sorted(table) if name not in dropped)
    # One split at a time, but all members of it together: a CSV takes its class names from an .npz beside it.
    predictions = {
        split: tuple(read_together([table[name][split] for name in names], kind=kind, classes=classes))
        for split in present
    }
    if missing == "renormalize":
        predictions, lost = _completed(names, predictions)
        return Members(names=names, predictions=predictions, dropped=dropped, missing=lost)
    for members in predictions.values():
        stack_scores(members)  # raises if they differ in ids or classes; the result is computed again later
    return Members(names=names, predictions=predictions, dropped=dropped)


def name_of(path: Path, splits: Sequence[str] = ()) -> tuple[str, str]:
    """Return the member and the split of a file, by its name.

    Args:
        splits: names of the data set's splits, which take precedence over the usual ones.

    Raises:
        FormatError: the name contains no split.
    """
    # longest first: a regular expression takes the first alternative that fits: `dev` out of `dev_seen`
    names = "|".join(re.escape(split) for split in sorted(splits, key=len, reverse=True))
    matches = list((re.compile(f"_?({names})_?") if names else SPLIT).finditer(path.stem))
    matches = matches or list(SPLIT.finditer(path.stem))
    if not matches:
        raise FormatError(
            f"{path}: the file name contains no split; expected a name such as NAME_dev_seen.csv."
        )
    last = matches[-1]  # a member may be called `dev_model`
    # a split in the middle, as in `a_dev_b`, had underscores on both sides; one is left, to give `a_b`
    between = "_" if last[0].startswith("_") and last[0].endswith("_") else ""
    rest = f"{path.stem[: last.start()]}{between}{path.stem[last.end() :]}"
    if rest:
        return rest, last[1]
    # `diptych predict` writes to RUN/predictions; the run is what distinguishes members
    folder = path.parent.parent if path.parent.name == "predictions" else path.parent
    return str(folder), last[1]


def _completed(
    names: Sequence[str], predictions: Mapping[str, Sequence[Predictions]]
) -> tuple[dict[str, tuple[Predictions, ...]], dict[str, dict[str, tuple[str, ...]]]]:
    """Complete the members of each split; also returns what was missing, by split and member."""
    found, lost = {}, {}
    for split, members in predictions.items():
        whole, lacking = completed(members)
        found[split] = tuple(whole)
        if lacking:
            # By our names; those of `completed` are file names.
            named = zip(names, member_names(members), strict=True)
            lost[split] = {name: lacking[file] for name, file in named if file in lacking}
    return found, lost


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    files = {file.stem: file for file in (*path.glob("*.csv"), *path.glob("*.npz"))}  # `.npz` replaces `.csv`
    if not (members := [file for name, file in files.items() if not name.startswith(OURS)]):
        raise ConfigError(f"{path} contains no predictions; expected .npz or .csv files.")
    return members
