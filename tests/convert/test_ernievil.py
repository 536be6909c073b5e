import struct

import pytest
import torch

from diptych.convert import load_model
from diptych.convert.ernievil import ERNIEVIL
from diptych.convert.rules import restore
from diptych.errors import CheckpointMismatch, FormatError
from diptych.models import ernievil_base, ernievil_large, ernievil_tiny


def save(folder, weights):
    """Float variables as Paddle writes them."""
    folder.mkdir()
    for name, tensor in weights.items():
        shape = b"".join(bytes([0x10]) + varint(size) for size in tensor.shape)
        head = struct.pack("<IQIi", 0, 0, 0, 2 + len(shape)) + bytes([0x08, 5]) + shape
        (folder / name).write_bytes(head + tensor.contiguous().detach().numpy().tobytes())
    return folder


def varint(value):
    return bytes([value]) if value < 128 else bytes([value & 0x7F | 0x80, *varint(value >> 7)])


def equal(one, other):
    return all(torch.equal(weight, other.state_dict()[name]) for name, weight in one.state_dict().items())


@pytest.mark.parametrize(
    ("builder", "layers", "width"), [(ernievil_base, 12, 768), (ernievil_large, 24, 1024)]
)
def test_the_names_of_the_published_folder(builder, layers, width):
    with torch.device("meta"):
        names = restore(builder().state_dict(), ERNIEVIL)
    shapes = {name: tuple(one.shape) for name, one in names.items()}
    assert shapes["sent_embedding"] == (4, width)
    assert shapes["image_loc.w_0"] == (5, 1024)
    assert shapes[f"encoder_layer_{layers - 1}_ffn_fc_0.w_0"] == (width, 4 * width)
    assert shapes["encoder_colayer_5_multi_head_att_key_fc.w_0"] == (1024, 1024)
    assert shapes["encoder_colayer_5_vl_multi_head_att_key_fc.w_0"] == (width, 1024)
    assert shapes["encoder_vlayer_5_post_att_layer_norm_scale"] == (1024,)
    assert shapes["pooled_fc_text.w_0"] == (width, 1024)
    assert len(shapes) == 5 + 6 + 16 * (layers + 6) + 32 * 6 + 4


def test_a_folder_goes_around_with_its_head_and_without_its_optimizer(tmp_path):
    torch.manual_seed(0)
    model, other = ernievil_tiny(), ernievil_tiny()
    head = {"hm_fc.w_0": torch.randn(48, 1), "hm_fc.b_0": torch.randn(1)}
    training = {
        "image_loc.w_0_moment1_0": torch.ones(5, 48),
        "image_loc.w_0_beta1_pow_acc_0": torch.ones(1),
        "scheduled_learning_rate": torch.ones(1),
        "@LR_DECAY_COUNTER@": torch.ones(1),
    }
    folder = save(tmp_path / "params", restore(model.state_dict(), ERNIEVIL) | head | training)
    found = load_model(other, folder)
    assert equal(model, other)
    assert found.keys() == head.keys()
    assert torch.equal(found["hm_fc.w_0"], head["hm_fc.w_0"])


def test_a_file_with_the_same_names_goes_around(tmp_path):
    model, other = ernievil_tiny(), ernievil_tiny()
    torch.save(restore(model.state_dict(), ERNIEVIL), tmp_path / "ernie.pt")
    assert load_model(other, tmp_path / "ernie.pt") == {}
    assert equal(model, other)


def test_a_missing_or_broken_file_is_named(tmp_path):
    folder = save(tmp_path / "params", restore(ernievil_tiny().state_dict(), ERNIEVIL))
    (folder / "image_loc.w_0").unlink()
    with pytest.raises(CheckpointMismatch, match=r"1 unfilled: regions\.box\.weight"):
        load_model(ernievil_tiny(), folder)
    (folder / "image_loc.w_0").write_bytes(b"half")
    with pytest.raises(FormatError, match=r"image_loc\.w_0: "):
        load_model(ernievil_tiny(), folder)


def test_more_layers_than_the_model_has_are_a_mismatch(tmp_path):
    folder = save(tmp_path / "params", restore(ernievil_tiny().state_dict(), ERNIEVIL))
    (folder / "encoder_layer_2_ffn_fc_0.b_0").write_bytes((folder / "image_loc.b_0").read_bytes())
    with pytest.raises(
        CheckpointMismatch, match=r"1 unused: encoder\.text_layers\.2\.feedforward\.expand\.bias"
    ):
        load_model(ernievil_tiny(), folder)


def test_weights_of_others_are_refused(tmp_path):
    torch.save({"bert.embeddings.LayerNorm.weight": torch.ones(48)}, tmp_path / "bert.bin")
    with pytest.raises(CheckpointMismatch, match=r": 0 .*bert\.embeddings.*params"):
        load_model(ernievil_tiny(), tmp_path / "bert.bin")
