"""Vilio's recipes on miniature memes, through the command line."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from diptych.cli import main


def train(*words: object) -> int:
    return main(["train", *map(str, words), "progress=false", "loggers=[]"])


def bundle(run: Path) -> dict[str, Any]:
    told: dict[str, Any] = yaml.safe_load((run / "bundle/bundle.yaml").read_text())
    return told


@pytest.mark.parametrize("family", ["O", "V", "X"])
def test_pretraining_carries_over_into_fine_tuning(family: str, memes: Path, tmp_path: Path) -> None:
    before, after = tmp_path / "before", tmp_path / "after"
    words = [f"experiment=pretrain/vilio_{family}_tiny", f"root={memes}", f"out={before}"]
    assert train(*words, "trainer.max_steps=2") == 0
    words = [f"experiment=vilio/{family}_tiny", f"root={memes}", f"out={after}", f"weights.model={before}"]
    assert train(*words, "trainer.max_steps=1", "optim.lr=1e-12") == 0
    one, other = (load_file(run / "bundle/weights.safetensors") for run in (before, after))
    shared = {name for name in one if name.startswith("model.")}
    assert shared == {name for name in other if name.startswith("model.")}
    for name in shared:
        torch.testing.assert_close(other[name], one[name], rtol=0, atol=1e-6)
    objectives = bundle(before)["task"]["objectives"]
    assert [*objectives] == [*(["matching"] if family == "O" else []), "words", "regions"]
    assert objectives["regions"]["predict"] == {}, "regions are noise, and nothing is asked of them"


def test_ernie_vil_reads_two_stores(memes: Path, tmp_path: Path, refused: Any) -> None:
    run, features = tmp_path / "run", memes / "features"
    words = ["experiment=vilio/ES_tiny", f"root={memes}", f"out={run}", f"more_features={features}"]
    assert "model.whole_image=true" in refused(["train", *words, "+model.whole_image=true"])
    assert train(*words, "region_merge=fair", "trainer.max_steps=2") == 0
    told = bundle(run)
    assert told["model"]["whole_image"] is False
    assert told["provenance"]["more_features"] == features.name
    assert told["provenance"]["region_merge"] == "fair"
    predict = ["predict", run, "--splits", "dev_seen", "--out", tmp_path / "scores"]
    assert "nowhere" in refused([*predict, "--more-features", "nowhere"])
    assert main([*map(str, predict)]) == 0
    lines = (tmp_path / "scores/dev_seen.csv").read_text().splitlines()
    assert len(lines) == 1 + len((memes / "dev_seen.jsonl").read_text().splitlines())


@pytest.mark.filterwarnings("default:detector_only")
def test_ernie_vil_adds_the_whole_image_to_one_store(memes: Path, tmp_path: Path, refused: Any) -> None:
    words = ["experiment=vilio/EL_tiny", f"root={memes}", f"out={tmp_path}", "trainer.max_steps=1"]
    assert train(*words, f"more_features={memes}/features", "region_merge=detector_only") == 0
    assert "whole_image" not in bundle(tmp_path)["model"]
    line = refused(["predict", tmp_path, "--splits", "dev_seen", "--more-features", memes / "features"])
    assert "trained on one feature store" in line
