"""Loggers of metrics: `metrics.csv` always, and TensorBoard, Weights & Biases or MLflow on request."""

import csv
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol, runtime_checkable

from diptych.errors import ConfigError, nearest
from diptych.files import atomic_file


@runtime_checkable
class MetricLogger(Protocol):
    """A destination of metrics."""

    def log_metrics(self, metrics: dict[str, float], step: int) -> None:
        """Write the metrics after `step` optimizer steps."""
        ...

    def finalize(self, status: str) -> None:
        """End the log; `status` is `success` or `failed`."""
        ...


class MetricsFile:
    """Writes one line of `metrics.csv` per report. If a new metric appears, the file is written again.

    Args:
        step: step from which the run continues. Later lines, which a killed run has left, are dropped.
    """

    def __init__(self, path: Path, *, step: int = 0) -> None:
        self.path = path
        self.rows: list[dict[str, str]] = []
        if path.exists():
            complete = path.read_text(encoding="utf-8").rpartition("\n")[0]  # a kill may leave half a line
            self.rows = [row for row in csv.DictReader(complete.splitlines()) if int(row["step"]) <= step]
        self.columns = list(dict.fromkeys(name for row in self.rows for name in row)) or ["step"]
        self._write_all()

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        row = {"step": str(step), **{name: f"{value:.8g}" for name, value in metrics.items()}}
        self.rows.append(row)
        new = [name for name in row if name not in self.columns]
        if new:  # the header changes, so all lines are written again
            self.columns += new
            self._write_all()
            return
        # Opened for each line, so that a killed run has all lines on disk.
        with self.path.open("a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, self.columns, lineterminator="\n").writerow(row)

    def finalize(self, status: str) -> None:
        pass

    def _write_all(self) -> None:
        with atomic_file(self.path, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self.columns, lineterminator="\n")
            writer.writeheader()
            writer.writerows(self.rows)


def open_loggers(names: Sequence[str] | None, folder: Path, *, step: int) -> list[MetricLogger]:
    """Open `metrics.csv` and the named loggers.

    Args:
        names: names of `PLACES`. None is TensorBoard if it is installed.
        step: step from which the run continues.

    Raises:
        ConfigError: a name is unknown, or its package is not installed.
    """
    if names is None:
        names = ["tensorboard"] if find_spec("tensorboard") else []
    return [MetricsFile(folder / "metrics.csv", step=step), *(_open(name, folder, step) for name in names)]


class TensorBoard:
    """Writes scalars to the folder `tensorboard/`."""

    def __init__(self, folder: Path, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        # `purge_step` hides what a killed run wrote after its last checkpoint.
        self.writer = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        for name, value in metrics.items():
            self.writer.add_scalar(name, value, step)

    def finalize(self, status: str) -> None:
        self.writer.close()


class WeightsAndBiases:
    """Writes to a run of Weights & Biases that has the name of the folder."""

    def __init__(self, folder: Path, step: int) -> None:
        import wandb

        self.run = wandb.init(dir=str(folder), name=folder.name)

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        self.run.log(dict(metrics), step=step)

    def finalize(self, status: str) -> None:
        self.run.finish(exit_code=0 if status == "success" else 1)


class MLflow:
    """Writes to a run of MLflow in the folder `mlflow/`."""

    def __init__(self, folder: Path, step: int) -> None:
        from mlflow import MlflowClient

        self.client = MlflowClient(tracking_uri=(folder.absolute() / "mlflow").as_uri())
        self.run = self.client.create_run("0", run_name=folder.name).info.run_id

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        for name, value in metrics.items():
            self.client.log_metric(self.run, name, value, step=step)

    def finalize(self, status: str) -> None:
        self.client.set_terminated(self.run, "FINISHED" if status == "success" else "FAILED")


PLACES: dict[str, Callable[[Path, int], MetricLogger]] = {
    "tensorboard": TensorBoard,
    "wandb": WeightsAndBiases,
    "mlflow": MLflow,
}


def _open(name: str, folder: Path, step: int) -> MetricLogger:
    if name not in PLACES:
        allowed = ", ".join(PLACES)
        raise ConfigError(f"loggers contains {name!r}; expected some of {allowed}.{nearest(name, PLACES)}")
    # Looked for without importing: these packages take seconds.
    if find_spec(name) is None:
        raise ConfigError(f'loggers contains {name!r}, which is not installed: pip install "{name}"')
    return PLACES[name](folder, step)
