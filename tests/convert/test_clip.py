"""CLIP's and SigLIP's files in their published forms, there and back."""

import json
import zipfile

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.text.pieces import model

from diptych import models
from diptych.bundle import load_bundle
from diptych.convert import convert_checkpoint, fill_model, load_model, restore, restore_checkpoint
from diptych.convert.clip import (
    CLIP,
    CLIP_HUGGING_FACE,
    CLIP_OPENAI,
    SIGLIP,
    SIGLIP_HUGGING_FACE,
    SIGLIP_OPEN_CLIP,
)
from diptych.convert.load import read_source
from diptych.convert.plan import plan_for
from diptych.data import SquareTransform
from diptych.errors import CheckpointMismatch, ConfigError, FormatError

FORMS = {
    "clip-openai": (CLIP_OPENAI, models.clip_tiny),
    "clip-hugging-face": (CLIP_HUGGING_FACE, models.clip_tiny),
    "siglip-hugging-face": (SIGLIP_HUGGING_FACE, models.siglip_tiny),
    "siglip-open-clip": (SIGLIP_OPEN_CLIP, models.siglip_tiny),
}


def original(form, **options):
    torch.manual_seed(0)
    table, builder = FORMS[form]
    model = builder(vocab_size=50, **options)
    return model, restore(model.state_dict(), table)


@pytest.mark.parametrize("form", FORMS)
def test_every_form_fills_the_model(form):
    model, weights = original(form)
    torch.manual_seed(1)
    other = FORMS[form][1](vocab_size=50)
    assert not fill_model(other, weights, where=form)
    assert all(torch.equal(one, model.state_dict()[name]) for name, one in other.state_dict().items())


@pytest.mark.parametrize("form", FORMS)
def test_sizes_are_those_of_the_model(form):
    model, weights = original(form)
    family = CLIP if "siglip" not in form else SIGLIP
    sizes = family.sizes(family.split(weights, where=form))
    assert (sizes["text"]["layers"], sizes["vision"]["hidden"]) == (2, 192)
    assert (sizes["image_size"], sizes["patch"], sizes["vocab_size"]) == (24, 6, 50)
    assert sizes["max_positions"] == model.text.positions.num_embeddings


def test_positions_follow_the_size_of_the_pictures():
    model, weights = original("clip-openai")
    larger = models.clip_tiny(vocab_size=50, image_size=36, max_positions=90)
    fill_model(larger, weights, where="x")
    assert larger.image.positions.shape == (37, 48)
    torch.testing.assert_close(larger.image.positions[0], model.image.positions[0])  # the class vector's
    # The corners of the larger grid are those of the smaller one, but for the smoothing between cells.
    torch.testing.assert_close(larger.image.positions[1], model.image.positions[1], atol=0.15, rtol=0)
    assert larger.text.positions.weight.shape == (90, 48)


def test_a_counter_of_positions_and_the_sizes_of_openai_are_left_out():
    for form, extra in (
        ("clip-hugging-face", {"text_model.embeddings.position_ids": torch.arange(77)[None]}),
        ("clip-openai", {name: torch.tensor(1) for name in ("input_resolution", "vocab_size")}),
    ):
        _, weights = original(form)
        assert not fill_model(models.clip_tiny(vocab_size=50), {**weights, **extra}, where=form)


def test_half_precision_is_filled_as_single():
    model, weights = original("clip-openai")
    half = {name: one.half() for name, one in weights.items()}
    other = models.clip_tiny(vocab_size=50)
    fill_model(other, half, where="x")
    words = other.text.words.weight
    assert words.dtype == torch.float32
    torch.testing.assert_close(words, model.text.words.weight, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize(
    ("form", "own", "activation"),
    [
        ("clip-openai", {"input_resolution": torch.tensor(24)}, "quick_gelu"),
        ("clip-openai", {}, "gelu"),  # open_clip's own weights
        ("clip-hugging-face", {}, "quick_gelu"),
    ],
)
def test_the_activation_is_assumed_by_who_wrote_the_file(form, own, activation):
    _, weights = original(form)
    split = CLIP.split({**weights, **own}, where=form)
    assert CLIP.sizes(split)["activation"] == activation


def test_config_json_says_what_shapes_do_not(tmp_path):
    _, weights = original("clip-hugging-face")
    save_file({name: one.contiguous() for name, one in weights.items()}, tmp_path / "model.safetensors")
    tower = {"num_attention_heads": 6, "hidden_act": "gelu_pytorch_tanh"}
    config = {"text_config": {**tower, "num_attention_heads": 3}, "vision_config": tower}
    (tmp_path / "config.json").write_text(json.dumps(config))
    plan = plan_for(read_source(tmp_path), tmp_path, overrides={}, device="meta")
    assert plan.node["vision"]["heads"] == 6
    assert plan.node["text"]["heads"] == 3
    assert plan.node["activation"] == "gelu_tanh"
    assert plan.settings["model.activation"].why == "the file: its config.json"


@pytest.mark.parametrize(("quick", "activation"), [(True, "quick_gelu"), (False, "gelu")])
def test_open_clip_config_and_the_names_of_custom_text_clip(tmp_path, quick, activation):
    _, weights = original("clip-openai")
    names = {name: name if name.startswith(("visual.", "logit")) else f"text.{name}" for name in weights}
    save_file(
        {names[name]: one.contiguous() for name, one in weights.items()}, tmp_path / "open_clip.safetensors"
    )
    model = {"vision_cfg": {"width": 48, "head_width": 16}, "text_cfg": {"heads": 6}, "quick_gelu": quick}
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": model, "preprocess_cfg": {}}))
    source = read_source(tmp_path)
    assert source.weights.keys() == weights.keys()
    plan = plan_for(source, tmp_path, overrides={}, device="meta")
    assert (plan.node["vision"]["heads"], plan.node["text"]["heads"]) == (3, 6)
    assert plan.node["activation"] == activation


@pytest.mark.parametrize(
    ("model", "error", "found"),
    [
        ({"text_cfg": {"hf_model_name": "roberta-base"}}, ConfigError, "roberta-base"),
        ({"vision_cfg": {"layers": [3, 4, 6, 3]}}, ConfigError, "ResNet"),
        ({"quick_gelu": "yes"}, FormatError, "quick_gelu"),
    ],
)
def test_towers_of_open_clip_that_are_not_clips(tmp_path, model, error, found):
    _, weights = original("clip-openai")
    save_file({"a": weights["visual.proj"].contiguous()}, tmp_path / "open_clip.safetensors")
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": model}))
    with pytest.raises(error, match=rf"open_clip_config\.json.*{found}"):
        read_source(tmp_path)


def test_a_file_of_the_other_family_is_refused(tmp_path):
    _, weights = original("siglip-hugging-face")
    save_file({name: one.contiguous() for name, one in weights.items()}, tmp_path / "s.safetensors")
    assert len(load_file(tmp_path / "s.safetensors")) == len(weights)
    with pytest.raises(CheckpointMismatch, match=r"image\.first"):
        load_model(models.clip_tiny(vocab_size=50), tmp_path / "s.safetensors")


def test_a_torchscript_archive_is_explained(tmp_path):
    path = tmp_path / "ViT-B-32.pt"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("data.pkl", "constants.pkl", "code/__torch__.py", "version"):
            archive.writestr(f"model/{name}", b"\x80\x02}.")
    with pytest.raises(FormatError, match=r"ViT-B-32\.pt.*TorchScript.*state_dict"):
        read_source(path)


def folder_of(tmp_path, form):
    """A folder as Hugging Face has it: weights, config and the merges of the vocabulary."""
    _, weights = original(form)
    if form == "clip-hugging-face":
        table = torch.randn(517, 48)
        weights = {**weights, "text_model.embeddings.token_embedding.weight": table}
    save_file({name: one.contiguous() for name, one in weights.items()}, tmp_path / "model.safetensors")
    tower = {"num_attention_heads": 4, "hidden_act": "quick_gelu"}
    (tmp_path / "config.json").write_text(json.dumps({"text_config": tower, "vision_config": tower}))
    (tmp_path / "merges.txt").write_text("#version: 0.2\nt h\nth e</w>\nc a\n")
    return weights


def test_a_folder_becomes_a_bundle_and_goes_back(tmp_path):
    (tmp_path / "hub").mkdir()
    weights = folder_of(tmp_path / "hub", "clip-hugging-face")
    report = convert_checkpoint(tmp_path / "hub", tmp_path / "bundle")
    assert report.family == "clip"
    bundle = load_bundle(tmp_path / "bundle")
    assert bundle.model.image.encoder.layers[0].attention.heads == 4
    assert bundle.processor.text.vocab_size == 517
    assert bundle.processor.max_tokens == 77
    assert bundle.processor.square == SquareTransform(size=24)
    assert bundle.processor.provides == bundle.model.needs
    assert restore_checkpoint(tmp_path / "bundle", tmp_path / "back.safetensors") == len(weights)
    back = load_file(tmp_path / "back.safetensors")
    assert back.keys() == weights.keys()
    assert all(torch.equal(one, weights[name]) for name, one in back.items())


def test_a_vocabulary_of_other_words_is_refused(tmp_path):
    (tmp_path / "hub").mkdir()
    folder_of(tmp_path / "hub", "clip-hugging-face")
    other = tmp_path / "short.txt"
    other.write_text("#version: 0.2\nt h\n")
    with pytest.raises(ConfigError, match=r"short\.txt: 515 tokens for a word embedding of 517 rows"):
        convert_checkpoint(tmp_path / "hub", tmp_path / "bundle", vocabulary=other)
    other.write_text("[PAD]\n[UNK]\n")
    with pytest.raises(FormatError, match=r"short\.txt:1"):
        convert_checkpoint(tmp_path / "hub", tmp_path / "bundle", vocabulary=other)
    assert not (tmp_path / "bundle").exists()


def test_siglip_takes_its_pieces_into_the_bundle(tmp_path):
    hub = tmp_path / "hub"
    hub.mkdir()
    folder_of(hub, "siglip-hugging-face")
    (hub / "merges.txt").unlink()
    names = ["<pad>", "</s>", "<unk>", "\u2581", *(chr(97 + number) for number in range(46))]
    pieces = [(name, -1.0) for name in names]
    (hub / "spiece.model").write_bytes(model(pieces[:-1]))
    with pytest.raises(ConfigError, match=r"spiece\.model: 49 tokens for a word embedding of 50 rows"):
        convert_checkpoint(hub, tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()
    (hub / "spiece.model").write_bytes(model(pieces))
    convert_checkpoint(hub, tmp_path / "bundle", overrides={"model.max_positions": 32})
    processor = load_bundle(tmp_path / "bundle").processor
    assert (tmp_path / "bundle/files/spiece.model").is_file()
    assert processor.text.cleaning == "canonicalize"
    assert processor.text.encode("A!", max_tokens=9).ids == (names.index("\u2581"), names.index("a"), 1)
    assert processor.max_tokens == 32
