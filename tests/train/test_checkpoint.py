import argparse
import collections
import errno
import io
import math
import pickle
from contextlib import contextmanager

import pytest
import torch
from torch import nn

from diptych.errors import CheckpointMismatch, ConfigError, DiptychError, FormatError
from diptych.files import atomic_file
from diptych.train import checkpoint
from diptych.train.checkpoint import ValidationRecord, load, load_weights, require_same, save


def row(step: int, value: float, name: str = "auroc") -> dict[str, float]:
    return {"step": step, "epoch": step / 10, name: value}


def test_best_is_the_first_highest():
    record = ValidationRecord(monitor="auroc")
    assert [record.add(row(step, value)) for step, value in enumerate((0.5, 0.7, 0.7, 0.6, 0.8))] == [
        True, True, False, False, True,
    ]  # fmt: skip
    assert (record.best, record.best_step, record.stale) == (0.8, 4, 0)


def test_of_equals_the_one_with_the_lower_loss_is_kept_without_being_progress():
    record = ValidationRecord(monitor="auroc")
    losses = (0.6, 0.4, 0.5, 0.1)
    rows = [{**row(step, 1.0), "loss": loss} for step, loss in enumerate(losses)]
    assert [record.add(one) for one in rows] == [True, True, False, True]
    assert (record.best_step, record.stale) == (3, 3)


@pytest.mark.parametrize("name", ["loss", "words"])
def test_what_is_minimized_is_best_when_lowest(name):
    record = ValidationRecord(monitor=name, minimized=True)
    assert [record.add(row(step, value, name)) for step, value in enumerate((0.5, 0.7, 0.4))] == [
        True, False, True,
    ]  # fmt: skip


def test_a_record_of_version_0_1_did_not_say_the_direction():
    old = {
        name: value
        for name, value in ValidationRecord(monitor="loss").as_dict().items()
        if name != "minimized"
    }
    assert ValidationRecord(**old) == ValidationRecord(monitor="loss")


def test_small_improvements_do_not_count():
    record = ValidationRecord(monitor="auroc")
    record.add(row(1, 0.5))
    assert not record.add(row(2, 0.5005), min_delta=0.001)
    assert record.stale == 1


def test_nan_is_worse_than_anything():
    record = ValidationRecord(monitor="auroc")
    record.add(row(1, math.nan))
    assert record.stale == 1
    assert record.add(row(2, 0.1))
    assert not record.add(row(3, math.nan))
    assert (record.best, record.best_step) == (0.1, 2)


def test_checkpoint_holds_plain_values_and_comes_back(tmp_path):
    record = ValidationRecord(monitor="auroc")
    record.add(row(7, 0.5))
    save(tmp_path / "a.ckpt", {"weights": nn.Linear(2, 1).state_dict(), "record": record.as_dict()})
    state = load(tmp_path / "a.ckpt")
    assert ValidationRecord(**state["record"]) == record


def test_a_full_disk_leaves_the_checkpoint_before(tmp_path, monkeypatch):
    path, weights = tmp_path / "a.ckpt", {"weights": nn.Linear(200, 200).state_dict()}
    save(path, {**weights, "step": 1})

    @contextmanager
    def full(path, mode="wb"):
        with atomic_file(path) as file:
            yield Full(file)

    monkeypatch.setattr(checkpoint, "atomic_file", full)
    with pytest.raises(DiptychError, match=r"a\.ckpt") as error:
        save(path, {**weights, "step": 2})
    assert not isinstance(error.value, FormatError)
    assert load(path)["step"] == 1
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.ckpt"]


class Full(io.RawIOBase):
    """A disk with room for 10 kB."""

    def __init__(self, file) -> None:
        self.file, self.room = file, 10_000

    def writable(self) -> bool:
        return True

    def write(self, data) -> int:
        self.room -= len(data)
        if self.room < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return self.file.write(data)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut off", pickle.dumps(print)])
def test_damaged_or_foreign_files_are_refused(tmp_path, content):
    path = tmp_path / "a.ckpt"
    path.write_bytes(content)
    with pytest.raises(FormatError, match=r"^\S+a\.ckpt"):
        load(path)
    torch.save([1], path)
    with pytest.raises(FormatError, match=r"^\S+a\.ckpt.* weights"):
        load(path)


def test_weights_of_another_model_are_refused(tmp_path):
    with pytest.raises(CheckpointMismatch, match=r"x\.ckpt"):
        load_weights(nn.Linear(2, 1), {"weights": nn.Linear(3, 1).state_dict()}, tmp_path / "x.ckpt")


def test_other_settings_are_named(tmp_path):
    with pytest.raises(ConfigError, match=r"last\.ckpt.*seed\b.* 1,.* 2\b") as error:
        require_same({"seed": 1, "steps": 3}, {"seed": 2, "steps": 3}, tmp_path / "last.ckpt")
    assert "steps" not in str(error.value)


def test_the_whole_content_comes_back(tmp_path):
    shared = [torch.tensor(2.5), {"deep": torch.zeros(0, 3)}]
    content = {
        "weights": collections.OrderedDict(
            a=torch.arange(6).view(2, 3), b=torch.ones(4, dtype=torch.bfloat16)
        ),
        "state": {0: {"step": torch.tensor(7.0)}, 1: {"step": torch.tensor(8.0)}},
        "random": (3, (1 << 127, 2), None, True, "x", b"y", -1.5),
        "shared": [shared, shared],
        **{f"row {number}": {"one": torch.tensor(float(number))} for number in range(300)},
    }
    torch.save(content, tmp_path / "a.ckpt")
    found = load(tmp_path / "a.ckpt")
    assert found["weights"]["a"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert found["weights"]["b"].dtype == torch.bfloat16
    assert [one["step"].item() for one in found["state"].values()] == [7.0, 8.0]
    assert found["random"] == content["random"]
    assert found["shared"][0] is found["shared"][1]
    assert found["shared"][0][1]["deep"].shape == (0, 3)
    assert [found[f"row {number}"]["one"].item() for number in range(300)] == [*range(300)]


def test_content_beyond_plain_values_is_refused(tmp_path):
    circle = []
    circle.append(circle)
    deep = []
    for _ in range(60):
        deep = [deep, deep]  # 2 ** 60 leaves
    for odd in (argparse.Namespace(a=1), {1, 2}, circle):
        torch.save({"weights": {}, "odd": odd}, tmp_path / "a.ckpt")
        with pytest.raises(FormatError, match=r"a\.ckpt"):
            load(tmp_path / "a.ckpt")
    torch.save({"weights": {}, "deep": deep}, tmp_path / "a.ckpt")
    assert len(load(tmp_path / "a.ckpt")["deep"]) == 2
