"""How often a split was looked at, and how much the best of many looks flatters.

The best of k models that are equally good looks better than they are: by about the expected maximum of k
errors of measurement. Runs and checkpoints are alike, so the true optimism is smaller; this is an upper end.
"""

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diptych.audit.sheet import Sheet
from diptych.data.inputs import file_checksum
from diptych.documents import read_json, read_yaml
from diptych.errors import ConfigError, FormatError
from diptych.predict import bundle_checksum
from diptych.predictions import Predictions

ADVICE = "Expected the folder of a run of `diptych train`."


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFolder:
    """What a run's folder says about the run.

    Args:
        config: its settings.
        inputs: checksums of the files that it read, by path.
        rows: of `metrics.csv`, numbers by column.
        predictions: prediction files, by split.
    """

    path: Path
    config: Mapping[str, Any]
    inputs: Mapping[str, str]
    rows: tuple[Mapping[str, float], ...]
    predictions: Mapping[str, Path]

    @property
    def validated(self) -> str | None:
        """The split that chose the checkpoint; None if none did."""
        node = self.config.get("data", {}).get("validate")
        return str(node["split"]) if isinstance(node, Mapping) and "split" in node else None

    @property
    def looks(self) -> list[Mapping[str, float]]:
        """The validations."""
        return [row for row in self.rows if any(name.startswith("val/") for name in row)]

    @property
    def measure(self) -> str | None:
        """Name of the main measure of the validations, without `val/`."""
        names = (name for row in self.looks for name in row if name.startswith("val/") and "loss" not in name)
        return next((name.removeprefix("val/") for name in names), None)


def find_runs(paths: Iterable[Path]) -> list[RunFolder]:
    """Read run folders; a folder of runs, such as that of a study, stands for all runs below it.

    Raises:
        ConfigError: there is no run.
        FormatError: a run's folder is damaged; names the file.
    """
    found: list[RunFolder] = []
    for path in paths:
        if not path.is_dir():
            raise ConfigError(f"{path} is not a folder. {ADVICE}")
        configs = sorted(path.rglob("config.yaml"))
        # A hidden folder holds a run that another one replaces.
        folders = [one.parent for one in configs if not _hidden(one.relative_to(path))]
        if not folders:
            raise ConfigError(f"{path} has no config.yaml, so it is no run and holds none. {ADVICE}")
        found += map(read_run, folders)
    return found


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def read_run(path: Path) -> RunFolder:
    """Read the settings, inputs and validations of a run.

    Raises:
        FormatError: a file is damaged.
    """
    config = read_yaml(path / "config.yaml", dict[str, Any], advice=ADVICE)
    if not isinstance(config.get("data"), dict):
        raise FormatError(f"{path / 'config.yaml'}: not the settings of a run, which have `data`. {ADVICE}")
    inputs = path / "inputs.json"
    return RunFolder(
        path=path,
        config=config,
        inputs=read_json(inputs, dict[str, str], advice=ADVICE) if inputs.is_file() else {},
        rows=_rows(path / "metrics.csv"),
        predictions=_predictions(path),
    )


def _predictions(path: Path) -> dict[str, Path]:
    """Prediction files by split: in the folder of the run, or beside it, where a study has them."""
    if own := sorted((path / "predictions").glob("*.npz")):
        return {file.stem: file for file in own}
    if not (path / "bundle").is_dir():
        return {}
    beside = sorted(path.parent.glob("predictions-*/*.npz"))
    # A member may have several runs, such as with dev in training; the files say of which they are.
    model = bundle_checksum(path) if beside else None
    return {file.stem: file for file in beside if Predictions.load(file).model == model}


def _rows(path: Path) -> tuple[dict[str, float], ...]:
    if not path.is_file():  # the run has not reached its first line
        return ()
    rows = []
    with path.open(newline="", encoding="utf-8-sig") as file:
        try:
            for number, row in enumerate(csv.DictReader(file), 2):  # noqa: B007 (for the error)
                # Losses and validations are on different lines, so most cells are empty.
                rows.append({str(name): float(cell) for name, cell in row.items() if cell})
        except (ValueError, TypeError, csv.Error) as error:
            raise FormatError(f"{path}:{number}: not a line of numbers ({error}). {ADVICE}") from error
    return tuple(rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class Looks:
    """Looks at one split.

    Args:
        runs: runs that were validated on it; `validations`, their validations.
        files: prediction files of it, of runs with or without validation on it.
        best: the best validation; nan without one, or if runs have different measures.
        error: standard error of the measure at this value; nan if it is unknown for the measure.
        optimism: expected gain of the best run over its true value, if runs were independent and equally
            good; `most`, if all validations were.
    """

    split: str
    runs: int
    validations: int
    files: int
    measure: str | None
    best: float
    error: float
    optimism: float
    most: float


def looks_at(sheet: Sheet, runs: Sequence[RunFolder]) -> list[Looks]:
    """Count the looks of runs at each split of a sheet.

    Raises:
        ConfigError: a run read other annotations than those of the sheet.
    """
    # By content: the paths of another machine say nothing.
    known = {file_checksum(file) for dataset in sheet.datasets.values() for file in dataset.files}
    for run in runs:
        # Before checksums were recorded, a run could only be believed.
        if run.inputs and not known & set(run.inputs.values()):
            raise ConfigError(
                f"{run.path}: the run read none of the annotations of {sheet.root}, or they have changed "
                "since. Expected runs on this data set."
            )
    found = []
    for split in sheet.splits:
        own = [run for run in runs if run.validated == split]
        files = sum(split in run.predictions for run in runs)
        if own or files:
            found.append(_looks(sheet, split, own, files))
    return found


def _looks(sheet: Sheet, split: str, runs: Sequence[RunFolder], files: int) -> Looks:
    measures = {run.measure for run in runs if run.looks}
    # An accuracy and an AUROC have no common best.
    measure = measures.pop() if len(measures) == 1 else None
    values = [row[f"val/{measure}"] for run in runs for row in run.looks if f"val/{measure}" in row]
    best = max(values, default=float("nan"))
    labels = [sheet.labels[row] for row in sheet.rows(split)]
    error = standard_error(
        measure, best, [label for label in labels if label is not None], sheet.data.kind.positive
    )
    validations = sum(len(run.looks) for run in runs)
    return Looks(
        split=split,
        runs=len(runs),
        validations=validations,
        files=files,
        measure=measure,
        best=best,
        error=error,
        optimism=error * expected_maximum(len(runs)),
        most=error * expected_maximum(validations),
    )


def standard_error(measure: str | None, value: float, labels: Sequence[str], positive: str | None) -> float:
    """Standard error of an AUROC (Hanley and McNeil, 1982) or an accuracy; nan for other measures."""
    if measure == "accuracy" and labels:
        # Of the binomial distribution.
        return math.sqrt(max(value * (1 - value), 0.0) / len(labels))
    positives = sum(label == positive for label in labels)
    negatives = len(labels) - positives
    if measure != "auroc" or not positives or not negatives or math.isnan(value):
        return float("nan")
    # q1: two positives both rank above one negative; q2: one positive ranks above two negatives. Hanley and
    # McNeil's forms for exponential scores, which need no more than the AUROC itself.
    q1, q2 = value / (2 - value), 2 * value**2 / (1 + value)
    variance = value * (1 - value) + (positives - 1) * (q1 - value**2) + (negatives - 1) * (q2 - value**2)
    return math.sqrt(max(variance, 0.0) / (positives * negatives))


def expected_maximum(count: int) -> float:
    """Expected maximum of independent standard normal numbers (Blom, 1958); 0 for fewer than two."""
    from scipy.stats import norm

    # Blom's plotting position: for 10 it gives 1.55, and exact is 1.54.
    return float(norm.ppf((count - 0.375) / (count + 0.25))) if count > 1 else 0.0
