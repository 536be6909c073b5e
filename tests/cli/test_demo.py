"""The end of the demo where figures cannot be drawn; the whole of it is in tests/journey."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from diptych.cli import demo
from diptych.datasets import HatefulMemes, fabricate
from diptych.predictions import Predictions


@pytest.fixture(scope="module")
def memes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fabricate(tmp_path_factory.mktemp("world") / "memes", size=40).root


@pytest.mark.parametrize("drawing", [True, False])
def test_the_policy_decides_with_and_without_figures(
    memes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, drawing: bool
) -> None:
    ids = tuple(example.id for example in HatefulMemes(memes, "test_unseen"))
    scores = np.linspace(0.45, 0.95, len(ids))
    scored = Predictions(ids=ids, classes=("benign", "hateful"), scores=np.stack([1 - scores, scores], 1))
    steps: list[list[Any]] = []
    monkeypatch.setattr(demo, "_step", lambda *words: steps.append([*words]) or "review")
    monkeypatch.setattr(demo, "_targets", lambda *_: dict(enumerate(["benign", "hateful"] * 30)))
    monkeypatch.setattr(demo, "_predictions", lambda *_: {demo.DECIDES: scored})
    said = demo._decide(tmp_path, memes, drawing=drawing)
    assert [words[0] for words in steps] == ["calibrate", "score", "explain"][: 3 if drawing else 2]
    assert ("--plot" in steps[0]) == drawing
    assert said == (tmp_path / "why.html" if drawing else demo.NO_PICTURE)
