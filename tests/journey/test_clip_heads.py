"""A small CLIP learns the memes; its vectors are stored; heads learn from the store in seconds."""

import pytest

from diptych.cli import main
from diptych.datasets import HatefulMemes
from diptych.predictions import Predictions
from diptych.recipe import compose, run_recipe

pytestmark = pytest.mark.journey
SMALL = ["task.dim=48", "task.layers=1"]


@pytest.mark.timeout(600)
def test_heads_learn_from_the_vectors_of_a_small_clip(tmp_path):
    root, store = tmp_path / "memes", tmp_path / "store"
    assert main(["world", str(root), "--size", "600", "--seed", "1"]) == 0

    def learned(experiment, *words):
        out = f"out={tmp_path / experiment}"
        common = [f"root={root}", out, "loggers=[]", "progress=false"]
        return run_recipe(compose([f"experiment=hateful_memes/{experiment}", *common, *words])).metrics

    assert learned("memeclip_tiny", "trainer.max_epochs=16", "trainer.val_check_interval=28")["auroc"] > 0.9
    assert main(["embed", str(root), str(store), "--model", str(tmp_path / "memeclip_tiny")]) == 0
    stored = ["model=embeddings", f"features={store}", "optim.lr=1e-2", "trainer.max_epochs=20"]
    stored += ["data.batch_size=32", "trainer.val_check_interval=80"]
    assert learned("hateclipper", *stored, *SMALL)["auroc"] > 0.9
    assert learned("rgcl", *stored, *SMALL, "task.width=48", "task.decide=cases")["auroc"] > 0.9

    # An ensemble's probabilities teach a small model; here those of one model, of the training examples.
    assert main(["predict", str(tmp_path / "hateclipper"), "--splits", "train,dev_seen"]) == 0
    soft = tmp_path / "hateclipper/predictions/train.npz"
    assert Predictions.load(soft).ids == HatefulMemes(root, "train").ids
    student = learned("clip_mlp", *stored, f"task.soft_targets={soft}", "task.soft_share=0.7")
    assert student["auroc"] > 0.9
