"""Prediction files of several models and several splits, sorted into a table without gaps."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from diptych.datasets.binary_csv import Kind
from diptych.ensemble.blend import stack_scores
from diptych.ensemble.files import read_together
from diptych.errors import ConfigError, FormatError
from diptych.predictions import Predictions

Incomplete = Literal["stop", "drop"]
SPLIT = re.compile(r"_?(dev_seen|dev_unseen|test_seen|test_unseen|(?:train|dev|val|test)(?![a-z]))_?")
OURS = "FIN_"  # what an ensemble itself has written


@dataclass(frozen=True, slots=True, kw_only=True)
class Members:
    """Every member's predictions of every split.

    Args:
        names: of the members, in alphabetical order.
        predictions: by split, one per member in the order of `names`.
        dropped: members that lack a split, and which; they are not among `names`.
    """

    names: tuple[str, ...]
    predictions: Mapping[str, tuple[Predictions, ...]]
    dropped: Mapping[str, tuple[str, ...]]


def read_members(
    paths: Iterable[Path],
    *,
    kind: Kind | None = None,
    classes: Sequence[str] | None = None,
    splits: Sequence[str] = (),
    incomplete: Incomplete = "stop",
) -> Members:
    """Read files, and the `.csv` and `.npz` files of folders but those named `FIN_...`.

    Where a folder holds both forms of a file, the `.npz` is read. The split is told by the name of the file
    and the member is the rest of the name, or the folder where nothing is left: `O36_dev_seen.csv`,
    `dev_seenO36.csv`, `runs/O36/predictions/dev_seen.csv`.

    Args:
        classes: of CSV files; see `read_predictions`.
        splits: names that a data set gives its splits, beside the usual ones.
        incomplete: what to do about a member that lacks a split: stop, or leave it out.

    Raises:
        FormatError: a file without a split in its name, two files for one place, a gap, members that do not
            cover the same examples.
    """
    table: dict[str, dict[str, Path]] = defaultdict(dict)
    for path in sorted({file for given in paths for file in _files(given)}):
        member, split = name_of(path, splits)
        if split in table[member]:
            raise FormatError(
                f"{path} and {table[member][split]} are both {split} of the member {member}; expected one of "
                "them. Rename or leave out the other."
            )
        table[member][split] = path
    if not table:
        raise ConfigError("there is nothing to blend; expected prediction files, or folders of them.")
    found = sorted({split for files in table.values() for split in files})
    lacking = {name: tuple(split for split in found if split not in table[name]) for name in table}
    dropped = {name: missing for name, missing in lacking.items() if missing}
    if dropped and (incomplete == "stop" or len(dropped) == len(table)):
        gaps = "; ".join(f"{name} lacks {', '.join(missing)}" for name, missing in dropped.items())
        raise FormatError(
            f"members do not cover the same splits: {gaps}. Predict them, or leave such members out with "
            "--incomplete drop."
        )
    names = tuple(name for name in sorted(table) if name not in dropped)
    predictions = {
        split: tuple(read_together([table[name][split] for name in names], kind=kind, classes=classes))
        for split in found
    }
    for members in predictions.values():
        stack_scores(members)
    return Members(names=names, predictions=predictions, dropped=dropped)


def name_of(path: Path, splits: Sequence[str] = ()) -> tuple[str, str]:
    """Member and split by the name of a file.

    Args:
        splits: further names of splits.

    Raises:
        FormatError: it names no split.
    """
    names = "|".join(re.escape(split) for split in sorted(splits, key=len, reverse=True))
    found = list((re.compile(f"_?({names})_?") if names else SPLIT).finditer(path.stem))
    found = found or list(SPLIT.finditer(path.stem))
    if not found:
        raise FormatError(
            f"{path}: the name of the file tells no split; expected one such as NAME_dev_seen.csv."
        )
    last = found[-1]
    between = "_" if last[0].startswith("_") and last[0].endswith("_") else ""
    rest = f"{path.stem[: last.start()]}{between}{path.stem[last.end() :]}"
    if rest:
        return rest, last[1]
    folder = path.parent.parent if path.parent.name == "predictions" else path.parent
    return str(folder), last[1]


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    files = {file.stem: file for file in (*path.glob("*.csv"), *path.glob("*.npz"))}
    if not (found := [file for name, file in files.items() if not name.startswith(OURS)]):
        raise ConfigError(f"{path} holds no predictions; expected .npz or .csv files.")
    return found
