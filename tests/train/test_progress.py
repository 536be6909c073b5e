import io

import training_toy as toy
from rich.console import Console

from diptych.train.callbacks import Reporter
from diptych.train.checkpoint import Record
from diptych.train.learner import Learner
from diptych.train.optim import adamw
from diptych.train.progress import ProgressBar
from diptych.train.schedules import constant


def bar_of(record: Record, *, terminal: bool) -> tuple[ProgressBar, io.StringIO]:
    reporter = Reporter(10, [])
    reporter.latest = {
        "epoch": 1.5, "train/loss": 0.5, "train/lr": 1e-5, "train/examples_per_second": 123.4,
    }  # fmt: skip
    bar, screen = ProgressBar(record, reporter), io.StringIO()
    bar.console = Console(file=screen, force_terminal=terminal, width=160)
    return bar, screen


def learner(step: int) -> Learner:
    data = toy.data(80, 0)
    learner = Learner(
        *toy.parts(),
        data=data,
        plan=data.plan(seed=0),
        optim=adamw(lr=0.1),
        schedule=constant(),
        averaging=None,
        total_steps=20,
        reduction="mean",
    )
    learner.step = step
    return learner


def test_a_terminal_shows_what_a_person_wants_to_know():
    record = Record(monitor="auroc")
    bar, screen = bar_of(record, terminal=True)
    bar.start(learner(0))
    record.add({"step": 10, "epoch": 1.0, "auroc": 0.75})
    record.add({"step": 20, "epoch": 2.0, "auroc": 0.5})
    bar.after_step(learner(20))
    bar.finish(learner(20))
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
    record = Record(monitor="auroc")
    bar, screen = bar_of(record, terminal=False)
    bar.start(learner(0))
    for step in range(1, 11):
        if step == 10:
            record.add({"step": 10, "epoch": 1.0, "auroc": 0.75, "loss": 0.25})
        bar.after_step(learner(step))
    bar.close()
    line = "step 10/20: train loss 0.5000; auroc 0.7500, loss 0.2500 (best so far)\n"
    assert screen.getvalue() == line
