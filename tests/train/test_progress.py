import io

import training_toy as toy
from rich.console import Console

from diptych.train.callbacks import Reporter
from diptych.train.checkpoint import ValidationRecord
from diptych.train.loop import Loop
from diptych.train.optim import adamw
from diptych.train.progress import ProgressBar
from diptych.train.schedules import constant
from diptych.train.trainer import Trainer


def bar_of(record: ValidationRecord, *, terminal: bool) -> tuple[ProgressBar, io.StringIO]:
    reporter = Reporter(10, [])
    reporter.latest = {
        "epoch": 1.5, "train/loss": 0.5, "train/lr": 1e-5, "train/examples_per_second": 123.4,
    }  # fmt: skip
    bar, screen = ProgressBar(record, reporter), io.StringIO()
    bar.console = Console(file=screen, force_terminal=terminal, width=160)
    return bar, screen


def loop(step: int) -> Loop:
    data = toy.data(80, 0)
    loop = Loop(
        *toy.parts(),
        fabric=Trainer(accelerator="cpu").launch(),
        data=data,
        plan=data.plan(seed=0),
        optim=adamw(lr=0.1),
        schedule=constant(),
        averaging=None,
        total_steps=20,
        reduction="mean",
    )
    loop.step = step
    return loop


def test_a_terminal_shows_what_a_person_wants_to_know():
    record = ValidationRecord(monitor="auroc")
    bar, screen = bar_of(record, terminal=True)
    bar.start(loop(0))
    record.add({"step": 10, "epoch": 1.0, "auroc": 0.75})
    record.add({"step": 20, "epoch": 2.0, "auroc": 0.5})
    bar.after_step(loop(20))
    bar.finish(loop(20))
    shown = screen.getvalue()
    for part in (
        "epoch 2/2",
        "20/20",
        "loss 0.5000",
        "lr 1e-05",
        "123 examples/s",
        "auroc 0.5000 (best 0.7500)",
    ):
        assert part in shown
    assert "step 20/20: train loss 0.5000; auroc 0.5000 (best 0.7500 at 10)" in shown


def test_elsewhere_one_line_per_validation():
    record = ValidationRecord(monitor="auroc")
    bar, screen = bar_of(record, terminal=False)
    bar.start(loop(0))
    for step in range(1, 11):
        if step == 10:
            record.add({"step": 10, "epoch": 1.0, "auroc": 0.75, "loss": 0.25})
        bar.after_step(loop(step))
    bar.close()
    line = "step 10/20: train loss 0.5000; auroc 0.7500, loss 0.2500 (best so far)\n"
    assert screen.getvalue() == line
