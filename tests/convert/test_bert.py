import pytest
import torch

from diptych.convert.bert import load_bert
from diptych.errors import CheckpointMismatch
from diptych.models import text_bert_tiny


@pytest.fixture
def tower():
    torch.manual_seed(1)
    return text_bert_tiny().text


def test_names_with_and_without_prefix_old_and_new(tmp_path, bert_weights, tower):
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): one
        for name, one in bert_weights.items()
    }
    whole = {f"bert.{name}": one for name, one in old.items()} | {
        "cls.predictions.bias": torch.ones(1),
        "cls.seq_relationship.weight": torch.ones(2, 48),
    }
    plain = bert_weights | {"embeddings.position_ids": torch.arange(512)[None]}
    project = tower.project.weight.clone()
    for name, weights in (("whole.bin", whole), ("plain.pt", plain)):
        torch.save(weights, tmp_path / name)
        load_bert(tower, tmp_path / name)
        words = bert_weights["embeddings.word_embeddings.weight"]
        assert torch.equal(tower.text.words.weight, words)
        dense = bert_weights["encoder.layer.1.output.dense.weight"]
        assert torch.equal(tower.encoder.layers[1].feedforward.contract.weight, dense)
        tower.text.words.weight.data.zero_()
    assert torch.equal(tower.project.weight, project)


def test_another_vocabulary_is_a_mismatch(tmp_path, bert_weights, tower):
    bert_weights["embeddings.word_embeddings.weight"] = torch.randn(30522, 48)
    torch.save(bert_weights, tmp_path / "bert.bin")
    with pytest.raises(CheckpointMismatch, match=r"text\.words\.weight \(30522, 48\).*\(1000, 48\)"):
        load_bert(tower, tmp_path / "bert.bin")


def test_a_missing_layer_is_a_mismatch(tmp_path, bert_weights, tower):
    fewer = {name: one for name, one in bert_weights.items() if "layer.1." not in name}
    torch.save(fewer, tmp_path / "bert.bin")
    with pytest.raises(
        CheckpointMismatch, match=r"16 unfilled: encoder\.layers\.1\.attention\.query\.weight"
    ):
        load_bert(tower, tmp_path / "bert.bin")


def test_something_else_is_a_mismatch(tmp_path, tower):
    torch.save({"conv1.weight": torch.ones(1)}, tmp_path / "resnet.pth")
    with pytest.raises(CheckpointMismatch, match=r": 0 .*embeddings\.word_embeddings\.weight"):
        load_bert(tower, tmp_path / "resnet.pth")
