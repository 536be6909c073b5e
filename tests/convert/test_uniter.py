import pytest
import torch

from diptych.convert import load_model
from diptych.convert.rules import restore
from diptych.convert.uniter import UNITER
from diptych.errors import CheckpointMismatch
from diptych.models import uniter_base, uniter_tiny

REGION_NAMES = {
    "img_embeddings.img_linear.weight": (768, 2048),
    "img_embeddings.img_linear.bias": (768,),
    "img_embeddings.pos_linear.weight": (768, 7),
    "img_embeddings.pos_linear.bias": (768,),
    "img_embeddings.mask_embedding.weight": (2, 2048),
    **{
        f"img_embeddings.{norm}.{part}": (768,)
        for norm in ("img_layer_norm", "pos_layer_norm", "LayerNorm")
        for part in ("weight", "bias")
    },
}


def test_the_names_of_the_published_file():
    """Section by section what uniter-base.pt holds below `uniter.`."""
    with torch.device("meta"):
        names = restore(uniter_base().state_dict(), UNITER)
    shapes = {name: tuple(one.shape) for name, one in names.items()}
    assert shapes.items() >= REGION_NAMES.items()
    assert shapes["embeddings.word_embeddings.weight"] == (28996, 768)
    assert shapes["encoder.layer.11.attention.self.value.bias"] == (768,)
    assert shapes["encoder.layer.0.intermediate.dense.weight"] == (3072, 768)
    assert shapes["pooler.dense.weight"] == (768, 768)
    assert len(shapes) == 5 + len(REGION_NAMES) + 12 * 16 + 2


@pytest.mark.parametrize("prefix", ["uniter.", "bert.", "model.", "module.uniter.", "model.uniter.", ""])
def test_every_prefix_goes_around(tmp_path, prefix):
    torch.manual_seed(0)
    model, other = uniter_tiny(), uniter_tiny()
    torch.nn.init.normal_(model.regions.hidden)
    original = restore(model.state_dict(), UNITER)
    heads = {} if prefix == "" else {"itm_output.bias": torch.ones(2)}
    torch.save({prefix + name: one for name, one in original.items()} | heads, tmp_path / "uniter.pt")
    assert load_model(other, tmp_path / "uniter.pt").keys() == heads.keys()
    assert all(torch.equal(one, model.state_dict()[name]) for name, one in other.state_dict().items())


def test_a_file_without_a_mask_vector_keeps_ours(tmp_path):
    original = restore(uniter_tiny().state_dict(), UNITER)
    del original["img_embeddings.mask_embedding.weight"]
    torch.save(original, tmp_path / "vilio.pth")
    model = uniter_tiny()
    model.regions.hidden.data.fill_(3)
    load_model(model, tmp_path / "vilio.pth")
    assert (model.regions.hidden == 3).all()


def test_two_images_get_segments_of_their_own(tmp_path):
    published = uniter_tiny()
    torch.save(restore(published.state_dict(), UNITER), tmp_path / "uniter.pt")
    model = uniter_tiny(segments=3)
    load_model(model, tmp_path / "uniter.pt")
    text, regions = published.text.segments.weight
    assert torch.equal(model.text.segments.weight, torch.stack([text, regions, regions]))


def test_other_features_are_a_mismatch(tmp_path):
    torch.save(restore(uniter_tiny().state_dict(), UNITER), tmp_path / "uniter.pt")
    with pytest.raises(CheckpointMismatch, match=r"regions\.feature\.weight \(48, 64\).*\(48, 32\)"):
        load_model(uniter_tiny(feature_dim=32), tmp_path / "uniter.pt")
