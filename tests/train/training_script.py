"""Runs of the toy in processes of their own.

python training_script.py killed FOLDER   runs that are killed again and again until one comes through
python training_script.py ranks FOLDER    the same runs on two processes
"""

import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

import torch
import training_toy as toy

from diptych.train import EMA, FitResult, JumpSWA, Trainer, adamw, fit, linear, plateau, sgd

RUNS: dict[str, dict[str, Any]] = {
    "plain": {"trainer": {}},
    "accumulated": {"trainer": {"accumulate_grad_batches": 2}, "averaging": EMA(decay=0.9)},
    "summed": {"trainer": {"reduction": "sum", "gradient_clip_val": 5.0}, "averaging": JumpSWA()},
    # drops after every validation from the second on
    "plateau": {
        "trainer": {"val_check_interval": 6, "rate_per_example": True},
        "schedule": plateau(factor=0.5, patience=0, cooldown=0, threshold=9.0),
        "optim": sgd(lr=1e-3),
    },
}


def run(
    name: str,
    folder: Path,
    *,
    batch_size: int = 8,
    dropout: float = 0.3,
    workers: int = 0,
    threads: int = 1,
    **trainer: Any,
) -> FitResult:
    """Train one of `RUNS` and save its weights as `weights.pt`."""
    torch.set_num_threads(threads)
    model, task = toy.parts(dropout=dropout)
    settings = {"max_epochs": 3, "accelerator": "cpu", "checkpoint_every": 7, "log_every_n_steps": 5}
    result = fit(
        model,
        task,
        toy.data(93, 31, batch_size=batch_size, workers=workers),
        folder=folder,
        optim=RUNS[name].get("optim", adamw(lr=3e-3)),
        schedule=RUNS[name].get("schedule", linear()),
        averaging=RUNS[name].get("averaging"),
        trainer=Trainer(**(settings | RUNS[name]["trainer"] | trainer)),
        seed=5,
        loggers=[],
        progress=False,
    )
    if result.main:
        torch.save({**model.state_dict(), **task.state_dict()}, folder / "weights.pt")
    return result


def kill_again_and_again(folder: Path, *, times: int = 3) -> None:
    """Fork runs of 180 steps; each of the first ones gets SIGKILL a moment after it wrote a checkpoint."""
    moments = random.Random(0)
    for _ in range(times):
        child, before = _fork(folder), _written(folder)
        while _written(folder) == before:
            time.sleep(0.001)
        time.sleep(moments.uniform(0, 0.01))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status), "the run was over before it could be killed"
    _, status = os.waitpid(_fork(folder), 0)
    assert os.waitstatus_to_exitcode(status) == 0
    print(f"killed {times} times")


def _fork(folder: Path) -> int:
    child = os.fork()
    if child == 0:
        run("accumulated", folder, max_epochs=30)
        os._exit(0)
    return child


def _written(folder: Path) -> int:
    last = folder / "checkpoints/last.ckpt"
    return last.stat().st_mtime_ns if last.exists() else 0


if __name__ == "__main__":
    where = Path(sys.argv[2])
    if sys.argv[1] == "killed":
        kill_again_and_again(where)
    else:
        for each in RUNS:
            run(each, where / each, batch_size=4, dropout=0.0, devices=2, strategy="ddp")
