import csv

import pytest

from diptych.errors import ConfigError
from diptych.train import loggers
from diptych.train.loggers import MetricsFile, open_loggers


def rows(path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_columns_may_appear_later(tmp_path):
    file = MetricsFile(tmp_path / "metrics.csv")
    file.log_metrics({"train/loss": 0.5}, 10)
    file.log_metrics({"val/auroc": 0.75}, 10)
    file.log_metrics({"train/loss": 0.25}, 20)
    assert rows(tmp_path / "metrics.csv") == [
        {"step": "10", "train/loss": "0.5", "val/auroc": ""},
        {"step": "10", "train/loss": "", "val/auroc": "0.75"},
        {"step": "20", "train/loss": "0.25", "val/auroc": ""},
    ]


def test_lines_after_the_checkpoint_and_half_lines_are_dropped(tmp_path):
    path = tmp_path / "metrics.csv"
    file = MetricsFile(path)
    for step in (10, 20, 30):
        file.log_metrics({"train/loss": 0.5}, step)
    with path.open("a") as half:
        half.write("2")
    again = MetricsFile(path, step=20)
    again.log_metrics({"train/loss": 0.25}, 30)
    assert [(row["step"], row["train/loss"]) for row in rows(path)] == [
        ("10", "0.5"), ("20", "0.5"), ("30", "0.25"),
    ]  # fmt: skip


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(loggers, "find_spec", lambda name: None)
    assert len(open_loggers(None, tmp_path, step=0)) == 1
    with pytest.raises(ConfigError, match=r'pip install "wandb"'):
        open_loggers(["wandb"], tmp_path, step=0)


def test_an_unknown_name_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"'tensorbord'.* 'tensorboard'\?"):
        open_loggers(["tensorbord"], tmp_path, step=0)
