"""VisualBERT equals uclanlp/visualbert, mmf, Vilio and Hugging Face: states, scores, losses, gradients."""

import os
from functools import partial

import pytest
import torch
from torch.nn import functional as F

from diptych.convert import HEADS
from diptych.convert.rules import load_into, rename, restore
from diptych.convert.visualbert import VISUALBERT, fill_visualbert
from diptych.models import VisualBert
from diptych.nn import ClassifierHead
from diptych.tasks import Answer, Choose, Classify
from diptych.types import Inputs, PaddedRegions, PaddedText

LINEAR = {"": "layers.0"}

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
    heads = fill_visualbert(model, golden.weights, where=golden.name)
    anchor = "embeddings.word_embeddings.weight"
    prefix = next(name for name in golden.weights if name.endswith(anchor)).removesuffix(anchor)
    return model.eval(), heads, prefix


def unpack(inputs):
    """The inputs of any of the originals; rows of choices come one after the other."""
    ids = inputs["input_ids"].flatten(0, -2)
    segments = inputs.get("token_type_ids", inputs.get("segment_ids")).flatten(0, -2)
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


def load_head(head, weights, name, places):
    """Fill a head; returns the table that says where its parts sit."""
    own = {key: one for key, one in weights.items() if key.startswith(f"{name}.")}
    table = [rename(f"{name}.{part}".rstrip("."), place) for part, place in places.items()]
    load_into(head, own, table, where=name)
    return table


def gradients(model, prefix, head=None, table=()):
    """Gradients under the names of the original."""
    found = {name: one.grad for name, one in model.named_parameters() if one.grad is not None}
    result = {prefix + name: one for name, one in restore(found, VISUALBERT).items()}
    if head is not None:
        result |= restore({key: one.grad for key, one in head.named_parameters()}, table)
    return result


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


@pytest.mark.parametrize(
    ("name", "table", "options"),
    [
        ("visualbert-nlvr2", HEADS["visualbert"]["nlvr2"], {}),
        ("mmf-visualbert-hm", HEADS["mmf"]["hateful_memes"], {"head": NARROW}),
        ("mmf-visualbert-nlvr2", HEADS["mmf"]["nlvr2"], {"head": NARROW, "pairs": 2}),
        (
            "vilio-visualbert-hm",
            HEADS["vilio"]["hateful_memes"],
            {"head": partial(ClassifierHead, layers=2)},
        ),
        *([("vilio-visualbert-hm-reg", HEADS["vilio"]["hateful_memes_reg"], REG)] if EVERY else []),
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
    golden.check_gradients(gradients(model, prefix) | done.gradients)


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


@pytest.mark.parametrize("name", ["visualbert-pretrain", *(["mmf-visualbert-pretrain"] if EVERY else [])])
def test_masked_words_and_matching_equal_the_original(golden, name):
    golden = golden(name)
    model, heads, prefix = build(golden)
    inputs = unpack(golden.inputs)
    cls = next(key for key in heads if key.endswith("cls.predictions.bias")).removesuffix("predictions.bias")
    transform = ClassifierHead(model.dim, 1, layers=2, width=1).layers[:3]
    own = {key: one for key, one in heads.items() if f"{cls}predictions.transform." in key}
    table = [
        rename(f"{cls}predictions.transform.{part}", to) for part, to in (("dense", "0"), ("LayerNorm", "2"))
    ]
    load_into(transform, own, table, where=name)
    encoding = model(inputs)
    states = torch.cat([encoding.text, encoding.regions], 1)
    scores = F.linear(transform(states), model.word_embedding().weight, heads[f"{cls}predictions.bias"])
    valid = torch.cat([inputs.text.mask, inputs.regions.mask], 1)
    golden.check("prediction_scores", scores[valid], valid)
    labels = golden.inputs["masked_lm_labels" if "masked_lm_labels" in golden.inputs else "lm_label_ids"]
    loss = F.cross_entropy(scores[:, : labels.shape[1]][labels >= 0], labels[labels >= 0])
    match = None
    if "is_random_next" in golden.inputs:  # in spite of its name, 1 is a caption of the image
        match = ClassifierHead(model.dim, 2)
        table += load_head(match, heads, f"{cls}seq_relationship", LINEAR)
        matching = match(encoding.pooled)
        golden.check("seq_relationship_score", matching)
        golden.check("loss_mlm", loss)
        both = F.cross_entropy(matching, golden.inputs["is_random_next"].squeeze(-1))
        golden.check("loss_sentence_image", both)
        loss = loss + both
    loss.backward()
    golden.check("loss", loss)
    ours = gradients(model, prefix, match, table) | restore(
        {key: one.grad for key, one in transform.named_parameters()}, table
    )
    golden.check_gradients(ours)
    check_states(golden, model, inputs, encoding)
