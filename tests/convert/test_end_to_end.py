import pytest
import torch

from diptych.convert import load_model, load_region_encoder
from diptych.convert.end_to_end import REGION_ENCODER
from diptych.convert.rules import restore
from diptych.convert.vlbert import VLBERT
from diptych.errors import CheckpointMismatch
from diptych.models import EndToEnd, RegionEncoder, lxmert_tiny, vlbert_tiny
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


def test_other_files_are_mismatches(tmp_path, checkpoint):
    torch.save({"vlbert.word_embeddings.weight": torch.ones(5, 2)}, tmp_path / "precomputed.pt")
    with pytest.raises(CheckpointMismatch, match="1 unused: vlbert"):
        load_region_encoder(small(), tmp_path / "precomputed.pt")
    torch.save(checkpoint[1], tmp_path / "vl-bert.pt")
    with pytest.raises(CheckpointMismatch, match="of the wrong shape"):
        load_region_encoder(small(width=8), tmp_path / "vl-bert.pt")


def whole():
    encoder = small()
    return EndToEnd(encoder, vlbert_tiny(feature_dim=encoder.dim, vocab_size=50))


def test_an_end_to_end_checkpoint_fills_both_halves(tmp_path, checkpoint):
    model, other = whole(), whole()
    model.regions.load_state_dict(checkpoint[0].state_dict())
    network = {name: one for name, one in checkpoint[1].items() if "obj_downsample" not in name}
    del network["module.vlbert.word_embeddings.weight"]
    upper = restore(model.model.state_dict(), VLBERT)
    torch.save({**network, **{f"module.{name}": one for name, one in upper.items()}}, tmp_path / "e2e.model")
    load_model(other, tmp_path / "e2e.model")
    assert same(model, other)
    torch.save(upper, tmp_path / "precomputed.model")
    third = whole()
    before = {name: one.clone() for name, one in third.regions.state_dict().items()}
    load_model(third, tmp_path / "precomputed.model")
    assert same(third.model, model.model)
    assert all(torch.equal(one, before[name]) for name, one in third.regions.state_dict().items())


def test_the_image_network_comes_from_either_file(tmp_path, checkpoint):
    torch.save(checkpoint[1], tmp_path / "vl-bert.model")
    torch.save(checkpoint[0].resnet.state_dict(), tmp_path / "resnet.pth")
    for file in ("vl-bert.model", "resnet.pth"):
        model = whole()
        load_region_encoder(model.regions, tmp_path / file)
        assert same(checkpoint[0], model.regions)
    with pytest.raises(CheckpointMismatch, match=r": 0 .*word_embeddings\.weight"):
        load_model(EndToEnd(small(), lxmert_tiny(feature_dim=small().dim)), tmp_path / "resnet.pth")
