"""From pre-training to fine-tuning, through the command line."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from diptych.cli import main
from diptych.text import WordPiece
from diptych.world.render import CLASSES


def train(*words: object) -> int:
    return main(["train", *map(str, words), "progress=false", "loggers=[]"])


@pytest.fixture(scope="module")
def pretrained(memes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of UNITER's objectives."""
    out = tmp_path_factory.mktemp("runs") / "pretrained"
    assert train("experiment=pretrain/uniter_tiny", f"root={memes}", f"out={out}", "trainer.max_steps=4") == 0
    return out


def test_vocabulary_and_detector_settle_what_objectives_ask(pretrained: Path, memes: Path) -> None:
    task = yaml.safe_load((pretrained / "bundle/bundle.yaml").read_text())["task"]
    text = WordPiece(memes / "vocabulary.txt")
    masking = task["objectives"]["words"]["masking"]
    assert masking["mask_id"] == text.mask_id
    assert set(masking["special"]) == {text.pad_id, text.cls_id, text.sep_id, text.mask_id}
    assert masking["at_least_one"], "what was said stays"
    assert task["objectives"]["classes"]["predict"]["classes"]["classes"] == len(CLASSES)


def test_fine_tuning_starts_from_the_pretrained_model(
    pretrained: Path, memes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["experiment=hateful_memes/uniter_tiny", f"root={memes}", f"out={tmp_path}/tuned"]
    assert train(*words, f"weights.model={pretrained}", "trainer.max_steps=1", "optim.lr=1e-12") == 0
    before, after = (
        load_file(folder / "bundle/weights.safetensors") for folder in (pretrained, tmp_path / "tuned")
    )
    shared = {name for name in before if name.startswith("model.")}
    assert shared == {name for name in after if name.startswith("model.")}
    for name in shared:
        torch.testing.assert_close(after[name], before[name], atol=1e-6, rtol=0)
    assert any(name.startswith("task.objectives.words") for name in before)


def test_a_pretrained_model_predicts_nothing(
    pretrained: Path, refused: Callable[[list[Any]], str], memes: Path
) -> None:
    shown = refused(["predict", pretrained, "--splits", "dev_seen"])
    assert "fine-tune it" in shown


@pytest.mark.parametrize("task", ["pretrain", "pretrain_lxmert"])
def test_tasks_suit_other_models(task: str, memes: Path, tmp_path: Path) -> None:
    words = ["model=visualbert_tiny", "data=memes_pretrain", f"task={task}", f"root={memes}"]
    assert train(*words, f"out={tmp_path}/run", "trainer.max_steps=2") == 0
    metrics = yaml.safe_load((tmp_path / "run/bundle/bundle.yaml").read_text())["metrics"]
    assert {"loss", "matching", "words"} <= metrics.keys()
    assert all(value > 0 for name, value in metrics.items() if not name.endswith(".accuracy"))


def test_the_words_of_lxmert_change_its_objectives(tmp_path: Path) -> None:
    assert main(["world", f"{tmp_path}/mix", "--data", "lxmert", "--size", "40"]) == 0
    words = ["experiment=pretrain/lxmert_tiny", f"root={tmp_path}/mix", f"out={tmp_path}/run", "limit=20"]
    words += ["~task.objectives.answers", "task.objectives.words.masking.rate=0.2", "data.qa_sets=[vqa]"]
    assert train(*words, "trainer.max_steps=1", "task.visual_losses=[obj,feat]") == 0
    objectives = yaml.safe_load((tmp_path / "run/bundle/bundle.yaml").read_text())["task"]["objectives"]
    assert set(objectives) == {"matching", "words", "regions"}
    assert objectives["words"]["masking"]["rate"] == 0.2
