import pytest
import torch

from diptych.convert.end_to_end import REGION_ENCODER, load_region_encoder
from diptych.convert.resnet import load_resnet
from diptych.convert.rules import restore
from diptych.errors import CheckpointMismatch
from diptych.models import RegionEncoder
from diptych.nn.resnet import Bottleneck, ResNet


def small(width=4):
    return RegionEncoder(ResNet(Bottleneck, (1, 1, 1, 2), width=width, classes=None, dilate_last=True))


@pytest.fixture
def checkpoint():
    """An encoder and what VL-BERT saves of it: the head a second time, and other parts of the model."""
    torch.manual_seed(0)
    encoder = small()
    network = restore(encoder.state_dict(), REGION_ENCODER)
    head = "roi_head_feature_extractor"
    again = {name.replace(head, "head.0"): one for name, one in network.items() if name.startswith(head)}
    network |= {**again, "obj_downsample.1.weight": torch.ones(2, 3)}
    weights = {f"module.image_feature_extractor.{name}": one for name, one in network.items()}
    return encoder, {**weights, "module.vlbert.word_embeddings.weight": torch.ones(5, 2)}


def same(one, other):
    return all(torch.equal(value, other.state_dict()[name]) for name, value in one.state_dict().items())


def test_the_image_network_of_a_checkpoint_arrives(tmp_path, checkpoint):
    torch.save({"state_dict": checkpoint[1], "epoch": 3}, tmp_path / "vl-bert.model")
    other = small()
    load_region_encoder(other, tmp_path / "vl-bert.model")
    assert same(checkpoint[0], other)


def test_a_resnet_alone_arrives(tmp_path, checkpoint):
    torch.save(checkpoint[0].resnet.state_dict(), tmp_path / "resnet.pth")
    other = small()
    load_resnet(other.resnet, tmp_path / "resnet.pth")
    assert same(checkpoint[0], other)


def test_other_files_are_mismatches(tmp_path, checkpoint):
    torch.save({"vlbert.word_embeddings.weight": torch.ones(5, 2)}, tmp_path / "precomputed.pt")
    with pytest.raises(CheckpointMismatch, match="1 unused: vlbert"):
        load_region_encoder(small(), tmp_path / "precomputed.pt")
    torch.save(checkpoint[1], tmp_path / "vl-bert.pt")
    with pytest.raises(CheckpointMismatch, match="of the wrong shape"):
        load_region_encoder(small(width=8), tmp_path / "vl-bert.pt")
