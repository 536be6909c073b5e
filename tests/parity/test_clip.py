"""CLIP and SigLIP equal OpenAI's, open_clip's and Hugging Face's: states, vectors, losses, gradients."""

import json
import os
from dataclasses import replace

import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from diptych.convert import fill_model
from diptych.convert.clip import (
    CLIP,
    CLIP_HUGGING_FACE,
    CLIP_OPENAI,
    SIGLIP,
    SIGLIP_HUGGING_FACE,
    SIGLIP_OPEN_CLIP,
)
from diptych.convert.rules import restore
from diptych.data import SquareTransform
from diptych.models import Clip, Siglip
from diptych.nn import Sizes
from diptych.nn.towers import resize_positions
from diptych.text import BytePair
from diptych.types import Inputs, PaddedText

EVERY = "DIPTYCH_GOLDENS" in os.environ  # a folder of all goldens, not the repository's selection
OWN = pytest.mark.skipif(not EVERY, reason="not in the repository's selection")


def sizes(config):
    """Sizes of a tower in Hugging Face's words."""
    return Sizes(
        dim=config["hidden_size"],
        heads=config["num_attention_heads"],
        hidden=config["intermediate_size"],
        layers=config["num_hidden_layers"],
    )


def towers(config):
    text, vision = config["text_config"], config["vision_config"]
    return {
        "vocab_size": text["vocab_size"],
        "text": sizes(text),
        "vision": sizes(vision),
        "image_size": vision["image_size"],
        "patch": vision["patch_size"],
        "max_positions": text["max_position_embeddings"],
        "eps": text["layer_norm_eps"],
    }


def filled(model, golden):
    assert not fill_model(model, golden.weights, where=golden.name), "weights are left over"
    return model.eval()


def words(ids, mask=None):
    mask = torch.ones_like(ids) if mask is None else mask
    return PaddedText(ids=ids, mask=mask.bool(), segments=torch.zeros_like(ids))


def up_to_end(ids):
    """The texts of OpenAI's golden, which has no mask: the end token has the largest id."""
    return words(ids, torch.arange(ids.shape[1]) <= ids.argmax(1)[:, None])


def cross_entropy(logits):
    right = torch.arange(len(logits))
    return (F.cross_entropy(logits, right) + F.cross_entropy(logits.T, right)) / 2


def sigmoid_loss(logits):
    return -F.logsigmoid(logits * (2 * torch.eye(len(logits)) - 1)).sum() / len(logits)


def hidden(encoder):
    """Collect the states before each layer and after the last one."""
    states = []
    encoder.layers[0].register_forward_pre_hook(lambda _, given: states.append(given[0]))
    for layer in encoder.layers:
        layer.register_forward_hook(lambda _, given, result: states.append(result))
    return states


def check_gradients(golden, model, table):
    found = {name: one.grad for name, one in model.named_parameters() if one.grad is not None}
    golden.check_gradients(restore(found, table))


def check_states(golden, model, text, pixels):
    """All states, which the forward pass for a vector does not compute in its last layer."""
    images, texts = hidden(model.image.encoder), hidden(model.text.encoder)
    last = model.image.encoder(model.image.embed(pixels))
    states, _ = model.text.states(text)
    real = text.mask
    for number, state in enumerate(images):
        golden.check(f"image_hidden.{number}", state)
    for number, state in enumerate(texts):
        golden.check(f"text_hidden.{number}", state[real], real)
    golden.check("text_last_hidden_state", states[real], real)
    return last


@OWN
def test_hugging_face_clip_equals_the_original(golden):
    golden = golden("clip-hf")
    config, given = golden.config, golden.inputs
    activation = config["text_config"]["hidden_act"]
    assert config["vision_config"]["hidden_act"] == activation
    model = filled(Clip(**towers(config), joint_dim=config["projection_dim"], activation=activation), golden)
    text, pixels = words(given["input_ids"], given["attention_mask"]), given["pixel_values"]
    golden.check("image_pooled", model.image(pixels))
    golden.check("text_pooled", model.text(text))
    golden.check("image_projected", model.encode_image(pixels))
    golden.check("text_projected", model.encode_text(text))
    encoding = model(Inputs(text=text, pixels=pixels))
    golden.check("image_embeds", encoding.joint_image)
    golden.check("text_embeds", encoding.joint_text)
    logits = model.compare(encoding.joint_image, encoding.joint_text)
    golden.check("logits_per_image", logits)
    loss = cross_entropy(logits)
    golden.check("loss", loss)
    loss.backward()
    check_gradients(golden, model, CLIP_HUGGING_FACE)
    with torch.no_grad():
        last = check_states(golden, model, text, pixels)
        golden.check("image_last_hidden_state", last)
        wide = given["wide.pixel_values"]
        golden.check("wide.image_pooled", model.image(wide))
        golden.check("wide.image_last_hidden_state", model.image.encoder(model.image.embed(wide)))


@OWN
@pytest.mark.parametrize("half", [False, True])
def test_openai_equals_the_original(golden, half):
    golden = golden("clip-openai")
    kept = {name: one.dtype for name, one in golden.weights.items()}
    assert torch.half in kept.values()
    assert torch.float32 in kept.values()
    if not half:  # the same numbers in fp32 are filled alike
        golden.weights.update(
            {name: one.float() for name, one in golden.weights.items() if one.dtype == torch.half}
        )
    split = CLIP.split(golden.weights, where=golden.name)
    found = CLIP.sizes(split)
    for tower in ("text", "vision"):
        found[tower] = Sizes(**{key: one for key, one in found[tower].items() if key != "_target_"})
    config = golden.config
    assert found["activation"] == "quick_gelu"
    assert found["image_size"] == config["image_resolution"]
    assert (found["vision"].heads, found["text"].heads) == (
        config["vision_heads"],
        config["transformer_heads"],
    )
    model = filled(Clip(**found), golden)
    text, pixels = up_to_end(golden.inputs["input_ids"]), golden.inputs["pixel_values"]
    golden.check("image_features", model.encode_image(pixels))
    golden.check("text_features", model.encode_text(text))
    golden.check("image_pooled", model.image(pixels))
    golden.check("text_pooled", model.text(text))
    golden.check("text_last_hidden_state", model.text.states(text)[0][text.mask], text.mask)
    encoding = model(Inputs(text=text, pixels=pixels))
    logits = model.compare(encoding.joint_image, encoding.joint_text)
    golden.check("logits_per_image", logits)
    golden.check("logits_per_text", logits.T)


def test_open_clip_equals_the_original(golden):
    golden = golden("clip-openclip")
    config = golden.config
    vision, text = config["vision_cfg"], config["text_cfg"]
    model = Clip(
        vocab_size=text["vocab_size"],
        text=Sizes(dim=text["width"], heads=text["heads"], hidden=4 * text["width"], layers=text["layers"]),
        vision=Sizes(
            dim=vision["width"],
            heads=vision["width"] // vision["head_width"],
            hidden=4 * vision["width"],
            layers=vision["layers"],
        ),
        joint_dim=config["embed_dim"],
        image_size=vision["image_size"],
        patch=vision["patch_size"],
        max_positions=text["context_length"],
        activation="quick_gelu" if config["quick_gelu"] else "gelu",
    )
    filled(model, golden)
    given, pixels = up_to_end(golden.inputs["input_ids"]), golden.inputs["pixel_values"]
    golden.check("image_projected", model.encode_image(pixels))
    golden.check("text_projected", model.encode_text(given))
    encoding = model(Inputs(text=given, pixels=pixels))
    golden.check("image_features", encoding.joint_image)
    golden.check("text_features", encoding.joint_text)
    golden.check("logit_scale_exp", model.logit_scale.exp())
    loss = cross_entropy(model.compare(encoding.joint_image, encoding.joint_text))
    golden.check("loss", loss)
    loss.backward()
    check_gradients(golden, model, CLIP_OPENAI)


def test_tables_of_other_sizes_are_interpolated_as_open_clip_does(golden):
    golden = golden("clip-openclip")
    config, tables = golden.config, golden.part("resize").inputs
    vision, text = config["vision_cfg"], config["text_cfg"]
    model = Clip(
        vocab_size=text["vocab_size"],
        text=Sizes(dim=text["width"], heads=text["heads"], hidden=8, layers=1),
        vision=Sizes(dim=vision["width"], heads=1, hidden=8, layers=1),
        image_size=vision["image_size"],
        patch=vision["patch_size"],
        max_positions=text["context_length"],
    )
    split = CLIP.split({**golden.weights, **tables}, where=golden.name)
    adapted = CLIP.adapt(model, split).backbone
    for name in tables:
        golden.check(f"resized.{name}", adapted[name])


def test_hugging_face_siglip_equals_the_original(golden):
    golden = golden("clip-siglip")
    config, given = golden.config, golden.inputs
    names = {"gelu_pytorch_tanh": "gelu_tanh"}
    options = {
        "activation": names[config["vision_config"]["hidden_act"]],
        "text_activation": names[config["text_config"]["hidden_act"]],
    }
    model = filled(Siglip(**towers(config), **options), golden)
    text, pixels = words(given["input_ids"]), given["pixel_values"]
    golden.check("image_pooled", model.encode_image(pixels))
    golden.check("text_pooled", model.encode_text(text))
    encoding = model(Inputs(text=text, pixels=pixels))
    golden.check("image_embeds", encoding.joint_image)
    golden.check("text_embeds", encoding.joint_text)
    logits = model.compare(encoding.joint_image, encoding.joint_text)
    golden.check("logits_per_image", logits)
    loss = sigmoid_loss(logits)
    golden.check("loss", loss)
    loss.backward()
    check_gradients(golden, model, SIGLIP_HUGGING_FACE)
    with torch.no_grad():
        last = check_states(golden, model, text, pixels)
        golden.check("image_last_hidden_state", model.image.norm(last))
        wide = given["wide.pixel_values"]
        golden.check("wide.image_pooled", model.image(wide))
        states = model.image.norm(model.image.encoder(model.image.embed(wide)))
        golden.check("wide.image_last_hidden_state", states)


def test_a_short_text_of_siglip_is_as_told(golden):
    """Hugging Face takes a short text as it is; ours fills it up to its table of positions."""
    golden = golden("clip-siglip")
    short, config = golden.inputs["short.input_ids"], golden.config
    model = filled(Siglip(**towers(config)), golden)
    table = model.text.positions.weight.data[: short.shape[1]]
    cut = Siglip(**{**towers(config), "max_positions": short.shape[1]}).eval()
    cut.load_state_dict({**model.state_dict(), "text.positions.weight": table})
    golden.check("short.text_pooled", cut.encode_text(words(short)))
    padded = F.pad(short, (0, model.text.positions.num_embeddings - short.shape[1]), value=1)
    torch.testing.assert_close(model.encode_text(words(short)), model.encode_text(words(padded)))


@OWN
def test_open_clip_siglip_equals_the_original(golden):
    golden = golden("clip-openclip-siglip")
    config = golden.config
    found = SIGLIP.sizes(SIGLIP.split(golden.weights, where=golden.name))
    vision, text = config["vision_cfg"]["timm_model_kwargs"], config["text_cfg"]
    heads = {"text": text["heads"], "vision": vision["num_heads"]}
    for tower, count in heads.items():  # too narrow for the rule of 64 per head
        own = {key: one for key, one in found[tower].items() if key != "_target_"}
        found[tower] = Sizes(**{**own, "heads": count})
    assert found["image_size"] == vision["img_size"]
    model = filled(Siglip(**found), golden)
    given, pixels = words(golden.inputs["input_ids"]), golden.inputs["pixel_values"]
    golden.check("image_pooled", model.encode_image(pixels))
    golden.check("text_pooled", model.encode_text(given))
    encoding = model(Inputs(text=given, pixels=pixels))
    golden.check("image_features", encoding.joint_image)
    golden.check("text_features", encoding.joint_text)
    logits = model.compare(encoding.joint_image, encoding.joint_text)
    golden.check("logits_per_image", logits)
    loss = sigmoid_loss(logits)
    golden.check("loss", loss)
    loss.backward()
    check_gradients(golden, model, SIGLIP_OPEN_CLIP)


def manifests(goldens):
    name = "clip-manifests"
    return json.loads((goldens / f"{name}.json").read_text())["checkpoints"]


@OWN
def test_full_sizes_take_the_published_names(goldens):
    """On the meta device: the model that the shapes tell has exactly these tensors."""
    checkpoints = manifests(goldens)
    assert checkpoints
    for name, entry in checkpoints.items():
        family = SIGLIP if "siglip" in name else CLIP
        with torch.device("meta"):
            weights = {key: torch.empty(shape) for key, shape in entry["tensors"].items()}
            found = family.sizes(family.split(weights, where=name))
            for tower in ("text", "vision"):
                found[tower] = Sizes(**{key: one for key, one in found[tower].items() if key != "_target_"})
            model = family.model(**found)
        assert not fill_model(model, weights, where=name), name
        sizes = 3 if "input_resolution" in weights else 0  # three numbers that only OpenAI's files hold
        assert sum(one.numel() for one in model.parameters()) == entry["n_values"] - sizes, name


def test_resizing_to_the_same_grid_changes_nothing():
    table = torch.randn(10, 4)
    assert resize_positions(table, (3, 3), (3, 3)) is table


TRANSFORMS = {
    "openai": SquareTransform(size=1, shape="crop"),
    "hf_clip": SquareTransform(size=1, shape="crop", floor=True),
    "squashed_first": SquareTransform(size=1),
    "siglip_openclip": SquareTransform(size=1, mean=(0.5,) * 3, std=(0.5,) * 3),
    "hf_siglip": SquareTransform(size=1, mean=(0.5,) * 3, std=(0.5,) * 3),
}


@OWN
def test_pictures_equal_the_originals(golden):
    golden = golden("clip-images")
    seen = set()
    for name, picture in golden.inputs.items():
        for kind, transform in TRANSFORMS.items():
            pixels = replace(transform, size=golden.config["n_px"])(Image.fromarray(picture.numpy()))
            torch.testing.assert_close(pixels, golden.outputs[f"{kind}.{name}"], atol=1e-6, rtol=0)
            golden.record(pixels, golden.outputs[f"{kind}.{name}"])
            seen.add(f"{kind}.{name}")
    assert seen == golden.outputs.keys()


@OWN
def test_tokens_equal_the_originals(goldens, tmp_path):
    name = "clip-tokenizer"
    golden = json.loads((goldens / f"{name}.json").read_text())
    config, path = golden["config"], tmp_path / "merges.txt"
    path.write_text("\n".join(["#version: 0.2", *golden["merges"], ""]), encoding="utf-8")
    ours, original = BytePair(path), BytePair(path, special_in_text=True)
    assert ours.vocab_size == config["vocab_size"]
    assert ours.special_ids == (config["start_id"], config["end_id"])
    length, injected = config["context_length"], 0
    for entry in golden["texts"]:
        padded = [one for one in (entry["openai"], entry["open_clip"]) if one is not None]
        for tokenizer, expected in ((original, padded[0]), (ours, padded[-1])):
            ids = tokenizer.encode(entry["text"], max_tokens=length).ids
            assert [*ids, *[config["pad_id_openai"]] * (length - len(ids))] == expected, entry["text"]
        injected += len(padded) - 1
    assert injected, "no text tries to end itself"
