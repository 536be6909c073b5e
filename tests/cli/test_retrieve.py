"""The verb: from training on German captions to rankings and pictures, and what it refuses."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from diptych.cli import main
from diptych.datasets import fabricate
from diptych.predictions import Predictions

QUIET = ["loggers=[]", "progress=false"]
Refused = Callable[[list[Any]], str]


@pytest.fixture(scope="module")
def multi30k(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("retrieve") / "multi30k"
    fabricate(root, "multi30k", size=60, seed=1)
    return root


@pytest.fixture(scope="module")
def run(multi30k: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("retrieve") / "run"
    words = ["experiment=multi30k/retrieval_tiny", f"root={multi30k}", f"out={out}", "trainer.max_steps=2"]
    assert main(["train", *words, *QUIET]) == 0
    return out


def test_rankings_measures_and_pictures(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["retrieve", str(run), "--split", "val", "--set", "descriptions=1", "--samples", "9"]
    assert main([*words, "--queries", "2"]) == 0
    shown = capsys.readouterr().out
    assert "5 images by 5 texts" in shown
    folder = run / "retrieval" / "val"
    assert {path.name for path in folder.iterdir()} == {
        ".diptych", "image_to_text.npz", "retrieval.json", "scores.npy", "text_to_image.npz", "top.html",
        "top.png",
    }  # fmt: skip
    report = json.loads((folder / "retrieval.json").read_text())
    assert np.load(folder / "scores.npy").shape == (len(report["rows"]), len(report["columns"])) == (5, 5)
    rankings = Predictions.load(folder / "text_to_image.npz").rankings
    assert rankings is not None
    assert set(rankings[0]) == set(report["rows"])
    page = (folder / "top.html").read_text(encoding="utf-8")
    assert page.count('class="item right"') == 4  # two queries each way, and all five are shown
    assert page.count("data:image/jpeg;base64,") == 2 + 2 * 5
    assert "http" not in page
    assert main([*words, "--queries", "2", "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert again["kept"]
    assert again["measures"]["image_to_text"]["recall@5"]["value"] == 1


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--split", "nowhere"], "nowhere"),
        (["--split", "val", "--set", "lang"], "lang"),
        (["--split", "val", "--set", "lang=xx"], "xx"),
        (["--split", "val", "--set", "task=translation", "--set", "descriptions=1"], "val/1"),
        (["--split", "val", "--top", "0"], "top is 0"),
        (["--split", "val", "--queries", "-1"], "-1"),
        (["--split", "val", "--folds", "9"], "9"),
        (["--split", "val", "--features", "nowhere"], "nowhere"),
    ],
)
def test_what_cannot_be_ranked_is_named(run: Path, refused: Refused, words: list[str], named: str) -> None:
    assert named in refused(["retrieve", run, *words, "--out", run / "new"])
    assert not (run / "new").exists()


@pytest.mark.slow
def test_translations_without_pictures(
    multi30k: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    words = [
        "experiment=multi30k/translation_retrieval_tiny",
        f"root={multi30k}",
        f"out={out}",
        "image=false",
    ]
    assert main(["train", *words, "trainer.max_steps=2", *QUIET]) == 0
    for by in ("match", "cosine"):
        assert main(["retrieve", str(out), "--split", "val", "--by", by, "--samples", "9"]) == 0
        assert "5 sources by 5 targets" in capsys.readouterr().out
    page = (out / "retrieval" / "val_cosine" / "top.html").read_text(encoding="utf-8")
    assert "<img" not in page
