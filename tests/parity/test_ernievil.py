"""ERNIE-ViL equals PaddlePaddle/ERNIE with Vilio's head, and so do Paddle's files as we read them."""

import json
import os

import pytest
import torch
from safetensors.torch import load_file
from tests.parity.heads import HEADS

from diptych.convert import fill_model, load_model
from diptych.convert.ernievil import ERNIEVIL
from diptych.convert.paddle import read_paddle
from diptych.convert.rules import restore
from diptych.models import ernievil_base, ernievil_large
from diptych.tasks import Classify

EVERY = "DIPTYCH_GOLDENS" in os.environ  # a folder of all goldens, not the repository's selection


def test_states_scores_loss_and_gradients_equal_the_original(
    golden, perform, build_ernievil, unpack_ernievil
):
    golden = golden("ernie-vil")
    model = build_ernievil(golden.config)
    weights = fill_model(model, golden.weights, where=golden.name)
    seen = {}
    for part, name in ((model.encoder, "streams"), (model.pool.text, "text"), (model.pool.vision, "vision")):
        part.register_forward_hook(lambda module, given, result, name=name: seen.__setitem__(name, result))
    inputs, targets = unpack_ernievil(golden.inputs), golden.inputs["labels"].squeeze(-1).long()
    task = Classify(model, labels=("no", "yes"), loss="bce")
    table = HEADS["ernievil"]["hateful_memes"]
    done = perform(model, task, inputs, targets, weights=weights, table=table)
    text, vision = seen["streams"]
    words, regions = inputs.text.mask, golden.inputs["image_mask"].bool()
    golden.check("enc_out", text[words], words)
    golden.check("enc_vl_out", vision[regions], regions)
    golden.check("pooled_text", seen["text"].relu())
    golden.check("pooled_image", seen["vision"].relu())
    golden.check("fused", done.encoding.pooled)
    golden.check("logit", done.logits[:, 1:])
    golden.check("loss", done.loss)
    ours = restore({name: one.grad for name, one in model.named_parameters()}, ERNIEVIL) | done.gradients
    expected = {
        name.replace("grad:", "grad."): one for name, one in golden.outputs.items() if name[:5] == "grad:"
    }
    type(golden)(golden.name, {}, {}, {}, expected).check_gradients(ours)


def test_every_kind_of_variable_is_read(goldens):
    expected, got = load_file(goldens / "paddle-vars.safetensors"), read_paddle(goldens / "paddle-vars")
    described = json.loads((goldens / "paddle-vars.json").read_text())["files"]
    assert got.keys() == expected.keys() == described.keys()
    for name, tensor in got.items():
        assert tensor.dtype == expected[name].dtype == getattr(torch, described[name]["dtype"]), name
        assert tensor.shape == tuple(described[name]["shape"]), name
        assert torch.equal(tensor, expected[name]), name


PUBLISHED = [("manifest-ernie-vil-base", ernievil_base)]
if EVERY:
    PUBLISHED += [("manifest-ernie-vil-large", ernievil_large)]

    def test_a_genuine_folder_is_the_golden(golden, goldens, build_ernievil):
        golden = golden("ernie-vil")
        one, other = build_ernievil(golden.config), build_ernievil(golden.config)
        fill_model(one, golden.weights, where=golden.name)
        head = load_model(other, goldens / "ernie-vil-params")
        assert head.keys() == {"hm_fc.w_0", "hm_fc.b_0"}
        for name, weight in one.state_dict().items():
            assert torch.equal(weight, other.state_dict()[name]), name


@pytest.mark.parametrize(("name", "builder"), PUBLISHED)
def test_full_size_takes_the_published_names(goldens, name, builder):
    shapes = json.loads((goldens / f"{name}.json").read_text())["tensors"]
    with torch.device("meta"):
        model = builder()
        weights = {key: torch.empty(shape) for key, shape in shapes.items()}
    assert fill_model(model, weights, where=name).keys() == {"hm_fc.w_0", "hm_fc.b_0"}
