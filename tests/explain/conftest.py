"""Predictors of every family with random weights, and a picture for them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from tests.explain.toy import TEXT, WIDTH

from diptych import models
from diptych.bundle import Bundle
from diptych.data import Processor
from diptych.predict import Predictor
from diptych.tasks import Classify
from diptych.text import WordPiece, learn_vocabulary, write_vocabulary
from diptych.types import FeatureMeta


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> WordPiece:
    path = tmp_path_factory.mktemp("words") / "vocab.txt"
    write_vocabulary(path, learn_vocabulary([TEXT, "den Hund den Hund grüßen"], 60, lowercase=False))
    return WordPiece(path, lowercase=False)


@pytest.fixture(scope="session")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pictures") / "street.png"
    Image.new("RGB", (60, 40), "olive").save(path)
    return path


@pytest.fixture
def predictor_of(tokenizer: WordPiece) -> Callable[..., Predictor]:
    def build(name: str, *, pairs: int = 1, processor: dict[str, Any] | None = None, **sizes: Any):
        regions = "regions" in getattr(models, name)().needs
        if regions:
            sizes["feature_dim"] = WIDTH
        torch.manual_seed(0)
        model = getattr(models, name)(vocab_size=tokenizer.vocab_size, **sizes).eval()
        own = Processor(text=tokenizer, regions=regions, **(processor or {}))
        meta = FeatureMeta(feature_dim=WIDTH, classes=("dog,hound", "cat")) if regions else None
        task = Classify(model, labels=["benign", "hateful"], pairs=pairs).eval()
        return Predictor(Bundle(model=model, task=task, processor=own, features=meta), device="cpu")

    return build
