"""Scores of two classes as CSV, `id,proba,label`: the format of the Hateful Memes challenge and of Vilio."""

import csv
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from diptych.errors import ConfigError, FormatError, nearest
from diptych.files import atomic_file, require_file
from diptych.predictions import Predictions

Kind = Literal["probability", "log_probability", "logit", "raw"]
RANGES = {
    "probability": (0.0, 1.0),
    "log_probability": (-math.inf, 0.0),
    "logit": (-math.inf, math.inf),
    "raw": (-math.inf, math.inf),
}
LABELS = ("0", "1")  # in files


def read_scores(path: Path, *, kind: Kind | None = None, classes: Sequence[str] = LABELS) -> Predictions:
    """Read a CSV with the columns `id`, `proba` and optionally `label`, as probabilities of both classes.

    In Vilio's files, `proba` is a log-probability (PyTorch models) or log-odds (ERNIE-ViL). The kind is
    inferred from the range of the column: all in [0, 1], all at most 0, or values of both signs. `label`
    becomes the answer only if `proba` is a probability or `raw`, because Vilio's own labels do not always
    follow from its scores.

    Args:
        kind: kind of `proba`; None infers it. `raw` numbers are kept, and class 0 gets the negated numbers.
        classes: names of the classes 0 and 1.

    Raises:
        FormatError: a column is missing, a value is not a number or outside the range of its kind, an id is
            empty or repeated, or the kind cannot be inferred. Names file and line.
    """
    if kind is not None and kind not in RANGES:
        raise ConfigError(f"kind is {kind!r}; expected one of {get_args(Kind)}.{nearest(kind, RANGES)}")
    from scipy.special import expit  # slow to import

    values: dict[str, float] = {}
    labels: dict[str, str] = {}
    lines: list[int] = []
    for line, row in csv_records(path, ("id", "proba")):
        key, where = row["id"].strip(), f"{path}:{line}"
        if not key or key in values:
            problem = f"id {key!r} occurs a second time" if key else "the id is empty"
            raise FormatError(f"{where}: {problem}; expected one row per id.")
        values[key] = _number(row["proba"], where)
        lines.append(line)
        if "label" in row:
            labels[key] = row["label"].strip()
            if labels[key] not in LABELS:
                raise FormatError(f"{where}: label is {labels[key]!r}; expected 0 or 1.")
    if not values:
        raise FormatError(f"{path}: there are no predictions below the header.")
    # All rows first: the kind shows in the range of the whole column, not in a single score.
    raw = np.array(list(values.values()))
    kind = kind or _kind(raw, path)
    low, high = RANGES[kind]
    if (outside := np.flatnonzero((raw < low) | (raw > high))).size:
        first = int(outside[0])
        raise FormatError(
            f"{path}:{lines[first]}: proba is {raw[first]:g}; expected a {kind} in [{low:g}, {high:g}]."
        )
    # The scores of both classes add up to `whole`; from `even` on, class 1 is the answer.
    whole, even = (0, 0.0) if kind == "raw" else (1, 0.5)
    positive = {"log_probability": np.exp, "logit": expit}.get(kind, np.asarray)(raw)
    # Vilio's E writes the label 0 for every row, and its ensemble's threshold is fitted on dev_seen.
    decided = [label == "1" for label in labels.values()] if kind in ("probability", "raw") else []
    answers = tuple(classes[int(yes)] for yes in (decided or positive >= even))
    scores = np.stack((whole - positive, positive), axis=1)
    return Predictions(
        ids=tuple(values), scores=scores, answers=answers, classes=tuple(classes), meta={"kind": kind}
    )


def write_scores(predictions: Predictions, path: Path) -> None:
    """Write predictions of two classes as a CSV `id,proba,label`.

    `proba` is the score of the second class, and `label` is 1 if the answer is that class. Scores of the kind
    `raw` are written with all digits; others must be probabilities.

    Raises:
        FormatError: the predictions do not have two classes, or a score is not a probability.
    """
    if predictions.classes is None or len(predictions.classes) != 2 or predictions.scores is None:
        raise FormatError(
            f"{path}: a CSV needs scores of two classes; got the classes {predictions.classes}. Write .npz."
        )
    proba, positive = predictions.scores[:, 1], predictions.classes[1]
    raw = predictions.meta.get("kind") == "raw"
    # Negated, so that NaN is bad, too.
    if not raw and (bad := np.flatnonzero(~((proba >= 0) & (proba <= 1)))).size:
        key, value = predictions.ids[bad[0]], proba[bad[0]]
        raise FormatError(f"{path}: the score of id {key!r} is {value:g}; expected probabilities in [0, 1].")
    labels = proba >= (0 if raw else 0.5)
    if predictions.answers is not None:
        labels = np.array([answer == positive for answer in predictions.answers])
    with atomic_file(path, "w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(("id", "proba", "label"))
        for key, value, label in zip(predictions.ids, proba, labels, strict=True):
            # 9 digits identify a float32, 17 a float64.
            rows.writerow((key, f"{value:.17g}" if raw else f"{value:.9g}", int(label)))


def csv_records(path: Path, columns: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield line number and cells, by column, of every row that is not blank.

    Args:
        columns: those that the header must have.

    Raises:
        FormatError: a column is missing, a row has another number of cells, or the file is no UTF-8 CSV.
    """
    with open(require_file(path, "a CSV file"), encoding="utf-8-sig", newline="") as file:
        rows = csv.reader(file, strict=True)  # strict: an open quote is an error
        try:
            header = [name.strip() for name in next(rows, [])]
            if missing := [name for name in columns if name not in header]:
                raise FormatError(
                    f"{path}:1: column {' and '.join(missing)} missing in {header}; "
                    f"expected {' and '.join(columns)}."
                )
            for row in rows:
                if not any(cell.strip() for cell in row):
                    continue
                if len(row) != len(header):
                    raise FormatError(
                        f"{path}:{rows.line_num}: {len(row)} cells; expected {len(header)} as in the header."
                    )
                yield rows.line_num, dict(zip(header, row, strict=True))
        except (csv.Error, UnicodeDecodeError) as error:
            # The reader has not counted the line that it failed on.
            raise FormatError(f"{path}:{rows.line_num + 1}: not readable as UTF-8 CSV ({error}).") from error


def _number(text: str, where: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise FormatError(f"{where}: proba is {text!r}; expected a finite number.")
    return value


def _kind(raw: Float[ndarray, " N"], path: Path) -> Kind:
    low, high = float(raw.min()), float(raw.max())
    # The order matters: a column of zeros is read as probabilities, not as log-probabilities.
    if low >= 0 and high <= 1:
        return "probability"
    if high <= 0:
        return "log_probability"
    if low < 0:
        return "logit"
    raise FormatError(
        f"{path}: proba is between {low:g} and {high:g}, which fits neither probabilities (0 to 1) nor "
        "log-probabilities (at most 0) nor log-odds (both signs); set kind=..."
    )
