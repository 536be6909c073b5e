"""Reading and writing of prediction files: `.npz` of diptych, and the official CSV files of data sets."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from diptych.datasets import Split
from diptych.datasets.binary_csv import LABELS, Kind, read_scores, write_scores
from diptych.errors import ConfigError, FormatError
from diptych.predictions import Predictions

if TYPE_CHECKING:
    from diptych.ensemble.fit import FitReport


def read_predictions(
    path: Path | str,
    *,
    kind: Kind | None = None,
    classes: Sequence[str] | None = None,
    dataset: Split | None = None,
) -> Predictions:
    """Read an `.npz` of `diptych predict`, or the official file of a data set.

    Args:
        kind: scale of `proba` in a CSV `id,proba,label`; see `diptych.datasets.binary_csv.read_scores`.
        classes: names of the classes 0 and 1 of such a CSV; by default those of `dataset`.
        dataset: split of the predictions, whose class knows the official format.

    Raises:
        FormatError: the content is invalid; names file and line.
    """
    path = Path(path)
    if path.suffix == ".npz":
        predictions = _read_npz(path)
    # A kind is a property of `id,proba,label` only, so giving one says which format the file has.
    elif dataset is None or kind is not None:
        named = classes or (dataset.labels if dataset is not None else LABELS)
        predictions = read_scores(path, kind=kind, classes=named)
    else:
        predictions = dataset.read_predictions(path)
    return replace(predictions, meta={**predictions.meta, "path": str(path)})


def read_together(
    paths: Sequence[Path], *, kind: Kind | None = None, classes: Sequence[str] | None = None
) -> list[Predictions]:
    """Read several files of the same examples. CSV files get their class names from an `.npz`, if any."""
    stored = {path: read_predictions(path) for path in paths if path.suffix == ".npz"}
    named = classes or next(
        (predictions.classes for predictions in stored.values() if predictions.classes), None
    )
    return [stored.get(path) or read_predictions(path, kind=kind, classes=named) for path in paths]


def write_predictions(predictions: Predictions, path: Path | str) -> None:
    """Write a complete `.npz`, or a CSV `id,proba,label` for two classes.

    Raises:
        ConfigError: the file name has neither suffix.
        FormatError: a CSV cannot represent these predictions.
    """
    path = Path(path)
    if path.suffix == ".npz":
        predictions.save(path)
    elif path.suffix == ".csv":
        write_scores(predictions, path)
    else:
        raise ConfigError(
            f"{path}: predictions are written as .npz or .csv; got {path.suffix or 'no suffix'!r}."
        )


def held_out_file(path: Path) -> Path:
    """Where the out-of-fold predictions of a fitted blend lie, beside its file `FIN_SPLIT.csv`."""
    return path.with_name(f"{path.stem}.out_of_fold.npz")


def write_blend(folder: Path, blends: Mapping[str, Predictions], report: "FitReport") -> None:
    """Write `FIN_SPLIT.csv` for each split, the out-of-fold predictions of dev, and `report.json`."""
    for split, predictions in blends.items():
        write_predictions(predictions, folder / f"FIN_{split}.csv")
    if report.held_out is not None:
        write_predictions(report.held_out, held_out_file(folder / f"FIN_{report.dev}.csv"))
    (folder / "report.json").write_text(json.dumps(report.as_dict(), indent=2) + "\n", encoding="utf-8")


def _read_npz(path: Path) -> Predictions:
    predictions = Predictions.load(path)
    if len(predictions.unique()) < len(predictions):
        raise FormatError(f"{path}: {len(predictions) - len(predictions.unique())} row(s) repeat an id.")
    if predictions.scores is not None and not np.isfinite(predictions.scores).all():
        row = int(np.argwhere(~np.isfinite(predictions.scores))[0][0])
        raise FormatError(f"{path}: the scores of id {predictions.ids[row]!r} are not finite.")
    return predictions
