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

from diptych.train import EMA, FitResult, JumpSWA, Trainer, adamw, fit, linear

RUNS: dict[str, dict[str, Any]] = {
    "plain": {"trainer": {}},
    "accumulated": {"trainer": {"accumulate_grad_batches": 2}, "averaging": EMA(decay=0.9)},
    "summed": {"trainer": {"reduction": "sum", "gradient_clip_val": 5.0}, "averaging": JumpSWA()},
}


def run(
    name: str, folder: Path, *, batch_size: int = 8, dropout: float = 0.3, workers: int = 0, **trainer: Any
) -> FitResult:
    """Train one of `RUNS` and save its weights as `weights.pt`."""
    torch.set_num_threads(1)
    model, task = toy.parts(dropout=dropout)
    settings = {"max_epochs": 3, "accelerator": "cpu", "checkpoint_every": 7, "log_every_n_steps": 5}
    result = fit(
        model,
        task,
        toy.data(93, 31, batch_size=batch_size, workers=workers),
        folder=folder,
        optim=adamw(lr=3e-3),
        schedule=linear(),
        averaging=RUNS[name].get("averaging"),
        trainer=Trainer(**(settings | RUNS[name]["trainer"] | trainer)),
        seed=5,
        loggers=[],
        progress=False,
    )
    if result.main:
        torch.save({**model.state_dict(), **task.state_dict()}, folder / "weights.pt")
    return result


def kill_again_and_again(folder: Path) -> None:
    """Fork runs of 180 steps and send SIGKILL at random moments until one ends by itself."""
    moments, kills = random.Random(0), 0
    while True:
        child = os.fork()
        if child == 0:
            run("accumulated", folder, max_epochs=30)
            os._exit(0)
        time.sleep(moments.uniform(0.1, 0.6))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if os.WIFEXITED(status) and os.WEXITSTATUS(status) == 0:
            break
        kills += 1
    print(f"killed {kills} times")


if __name__ == "__main__":
    where = Path(sys.argv[2])
    if sys.argv[1] == "killed":
        kill_again_and_again(where)
    else:
        for each in RUNS:
            run(each, where / each, batch_size=4, dropout=0.0, devices=2, strategy="ddp")
