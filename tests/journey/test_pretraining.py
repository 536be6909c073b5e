"""Pre-training as LXMERT on a miniature mix: objectives learn something that chance does not give."""

import csv
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from diptych.cli import main
from diptych.datasets.lxmert import LxmertPretraining

pytestmark = pytest.mark.journey
LOSSES = ("words", "regions.labels", "regions.attributes", "regions.features", "answers")


def validations(run: Path) -> list[dict[str, Any]]:
    with (run / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row.get("val/loss")]
    return [{name.removeprefix("val/"): float(value) for name, value in row.items() if value} for row in rows]


def commonest_answer(root: Path) -> float:
    """The accuracy of whoever gives every question the commonest answer."""
    targets = [one.target for one in LxmertPretraining(root, "mscoco_minival") if one.target]
    counts: Counter[str] = Counter()
    for target in targets:
        counts.update(target)
    return counts.most_common(1)[0][1] / len(targets)


@pytest.mark.timeout(1800)
def test_losses_fall_and_probes_are_above_chance(tmp_path: Path) -> None:
    root, run = tmp_path / "mix", tmp_path / "run"
    assert main(["world", str(root), "--data", "lxmert", "--size", "400", "--seed", "1"]) == 0
    words = [f"root={root}", f"out={run}", "trainer.max_epochs=5", "progress=false", "loggers=[]"]
    assert main(["train", "experiment=pretrain/lxmert_tiny", *words]) == 0
    first, *_, last = validations(run)
    assert all(last[name] < first[name] for name in LOSSES)
    # Measured: words 0.51, labels 0.14 of 21 classes, attributes 0.48 of 12, answers 0.40. Matching needs
    # more epochs: its loss falls after eight, and its accuracy is 0.57 after twelve.
    assert last["words.accuracy"] > 0.3
    assert last["regions.labels.accuracy"] > 0.08
    assert last["regions.attributes.accuracy"] > 0.25
    assert last["answers.accuracy"] > commonest_answer(root) + 0.05
