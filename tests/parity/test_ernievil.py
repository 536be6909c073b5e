"""ERNIE-ViL equals PaddlePaddle/ERNIE with Vilio's head, and so do Paddle's files as we read them."""

import json
import os

import pytest
import torch
from safetensors.torch import load_file

from diptych.convert import HEADS
from diptych.convert.ernievil import ERNIEVIL, fill_ernievil, load_ernievil
from diptych.convert.paddle import read_paddle
from diptych.convert.rules import restore
from diptych.models import ErnieVil, ernievil_base, ernievil_large
from diptych.nn import Sizes
from diptych.tasks import Classify
from diptych.types import Inputs, PaddedRegions, PaddedText

EVERY = "DIPTYCH_GOLDENS" in os.environ  # a folder of all goldens, not the repository's selection


def build(config):
    """The original's layer counts follow from the numbers of the layers that come after meetings."""
    text, vision = config["t_biattention_id"], config["v_biattention_id"]
    return ErnieVil(
        vocab_size=config["vocab_size"],
        feature_dim=config["feature_size"],
        text=Sizes(
            dim=config["hidden_size"],
            heads=config["num_attention_heads"],
            hidden=4 * config["hidden_size"],
            layers=text[-1] + 1,
        ),
        vision=Sizes(
            dim=config["v_hidden_size"],
            heads=config["v_num_attention_heads"],
            hidden=config["v_intermediate_size"],
            layers=vision[-1] + 1,
        ),
        bridge=Sizes(dim=config["co_hidden_size"], heads=config["co_num_attention_heads"]),
        meetings=list(zip(text, vision, strict=True)),
        max_positions=config["max_position_embeddings"],
        segments=config["sent_type_vocab_size"],
        eps=config["layer_norm_eps"],
    ).eval()


def unpack(inputs):
    """What a model of ours is given: the original's rows without the whole image, which ours adds itself."""
    mask, boxes = inputs["image_mask"].bool(), inputs["image_loc"]
    return Inputs(
        text=PaddedText(
            ids=inputs["src_ids"], mask=inputs["input_mask"].bool(), segments=inputs["sentence_ids"]
        ),
        regions=PaddedRegions(
            features=inputs["image_embeddings"][:, 1:],
            boxes=boxes[:, 1:, :4],
            mask=mask[:, 1:],
            image_index=torch.zeros(mask[:, 1:].shape, dtype=torch.int64),
            sizes=torch.ones(len(boxes), 2),
        ),
    )


def test_states_scores_loss_and_gradients_equal_the_original(golden, perform):
    golden = golden("ernie-vil")
    model = build(golden.config)
    weights = fill_ernievil(model, golden.weights, where=golden.name)
    seen = {}
    for part, name in ((model.encoder, "streams"), (model.pool.text, "text"), (model.pool.vision, "vision")):
        part.register_forward_hook(lambda module, given, result, name=name: seen.__setitem__(name, result))
    inputs, targets = unpack(golden.inputs), golden.inputs["labels"].squeeze(-1).long()
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

    def test_a_genuine_folder_is_the_golden(golden, goldens):
        golden = golden("ernie-vil")
        one, other = build(golden.config), build(golden.config)
        fill_ernievil(one, golden.weights, where=golden.name)
        head = load_ernievil(other, goldens / "ernie-vil-params")
        assert head.keys() == {"hm_fc.w_0", "hm_fc.b_0"}
        for name, weight in one.state_dict().items():
            assert torch.equal(weight, other.state_dict()[name]), name


@pytest.mark.parametrize(("name", "builder"), PUBLISHED)
def test_full_size_takes_the_published_names(goldens, name, builder):
    shapes = json.loads((goldens / f"{name}.json").read_text())["tensors"]
    with torch.device("meta"):
        model = builder()
        weights = {key: torch.empty(shape) for key, shape in shapes.items()}
    assert fill_ernievil(model, weights, where=name).keys() == {"hm_fc.w_0", "hm_fc.b_0"}
