"""A bundle converted from an original file scores as the original did."""

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from diptych import models
from diptych.bundle import build, load_bundle
from diptych.convert import FAMILIES, convert_checkpoint, recognize, restore_checkpoint
from diptych.nn import Layer
from diptych.text import write_vocabulary
from diptych.text.tokenizer import SPECIAL_TOKENS
from diptych.types import Batch, Inputs, PaddedRegions, PaddedText

EVERY = "DIPTYCH_GOLDENS" in os.environ  # a folder of all goldens, not the repository's selection
FOLDER = Path(os.environ.get("DIPTYCH_GOLDENS", Path(__file__).parents[1] / "golden"))
# names that the originals give to the same thing
NAMES = {
    "ids": ("input_ids", "src_ids"),
    "text_mask": ("attention_mask", "input_mask"),
    "segments": ("token_type_ids", "segment_ids", "sentence_ids"),
    "features": ("image_feat", "img_feat", "image_embeddings", "visual_feats", "image_feature_0"),
    "boxes": ("image_loc", "img_pos_feat", "visual_boxes"),
    "region_mask": ("image_mask", "image_attention_mask"),
}


def unpack(golden, *, first):
    """The inputs of any of the originals, from region `first` on."""
    given = {ours: next((golden.inputs[name] for name in theirs if name in golden.inputs), None)
             for ours, theirs in NAMES.items()}  # fmt: skip
    ids, features = given["ids"], given["features"][:, first:]
    count = features.shape[1]
    text_mask, region_mask = given["text_mask"], given["region_mask"]
    if region_mask is None and text_mask is not None and text_mask.shape[1] == ids.shape[1] + count:
        text_mask, region_mask = text_mask.split([ids.shape[1], count], 1)
    elif "max_features" in golden.inputs:
        region_mask = torch.arange(count) < golden.inputs["max_features"][:, None]
    elif region_mask is not None:
        region_mask = region_mask[:, first:]
    boxes = torch.zeros(len(ids), count, 4) if given["boxes"] is None else given["boxes"][:, first:, :4]
    nothing = torch.zeros_like(ids)
    return Inputs(
        text=PaddedText(
            ids=ids,
            mask=torch.ones_like(ids).bool() if text_mask is None else text_mask.bool(),
            segments=nothing if given["segments"] is None else given["segments"],
        ),
        regions=PaddedRegions(
            features=features,
            boxes=boxes,
            mask=torch.ones(len(ids), count, dtype=torch.bool) if region_mask is None else region_mask.bool(),
            image_index=torch.zeros(len(ids), count, dtype=torch.int64),
            sizes=torch.ones(len(ids), 2),
        ),
    )


@pytest.fixture
def folder(golden, tmp_path):
    """A golden's weights as somebody would leave them: a weight file, its settings and its vocabulary."""

    def write(name):
        found = golden(name)
        weights = {key: one.contiguous() for key, one in found.weights.items()}
        place = tmp_path / name
        place.mkdir()
        save_file(weights, place / "weights.safetensors")
        (place / "config.json").write_text(json.dumps(found.config | found.config.get("VLBERT", {})))
        words = max((one for key, one in weights.items() if "word_embedding" in key), key=len)
        spare = [f"w{number}" for number in range(len(words) - len(SPECIAL_TOKENS))]
        write_vocabulary(place / "vocab.txt", [*SPECIAL_TOKENS, *spare])
        return found, place

    return write


@pytest.mark.parametrize(
    ("name", "first", "pairs", "output"),
    [
        ("mmf-visualbert-hm", 0, 1, "logits"),
        ("vilio-visualbert-hm-reg", 0, 1, "logits"),
        ("vilio-oscar-hm", 0, 1, "logits"),
        ("lxmert-vqa", 0, 1, "logits"),
        ("mmf-visualbert-vqa", 0, 1, "logits"),
        ("vilio-d", 0, 1, "logits"),
        ("ernie-vil", 1, 1, "logit"),
    ],
)
def test_scores_equal_the_original(folder, tmp_path, name, first, pairs, output):
    golden, place = folder(name)
    inputs, overrides = unpack(golden, first=first), {}
    for key, weight in golden.weights.items():
        if key.endswith("img_embedding.weight"):
            # published widths of features tell how many numbers a box has; goldens need not have such widths
            width = inputs.regions.features.shape[-1]
            overrides = {"model": {"feature_dim": width, "box_numbers": weight.shape[1] - width}}
    report = convert_checkpoint(place, tmp_path / "bundle", overrides=overrides)
    assert report.family in name.replace("-", "") or name == "vilio-d"
    bundle = load_bundle(tmp_path / "bundle")
    ids = tuple(map(str, range(len(inputs.text.ids) // pairs)))
    with torch.no_grad():
        logits = bundle.task.score(bundle.model(inputs), Batch(ids=ids, inputs=inputs, pairs=pairs))
    golden.check(output, logits[:, 1:] if output == "logit" else logits)


def files(folder):
    """The goldens that hold a whole model as somebody would save it."""
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as tensors:
            names = [name for name in tensors.keys() if name.startswith("weights/")]  # noqa: SIM118
        if any(name.endswith((".word_embeddings.weight", "/word_embedding")) for name in names):
            yield path.stem


@pytest.mark.parametrize("name", [*files(FOLDER)])
def test_every_name_is_accounted_for_there_and_back(folder, tmp_path, name):
    golden, place = folder(name)
    overrides = {}
    if "coord_dim_per_sin_or_cos" in golden.config:  # VL-BERT: two widths in one matrix
        width = golden.weights["image_feature_extractor.obj_downsample.1.weight"].shape[1]
        feature_dim = golden.config["feature_dim"]
        overrides = {"model": {"feature_dim": feature_dim, "box_dim": width - feature_dim}}
    report = convert_checkpoint(place, tmp_path / "bundle", overrides=overrides)
    restore_checkpoint(tmp_path / "bundle", tmp_path / "back.safetensors")
    back = load_file(tmp_path / "back.safetensors")
    left_out = {key for names in report.dropped.values() for key in names}
    given = {key: one for key, one in golden.weights.items() if key not in left_out}
    assert back.keys() == given.keys()
    for key, one in given.items():
        rows = slice(1, 2) if key.endswith("mask_embedding.weight") else ...  # UNITER sets row 0 to zeros
        assert torch.equal(back[key][rows], one[rows]), key


MEMES, NLVR2 = ("benign", "hateful"), ("False", "True")
NAMED = [
    ("uniter-nlvr2-paired-attn", NLVR2),
    ("lxmert-nlvr2", NLVR2),
    ("mmf-visualbert-hm", MEMES),
    ("uniter-nav13n-hm", MEMES),
    ("vilio-visualbert-hm-reg", MEMES),
    ("vilio-oscar-hm", MEMES),
    ("vilio-d", MEMES),
    ("ernie-vil", MEMES),
    ("oscar-retrieval", ("0", "1")),
]
if EVERY:
    NAMED += [
        ("uniter-nlvr2-pair", NLVR2),
        ("uniter-nlvr2-triplet", NLVR2),
        ("visualbert-nlvr2", NLVR2),
        ("mmf-visualbert-nlvr2", NLVR2),
        ("oscar-nlvr2-pair", NLVR2),
        ("oscarplus-nlvr2-pair", NLVR2),
        ("vilio-uniter-hm", MEMES),
        ("vilio-visualbert-hm", MEMES),
    ]


@pytest.mark.parametrize(("name", "labels"), NAMED)
def test_two_classes_are_named_after_what_the_file_was_trained_for(folder, tmp_path, name, labels):
    _, place = folder(name)
    report = convert_checkpoint(place, tmp_path / "bundle")
    assert load_bundle(tmp_path / "bundle").task.labels == labels
    assert report.settings["task.labels"][0] == list(labels)
    assert report.settings["task.labels"][1] in (tmp_path / "bundle" / "README.md").read_text()


FULL_SIZES = [
    ("manifest-ernie-vil-base", models.ernievil_base, {}),
    ("manifest-vilbert-multitask", models.vilbert_base, {"tasks": 20}),
    ("manifest-vilio-d", models.devlbert_base, {"box_area": False}),
]
if EVERY:
    FULL_SIZES += [
        ("manifest-ernie-vil-large", models.ernievil_large, {}),
        ("manifest-vilbert-pretrain", models.vilbert_base, {}),
        ("manifest-devlbert-pretrain", models.devlbert_base, {}),
    ]


@pytest.mark.parametrize(("name", "builder", "options"), FULL_SIZES, ids=[one[0] for one in FULL_SIZES])
def test_full_sizes_are_read_off_the_shapes(goldens, name, builder, options):
    listed = json.loads((goldens / f"{name}.json").read_text())["tensors"]
    weights = {key: torch.empty(shape, device="meta") for key, shape in listed.items()}
    found = recognize(weights, FAMILIES, where=name, asked=None)
    with torch.device("meta"):
        ours = build({"_target_": f"diptych.models.{found.family.model.__name__}", **found.sizes})
        published = builder(**options)
    shapes = [{key: one.shape for key, one in model.state_dict().items()} for model in (ours, published)]
    assert shapes[0] == shapes[1]
    assert [one.attention.heads for one in modules(ours)] == [
        one.attention.heads for one in modules(published)
    ]


def modules(model):
    return [one for one in model.modules() if isinstance(one, Layer)]
