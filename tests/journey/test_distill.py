"""An ensemble judges the training memes out of fold, and a small model learns from it."""

import json

import pytest
from scripts.distill import folds_of, main

from diptych.cli import main as diptych
from diptych.datasets import HatefulMemes
from diptych.errors import FormatError
from diptych.predictions import Predictions
from diptych.recipe import compose, run_recipe

pytestmark = pytest.mark.journey
TEACHERS = ["text_bert_tiny", "clip_linear_tiny"]


@pytest.mark.timeout(600)
def test_an_ensemble_becomes_soft_targets_out_of_fold(tmp_path, capsys):
    root, out = tmp_path / "memes", tmp_path / "out"
    assert diptych(["world", str(root), "--size", "120", "--seed", "1"]) == 0
    few = ["--folds", "2", "--seeds", "1", "--set", "trainer.max_steps=2", "data.batch_size=8"]
    main([str(root), str(out), "--teachers", *TEACHERS, "--student", "clip_linear_tiny", *few])
    train = HatefulMemes(root, "train")
    soft = Predictions.load(out / "soft.npz")
    assert soft.ids == train.ids
    folds = folds_of(train, 2)
    for number in range(2):
        lines = (out / f"fold{number}/train.jsonl").read_text(encoding="utf-8").split("\n")
        trained = {json.loads(line)["id"] for line in lines}
        judged = {int(one.id) for one, fold in zip(train, folds, strict=True) if fold == number}
        assert trained | judged == {int(one) for one in train.ids}
        # No judge has seen the meme, nor one with its text.
        assert not trained & judged
        texts = {one.pairs[0].text for one, fold in zip(train, folds, strict=True) if fold == number}
        assert not texts & {one.pairs[0].text for one in HatefulMemes(out / f"fold{number}", "train")}
    table = [line for line in capsys.readouterr().out.split("\n") if line.startswith("| ")]
    assert [line.split(" | ")[0].strip("| ") for line in table[1:]] == [
        *TEACHERS, "clip_linear_tiny, labels, seed 1", "clip_linear_tiny, soft targets, seed 1",
        "mean of the teachers",
    ]  # fmt: skip
    # A student of judgments that are nearly the labels is another one than that of the labels.
    labels, taught = (
        Predictions.load(_predicted(out / name)) for name in ("student_labels1", "student_soft1")
    )
    assert not (labels.scores == taught.scores).all()
    (out / "soft.npz").write_bytes((out / "soft.npz").read_bytes()[:100])
    words = [f"root={out / 'fold0'}", f"out={tmp_path / 'no'}", f"task.soft_targets={out / 'soft.npz'}"]
    config = compose(["experiment=hateful_memes/clip_linear_tiny", *words])
    with pytest.raises(FormatError, match=r"soft\.npz"):
        run_recipe(config)


def _predicted(run):
    assert diptych(["predict", str(run), "--splits", "dev_seen"]) == 0
    return run / "predictions/dev_seen.npz"
