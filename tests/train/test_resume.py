import csv
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import training_script
import training_toy as toy

from diptych.errors import ConfigError, FormatError
from diptych.train import adamw, fit


class Crash(Exception):
    """Stands for whatever ends a process."""


@pytest.fixture
def crash_at(monkeypatch):
    """Let the toy task fail, or another thing happen, at its n-th training batch."""

    def arm(number: int, event) -> None:
        calls, forward = iter(range(1, 10_000)), toy.Compare.loss

        def loss(self, logits, batch):
            if self.training and next(calls) == number:
                event()
            return forward(self, logits, batch)

        monkeypatch.setattr(toy.Compare, "loss", loss)

    return arm


def crash() -> None:
    raise Crash


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "weights.pt", weights_only=True)


def assert_same_run(left: Path, right: Path) -> None:
    one, other = weights(left), weights(right)
    assert all(torch.equal(one[name], other[name]) for name in one)
    first, second = (torch.load(path / "checkpoints/last.ckpt", weights_only=True) for path in (left, right))
    assert first["record"] == second["record"]
    assert stable_rows(left) == stable_rows(right)


def stable_rows(folder: Path) -> list[dict[str, str]]:
    """Lines of metrics.csv without the speed, and without losses, whose window restarts with the run."""
    with (folder / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [{k: v for k, v in row.items() if k.startswith("val/") or k == "step"} for row in rows]


@pytest.mark.parametrize("name", training_script.RUNS)
@pytest.mark.parametrize("batch", [9, 20, 33])
def test_a_crashed_run_ends_in_the_same_weights(tmp_path, crash_at, name, batch):
    training_script.run(name, tmp_path / "whole")
    crash_at(batch, crash)
    with pytest.raises(Crash):
        training_script.run(name, tmp_path / "cut")
    result = training_script.run(name, tmp_path / "cut")
    assert result.steps == result.total_steps
    assert_same_run(tmp_path / "whole", tmp_path / "cut")


def test_another_number_of_threads_is_said_when_a_run_goes_on(tmp_path, crash_at):
    crash_at(20, crash)
    with pytest.raises(Crash):
        training_script.run("accumulated", tmp_path)
    threads = torch.get_num_threads()
    try:
        with pytest.warns(UserWarning, match=r"\b1 thread.*\b2;.*OMP_NUM_THREADS=1"):
            training_script.run("accumulated", tmp_path, threads=2)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.slow
def test_killed_at_random_moments_ends_in_the_same_weights(tmp_path):
    script = str(Path(training_script.__file__))
    done = subprocess.run(
        [sys.executable, script, "killed", str(tmp_path / "killed")],
        capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout == "killed 3 times\n"
    training_script.run("accumulated", tmp_path / "whole", max_epochs=30)
    assert_same_run(tmp_path / "whole", tmp_path / "killed")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_asking_to_stop_keeps_a_checkpoint_and_the_next_call_goes_on(tmp_path, crash_at, number):
    training_script.run("accumulated", tmp_path / "whole")
    crash_at(9, lambda: os.kill(os.getpid(), number))
    before = signal.getsignal(number)
    stopped = training_script.run("accumulated", tmp_path / "cut")
    assert signal.getsignal(number) is before
    assert (stopped.interrupted, stopped.steps) == (True, 5)
    resumed = training_script.run("accumulated", tmp_path / "cut")
    assert (resumed.interrupted, resumed.steps) == (False, 18)
    assert_same_run(tmp_path / "whole", tmp_path / "cut")


def test_an_interrupt_of_the_whole_process_group_spares_the_workers(tmp_path, crash_at):
    def interrupt_all() -> None:
        for process in (os.getpid(), *(child.pid for child in multiprocessing.active_children())):
            os.kill(process, signal.SIGINT)
        time.sleep(0.2)

    crash_at(9, interrupt_all)
    began = time.perf_counter()
    stopped = training_script.run("plain", tmp_path, workers=2)
    assert (stopped.interrupted, stopped.steps) == (True, 9)
    assert not multiprocessing.active_children()
    assert time.perf_counter() - began < 5  # nobody was waited for in vain


def test_a_second_interrupt_is_final(tmp_path, crash_at):
    def twice() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    crash_at(20, twice)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        training_script.run("plain", tmp_path)
    assert signal.getsignal(signal.SIGINT) is before
    assert training_script.run("plain", tmp_path).steps == 36


def test_a_finished_run_is_not_trained_again(tmp_path, crash_at):
    first = training_script.run("plain", tmp_path)
    expected = weights(tmp_path)
    crash_at(1, crash)
    second = training_script.run("plain", tmp_path)
    assert (second.metrics, second.history, second.kept) == (first.metrics, first.history, first.kept)
    assert all(torch.equal(tensor, weights(tmp_path)[name]) for name, tensor in expected.items())


def test_other_settings_and_damaged_checkpoints_are_refused(tmp_path):
    training_script.run("plain", tmp_path)
    with pytest.raises(ConfigError, match=r"last\.ckpt.*examples per step"):
        training_script.run("plain", tmp_path, batch_size=4)
    last = tmp_path / "checkpoints/last.ckpt"
    last.write_bytes(last.read_bytes()[:1000])
    with pytest.raises(FormatError, match=r"last\.ckpt"):
        training_script.run("plain", tmp_path)


def test_not_resuming_refuses_a_folder_with_checkpoints(tmp_path):
    training_script.run("plain", tmp_path)
    with pytest.raises(ConfigError, match=r"checkpoints\b"):
        fit(*toy.parts(), toy.data(), folder=tmp_path, optim=adamw(lr=0.1), resume=False)
