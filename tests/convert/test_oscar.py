import pytest
import torch

from diptych.convert import load_model
from diptych.convert.oscar import OSCAR
from diptych.convert.rules import restore
from diptych.errors import CheckpointMismatch
from diptych.models import oscar_base, oscar_tiny


@pytest.mark.parametrize("norm", [False, True])
def test_the_names_of_the_published_file(norm):
    """What pytorch_model.bin holds below `bert.`; Oscar+ has a LayerNorm beside its embeddings."""
    with torch.device("meta"):
        names = restore(oscar_base(region_norm=norm).state_dict(), OSCAR)
    shapes = {name: tuple(one.shape) for name, one in names.items()}
    assert shapes["embeddings.word_embeddings.weight"] == (30522, 768)
    assert shapes["img_embedding.weight"] == (768, 2054)
    assert shapes["img_embedding.bias"] == (768,)
    assert ("LayerNorm.weight" in shapes) == ("LayerNorm.bias" in shapes) == norm
    assert shapes["encoder.layer.11.attention.output.LayerNorm.bias"] == (768,)
    assert len(shapes) == 5 + 2 + 2 * norm + 12 * 16 + 2


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("prefix", ["bert.", "model.", "module.model.", ""])
def test_every_prefix_goes_around(tmp_path, prefix, norm):
    torch.manual_seed(0)
    model, other = oscar_tiny(region_norm=norm), oscar_tiny(region_norm=norm)
    original = restore(model.state_dict(), OSCAR) | {"embeddings.position_ids": torch.arange(512)[None]}
    heads = {} if prefix == "" else {"cls.seq_relationship.bias": torch.ones(2)}
    torch.save({prefix + name: one for name, one in original.items()} | heads, tmp_path / "model.bin")
    assert load_model(other, tmp_path / "model.bin").keys() == heads.keys()
    assert all(torch.equal(one, model.state_dict()[name]) for name, one in other.state_dict().items())


def test_four_numbers_take_a_file_for_six_without_width_and_height(tmp_path):
    six, four = oscar_tiny(), oscar_tiny(box_numbers=4)
    torch.save(restore(six.state_dict(), OSCAR), tmp_path / "model.bin")
    load_model(four, tmp_path / "model.bin")
    assert torch.equal(four.regions.project.weight, six.regions.project.weight[:, :-2])


def test_six_numbers_do_not_take_a_file_for_four(tmp_path):
    torch.save(restore(oscar_tiny(box_numbers=4).state_dict(), OSCAR), tmp_path / "LAST_BO.pth")
    with pytest.raises(CheckpointMismatch, match=r"project\.weight \(48, 68\).*\(48, 70\)"):
        load_model(oscar_tiny(), tmp_path / "LAST_BO.pth")


@pytest.mark.parametrize("norm", [False, True])
def test_oscar_and_oscar_plus_do_not_take_each_other(tmp_path, norm):
    torch.save(restore(oscar_tiny(region_norm=norm).state_dict(), OSCAR), tmp_path / "model.bin")
    with pytest.raises(CheckpointMismatch, match=r"\b2 \w+: regions\.norm\.weight"):
        load_model(oscar_tiny(region_norm=not norm), tmp_path / "model.bin")
