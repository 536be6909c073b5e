"""Prediction files, of ours and of others."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from diptych.datasets import Split
from diptych.datasets.binary_csv import LABELS, Kind, read_scores, write_scores
from diptych.errors import ConfigError, FormatError
from diptych.predictions import Predictions


def read_predictions(
    path: Path | str,
    *,
    kind: Kind | None = None,
    classes: Sequence[str] | None = None,
    dataset: Split | None = None,
) -> Predictions:
    """Read an `.npz` of `diptych predict`, or the official file of a data set.

    Args:
        kind: what `proba` of a CSV `id,proba,label` is; see `diptych.datasets.binary_csv.read_scores`.
        classes: names of the classes 0 and 1 of such a CSV; by default those of `dataset`.
        dataset: the split that was predicted; it reads its own files.

    Raises:
        FormatError: names file and line of what is wrong.
    """
    path = Path(path)
    if path.suffix == ".npz":
        predictions = _read_npz(path)
    elif dataset is None or kind is not None:
        named = classes or (dataset.labels if dataset is not None else LABELS)
        predictions = read_scores(path, kind=kind, classes=named)
    else:
        predictions = dataset.read_predictions(path)
    return replace(predictions, meta={**predictions.meta, "path": str(path)})


def read_together(
    paths: Sequence[Path], *, kind: Kind | None = None, classes: Sequence[str] | None = None
) -> list[Predictions]:
    """Read several files of the same examples; a CSV takes the names of its classes from an `.npz`."""
    found = {path: read_predictions(path) for path in paths if path.suffix == ".npz"}
    named = classes or next((one.classes for one in found.values() if one.classes), None)
    return [found.get(path) or read_predictions(path, kind=kind, classes=named) for path in paths]


def write_predictions(predictions: Predictions, path: Path | str) -> None:
    """Write an `.npz` with everything, or a CSV `id,proba,label` of two classes.

    Raises:
        ConfigError: the file name ends in neither.
        FormatError: a CSV cannot hold these predictions.
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


def _read_npz(path: Path) -> Predictions:
    predictions = Predictions.load(path)
    if len(predictions.unique()) < len(predictions):
        raise FormatError(f"{path}: {len(predictions) - len(predictions.unique())} row(s) repeat an id.")
    if predictions.scores is not None and not np.isfinite(predictions.scores).all():
        row = int(np.argwhere(~np.isfinite(predictions.scores))[0][0])
        raise FormatError(f"{path}: the scores of id {predictions.ids[row]!r} are not finite.")
    return predictions
