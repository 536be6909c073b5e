"""Pre-training as VL-BERT and MM-BERT do it, on the miniature world."""

import csv

import pytest
import torch

from diptych.bundle import load_bundle
from diptych.datasets import fabricate
from diptych.errors import ConfigError
from diptych.recipe import compose, run_recipe
from diptych.recipe.settle import settle

QUIET = ["progress=false", "loggers=[]"]


@pytest.fixture(scope="module")
def captions(tmp_path_factory):
    root = tmp_path_factory.mktemp("pretraining") / "cc"
    fabricate(root, "conceptual_captions", size=120, seed=1)
    fabricate(root / "en_corpus", "corpus", size=40, seed=1)
    return root


@pytest.fixture(scope="module")
def bilingual(tmp_path_factory):
    root = tmp_path_factory.mktemp("pretraining") / "multi30k"
    fabricate(root, "multi30k", size=40, seed=1)
    fabricate(root / "en_corpus", "corpus", size=20, seed=1)
    return root


def configured(name, root, out, *words):
    return compose([f"experiment=pretrain/{name}", f"root={root}", f"out={out}", *QUIET, *words])


def train(name, root, out, *words):
    return run_recipe(configured(name, root, out, "trainer.max_steps=2", *words))


@pytest.mark.slow
def test_every_loss_of_captions_and_corpora_falls(captions, tmp_path):
    words = ["optim.lr=5e-3", "trainer.max_epochs=8", "trainer.log_every_n_steps=8"]
    words.append("trainer.val_check_interval=1000")
    run = run_recipe(configured("vlbert_tiny", captions, tmp_path, *words))
    with (tmp_path / "metrics.csv").open(newline="") as file:
        rows = [*csv.DictReader(file)]
    for name in ("train/words.captions", "train/words.texts", "train/regions"):
        values = [float(row[name]) for row in rows if row[name]]
        assert values[-1] < 0.98 * values[0], name
    assert run.metrics["words.captions.accuracy"] > 0.2  # the most frequent word is a tenth
    assert "words.texts" not in run.metrics, "the validation set has captions alone"


def test_pixels_and_corpora_in_one_step(captions, tmp_path):
    words = ["data.batch_size.train=4", "data.batch_size.corpus=4", "trainer.log_every_n_steps=1"]
    run = train("vlbert_end_to_end_tiny", captions, tmp_path, *words, "data.eval_batch_size=8")
    with (tmp_path / "metrics.csv").open(newline="") as file:
        row = next(csv.DictReader(file))
    assert all(float(row[f"train/{name}"]) > 0 for name in ("words.captions", "words.texts", "regions"))
    assert run.metrics["regions"] > 0
    bundle = load_bundle(tmp_path / "bundle")
    assert any("resnet" in name for name in bundle.model.state_dict())
    assert bundle.processor.whole_image
    assert bundle.task.objectives["regions"].whole_image, "the picture is neither hidden nor predicted"


def test_a_step_has_rows_of_both_and_resumes_exactly(captions, tmp_path, monkeypatch):
    words = ["trainer.checkpoint_every=1"]
    train("vlbert_tiny", captions, tmp_path / "whole", *words, "trainer.max_steps=2")
    real, calls = torch.optim.AdamW.step, iter(range(9))

    def failing(self, *args, **kwargs):
        if next(calls) == 1:
            raise KeyboardInterrupt
        return real(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.AdamW, "step", failing)
    with pytest.raises(KeyboardInterrupt):
        train("vlbert_tiny", captions, tmp_path / "cut", *words, "trainer.max_steps=2")
    monkeypatch.undo()
    train("vlbert_tiny", captions, tmp_path / "cut", *words, "trainer.max_steps=2")
    one, other = (load_bundle(tmp_path / name).model.state_dict() for name in ("whole", "cut"))
    assert all(torch.equal(value, other[name]) for name, value in one.items())


def test_numbers_of_a_batch_name_every_member(captions, tmp_path):
    with pytest.raises(ConfigError, match=r"train, corpus"):
        train("vlbert_tiny", captions, tmp_path, "~data.batch_size.corpus")


def test_task_a_masks_both_languages_in_one_segment(bilingual, tmp_path):
    settled = settle(configured("mmbert_task_a_tiny", bilingual, tmp_path), tmp_path)
    pair = settled.train[0].pairs[0]
    assert pair.text_b
    row = settled.processor(pair, settled.sources)
    assert set(row.tokens.segments) == {0}
    assert len(row.tokens) + len(row.regions) + 1 <= 64
    passage = settled.train[len(settled.train) - 1].pairs[0]
    bare = settled.processor(passage, settled.sources)
    assert settled.processor.text.cls_id not in bare.tokens.ids
    continuations = settled.config["task"]["objectives"]["words"]["masking"]["continuations"]
    tokens = settled.processor.text.tokens
    assert [tokens[number][:2] for number in continuations] == ["##"] * len(continuations)
    # Nouns in capitals, and umlauts: the uncased vocabulary of the world does not have them.
    texts = [one.pairs[0].text_b for one in settled.train if one.pairs[0].text_b]
    assert any(text != text.lower() for text in texts)
    encoded = [settled.processor.text.encode(text, max_tokens=512) for text in texts]
    assert not any(tokens.index("[UNK]") in one.ids for one in encoded)


def test_b_then_c_then_b_again(bilingual, tmp_path):
    b = train("mmbert_task_b_tiny", bilingual, tmp_path / "b")
    c = train("mmbert_task_c_tiny", bilingual, tmp_path / "c", f"weights.model={b.folder}")
    again = configured(
        "mmbert_task_b_tiny", bilingual, tmp_path / "b2", f"weights.model=[{b.folder},{c.folder}]",
        "trainer.max_steps=1", "schedule.warmup=1",
    )  # fmt: skip
    run_recipe(again)  # its only step has the rate 0
    first, text, last = (load_bundle(tmp_path / name) for name in ("b", "c", "b2"))
    words = "encoder.layers.0.attention.query.weight"
    assert torch.equal(last.model.state_dict()[words], text.model.state_dict()[words])
    assert not torch.equal(last.model.state_dict()[words], first.model.state_dict()[words])
    head = "objectives.regions.predict.classes.decoder.weight"  # C has no regions, so B's is the last one
    assert torch.equal(last.task.state_dict()[head], first.task.state_dict()[head])
    head = "objectives.words.head.bias"
    assert torch.equal(last.task.state_dict()[head], text.task.state_dict()[head])
