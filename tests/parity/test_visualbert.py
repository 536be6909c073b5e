"""VisualBERT equals uclanlp/visualbert, mmf, Vilio and Hugging Face: states, scores, losses, gradients."""

import os
from functools import partial

import pytest
import torch
from tests.parity.heads import HEADS
from torch.nn import functional as F

from diptych.convert import fill_model
from diptych.convert.rules import load_into, restore
from diptych.convert.visualbert import VISUALBERT, VISUALBERT_PRETRAIN
from diptych.models import VisualBert
from diptych.nn import ClassifierHead
from diptych.tasks import Answer, Choose, Classify, Pretrain
from diptych.tasks.objectives import MaskedText, Sample, TagContrast
from diptych.types import Inputs, PaddedRegions, PaddedText

EVERY = "DIPTYCH_GOLDENS" in os.environ  # a folder of all goldens, not the repository's selection


def build(golden, **options):
    """The model with the weights of the golden, those of its heads, and the prefix of its names."""
    config = golden.config
    model = VisualBert(
        vocab_size=config["vocab_size"],
        feature_dim=config["visual_embedding_dim"],
        dim=config["hidden_size"],
        heads=config["num_attention_heads"],
        hidden=config["intermediate_size"],
        layers=config["num_hidden_layers"],
        max_positions=config["max_position_embeddings"],
        segments=config["type_vocab_size"],
        region_segment=config.get("visual_token_type", 0),
        eps=config["layer_norm_eps"],
        **options,
    )
    heads = fill_model(model, golden.weights, where=golden.name)
    anchor = "embeddings.word_embeddings.weight"
    prefix = next(name for name in golden.weights if name.endswith(anchor)).removesuffix(anchor)
    return model.eval(), heads, prefix


def unpack(inputs):
    """The inputs of any of the originals; rows of choices come one after the other."""
    ids = inputs["input_ids"].flatten(0, -2)
    segments = inputs.get("token_type_ids", inputs.get("segment_ids", torch.zeros_like(ids))).flatten(0, -2)
    text = PaddedText(ids=ids, mask=inputs["input_mask"].flatten(0, -2).bool(), segments=segments)
    if "image_feature_left" in inputs:  # mmf stacks all lefts and all rights; here the pairs are neighbors
        left, right = (look(inputs, f"image_feature_{side}", f"max_features_{side}") for side in SIDES)
        text = text.map(lambda one: one.repeat_interleave(2, 0))
        features, mask = (torch.stack(both, 1).flatten(0, 1) for both in zip(left, right, strict=True))
    else:
        features, mask = look(inputs, "image_feature_0", "max_features")
    types = inputs.get("visual_embeddings_type", torch.zeros_like(mask, dtype=torch.int64))
    boxes, sizes = torch.zeros(*mask.shape, 4), torch.ones(len(mask), 2)
    regions = PaddedRegions(features=features, boxes=boxes, mask=mask, image_index=types, sizes=sizes)
    return Inputs(text=text, regions=regions)


SIDES = ("left", "right")


def look(inputs, features, counts):
    """Features and mask, under the names of mmf, uclanlp or Vilio."""
    if features in inputs:
        found = inputs[features]
        return found, torch.arange(found.shape[1]) < inputs[counts][:, None]
    found = inputs.get("visual_embeddings", inputs.get("img_feat")).flatten(0, -3)
    mask = inputs.get("image_mask", torch.ones(found.shape[:2]))
    return found, mask.flatten(0, -2).bool()


def gradients(model, prefix):
    """Gradients under the names of the original."""
    found = {name: one.grad for name, one in model.named_parameters() if one.grad is not None}
    return {prefix + name: one for name, one in restore(found, VISUALBERT).items()}


def check_states(golden, model, inputs, encoding):
    """Compare what the golden holds of embeddings, last states and pooled vector, where rows are real."""
    valid = torch.cat([inputs.text.mask, inputs.regions.mask], 1)
    states = {"last": torch.cat([encoding.text, encoding.regions], 1)}
    first = model.encoder.layers[0]
    first.register_forward_hook(lambda module, given, result: states.__setitem__("first", given[0]))
    model(inputs)
    names = {"embedding_output": "first", "sequence_output": "last", "last_hidden": "last"}
    for name in names.keys() & golden.outputs.keys():
        golden.check(name, states[names[name]][valid], valid)
    if "pooled" in golden.outputs and model.pool is not None:
        golden.check("pooled", encoding.pooled)


NARROW = partial(ClassifierHead, layers=2, width=1)
REG = {"head": partial(ClassifierHead, samples=5, dropout=0.5)}
SIBLINGS = [
    ("mmf-visualbert-nlvr2", HEADS["mmf"]["nlvr2"], {"head": NARROW, "pairs": 2}),
    ("visualbert-nlvr2", HEADS["visualbert"]["nlvr2"], {}),
    ("vilio-visualbert-hm", HEADS["vilio"]["hateful_memes"], {"head": partial(ClassifierHead, layers=2)}),
]


@pytest.mark.parametrize(
    ("name", "table", "options"),
    [
        ("mmf-visualbert-hm", HEADS["mmf"]["hateful_memes"], {"head": NARROW}),
        ("vilio-visualbert-hm-reg", HEADS["vilio"]["hateful_memes_reg"], REG),
        *(SIBLINGS if EVERY else []),
    ],
)
def test_classification_equals_the_original(golden, perform, name, table, options):
    golden = golden(name)
    average = "layer_averaged_cls" in golden.outputs
    model, heads, prefix = build(golden, readout="layer_average" if average else "first")
    inputs, pairs = unpack(golden.inputs), options.get("pairs", 1)
    task = Classify(model, labels=("no", "yes"), **options)
    targets = golden.inputs["labels" if "labels" in golden.inputs else "label"]
    scale = len(targets) if name.startswith("vilio") else 1  # Vilio multiplies the mean by the batch
    done = perform(model, task, inputs, targets, weights=heads, table=table, pairs=pairs, scale=scale)
    check(golden, model, prefix, done)
    if average:
        golden.check("layer_averaged_cls", done.encoding.pooled)
        assert "pooler.dense.weight" in heads  # the original keeps it, and nobody reads it
    check_states(golden, model, inputs, done.encoding)
    if "score" in golden.outputs:
        golden.check("score", done.logits.log_softmax(-1)[:, 1])


def check(golden, model, prefix, done):
    golden.check("logits", done.logits)
    golden.check("loss", done.loss)
    golden.check_gradients(gradients(model, prefix) | in_file(golden, done.gradients))


def in_file(golden, heads):
    """Heads under the names in the file: mmf's lie in the module around the backbone."""
    return {name if name in golden.weights else f"model.{name}": one for name, one in heads.items()}


def test_answers_equal_the_original(golden, perform):
    golden = golden("mmf-visualbert-vqa")
    assert golden.config["pooler_strategy"] == "vqa"
    model, heads, prefix = build(golden, readout="before_end")
    inputs, classes = unpack(golden.inputs), golden.config["num_labels"]
    answers = [str(number) for number in range(classes)]
    task = Answer(model, answers=answers, head=NARROW)
    targets = F.one_hot(golden.inputs["labels"], classes).float()
    done = perform(model, task, inputs, targets, weights=heads, table=HEADS["mmf"]["vqa"])
    check(golden, model, prefix, done)
    check_states(golden, model, inputs, done.encoding)


def test_choices_between_texts_that_name_regions_equal_the_original(golden, perform, monkeypatch):
    """Words of the golden name several regions each, which mentions cannot say: they come in as they are."""
    golden = golden("visualbert-vcr-alignment")
    model, heads, prefix = build(golden)
    words = golden.inputs["image_text_alignment"].flatten(0, 1)

    def named(text, regions):
        real = (words >= 0)[..., None]
        vectors = model.text.positions(words.clamp(min=0)) * real
        return vectors.sum(2) / real.sum(2).clamp(min=1)

    monkeypatch.setattr(model, "named", named)
    inputs, pairs = unpack(golden.inputs), golden.config["num_choices"]
    object.__setattr__(inputs.text, "mentions", torch.zeros_like(inputs.text.ids))
    table, label = HEADS["visualbert"]["vcr"], golden.inputs["label"]
    done = perform(model, Choose(model), inputs, label, weights=heads, table=table, pairs=pairs)
    check(golden, model, prefix, done)
    check_states(golden, model, inputs, done.encoding)


@pytest.mark.parametrize(
    "name",
    [
        "visualbert-pretrain",
        *(["mmf-visualbert-pretrain", "vilio-visualbert-pretrain"] if EVERY else []),
    ],
)
def test_pretraining_equals_the_original(golden, name):
    golden = golden(name)
    model, heads, prefix = build(golden)
    inputs, given = unpack(golden.inputs), golden.inputs
    task = Pretrain(model, objectives={"matching": partial(TagContrast, matches=1), "words": MaskedText})
    load_into(task, heads, VISUALBERT_PRETRAIN, where=name)
    words = given["masked_lm_labels" if "masked_lm_labels" in given else "lm_label_ids"]
    width = inputs.text.mask.shape[1]
    assert not (words[:, width:] >= 0).any()
    # In spite of its name, 1 is a caption of the image; mmf and Vilio ask for words only.
    broken = 1 - given["is_random_next"].squeeze(-1) if "is_random_next" in given else None
    sample = Sample(inputs=inputs, words=words[:, :width], mismatch=broken)
    losses = task.losses(model, sample, ["matching", "words"])
    loss = task.total(losses)
    loss.backward()
    encoding, parts = model(inputs), task.objectives
    states = torch.cat([encoding.text, encoding.regions], 1)
    valid = torch.cat([inputs.text.mask, inputs.regions.mask], 1)
    scores = parts["words"].head(states, model.word_embedding().weight)
    golden.check("prediction_scores", scores[valid], valid)
    if "seq_relationship_score" in golden.outputs:
        golden.check("seq_relationship_score", parts["matching"].head(encoding.pooled))
    if broken is not None:
        golden.check("loss_mlm", losses["words"])
        golden.check("loss_sentence_image", losses["matching"])
    golden.check("loss", loss)
    found = {key: one.grad for key, one in task.named_parameters() if one.grad is not None}
    ours = in_file(golden, restore(found, VISUALBERT_PRETRAIN))
    golden.check_gradients(gradients(model, prefix) | ours)
    check_states(golden, model, inputs, encoding)
