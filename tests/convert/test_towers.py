import pytest
import torch

from diptych.convert import load_towers
from diptych.errors import ConfigError
from diptych.models import concat_bert_tiny, concat_fasttext_tiny, text_bert_tiny
from diptych.nn import resnet_tiny


@pytest.fixture
def files(tmp_path, bert_weights):
    torch.manual_seed(5)
    torch.save(bert_weights, tmp_path / "bert.bin")
    resnet = resnet_tiny(classes=1000)
    torch.save(resnet.state_dict(), tmp_path / "resnet.pth")
    return tmp_path / "bert.bin", tmp_path / "resnet.pth", resnet


def test_both_towers_are_filled_and_nothing_else(files, bert_weights):
    text, image, resnet = files
    model = concat_bert_tiny()
    before = {
        name: one.clone() for name, one in model.state_dict().items() if "project" in name or "fuse" in name
    }
    load_towers(model, text=text, image=image)
    assert torch.equal(model.text.pool.dense.bias, bert_weights["pooler.dense.bias"])
    assert torch.equal(model.image.resnet.conv1.weight, resnet.conv1.weight)
    assert all(torch.equal(model.state_dict()[name], one) for name, one in before.items())


def test_one_tower_alone(files):
    text, image, resnet = files
    model = concat_fasttext_tiny()
    load_towers(model, image=image)
    assert torch.equal(model.image.resnet.layer4[0].conv2.weight, resnet.layer4[0].conv2.weight)
    load_towers(text_bert_tiny(), text=text)


def test_a_tower_that_is_not_there_is_an_error(files):
    text, image, _ = files
    with pytest.raises(ConfigError, match=r"weights\.text"):
        load_towers(concat_fasttext_tiny(), text=text)
    with pytest.raises(ConfigError, match=r"weights\.image"):
        load_towers(text_bert_tiny(), image=image)
