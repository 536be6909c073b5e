"""UNITER equals ChenRocks/UNITER, nav13n/multimodal-learning and Vilio: states, scores, losses, gradients."""

import os
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch.nn import functional as F

from diptych.convert.rules import load_into, rename, restore
from diptych.convert.uniter import UNITER, UNITER_PRETRAIN, fill_uniter
from diptych.models import Uniter
from diptych.nn import ClassifierHead
from diptych.tasks import Pretrain
from diptych.tasks.classify import Classify
from diptych.tasks.objectives import (
    Alignment,
    MaskedRegions,
    MaskedText,
    Matching,
    RegionFeatures,
    RegionProbabilities,
    Sample,
)
from diptych.types import Batch, Inputs, PaddedRegions, PaddedText

EVERY = "DIPTYCH_GOLDENS" in os.environ  # a folder of all goldens, not the repository's selection


def build(golden, **options):
    """The model with the weights of the golden, those of its heads, and the prefix of its names."""
    config = golden.config
    model = Uniter(
        vocab_size=config["vocab_size"],
        feature_dim=config.get("img_dim") or config["feature_dim"],
        dim=config["hidden_size"],
        heads=config["num_attention_heads"],
        hidden=config["intermediate_size"],
        layers=config["num_hidden_layers"],
        max_positions=config["max_position_embeddings"],
        segments=config["type_vocab_size"],
        **options,
    )
    heads = fill_uniter(model, golden.weights, where=golden.name)
    anchor = "embeddings.word_embeddings.weight"
    prefix = next(name for name in golden.weights if name.endswith(anchor)).removesuffix(anchor)
    return model.eval(), heads, prefix


def unpack(inputs):
    """The original's compact rows as padded ones."""
    ids, boxes = inputs["input_ids"], inputs["img_pos_feat"]
    mask = inputs.get("attn_masks", inputs.get("attention_mask")).bool()
    real = torch.zeros(len(ids), ids.shape[1] + boxes.shape[1], dtype=torch.bool)
    for row, (index, keep) in enumerate(zip(inputs["gather_index"], mask, strict=True)):
        real[row, index[keep]] = True
    text_mask, region_mask = real.split([ids.shape[1], boxes.shape[1]], 1)
    segments = inputs.get("txt_type_ids", torch.zeros_like(ids))
    types = inputs.get("img_type_ids", torch.ones(boxes.shape[:2], dtype=torch.int64))
    regions = PaddedRegions(
        features=inputs["img_feat"],
        boxes=boxes[..., :4],
        mask=region_mask,
        image_index=(types - 1).clamp(min=0),
        sizes=torch.ones(len(ids), 2),
        hidden=inputs.get("img_masks"),
    )
    return Inputs(text=PaddedText(ids=ids, mask=text_mask, segments=segments), regions=regions)


def compact(states, golden):
    """The real states, row by row, as the original orders them."""
    mask = golden.inputs.get("attn_masks", golden.inputs.get("attention_mask")).bool()
    rows = torch.arange(len(mask))[:, None].expand_as(mask)
    return states[rows[mask], golden.inputs["gather_index"][mask]], mask


def joint(encoding):
    return torch.cat([encoding.text, encoding.regions], 1)


def gradients(model, prefix, **heads):
    """Gradients under the names of the original."""
    found = restore(
        {name: one.grad for name, one in model.named_parameters() if one.grad is not None}, UNITER
    )
    result = {prefix + name: one for name, one in found.items()}
    for name, head in heads.items():
        table = [rename(name, place(head))]
        ours = {key: one.grad for key, one in head.named_parameters() if one.grad is not None}
        result |= restore(ours, table)
    return result


def place(head):
    """Where a head of the original sits in ours: a Sequential as it is, a Linear as its only layer."""
    return "layers" if len(head.layers) > 1 else "layers.0"


def load_head(head, weights, name):
    own = {key: one for key, one in weights.items() if key.startswith(f"{name}.")}
    load_into(head, own, [rename(name, place(head))], where=name)


@pytest.mark.parametrize("name", ["uniter-vqa", *(["uniter-ve"] if EVERY else [])])
def test_answers_equal_the_original(golden, name):
    golden = golden(name)
    model, heads, prefix = build(golden)
    targets = golden.inputs["targets"]
    head = ClassifierHead(model.dim, targets.shape[1], layers=2)
    load_head(head, heads, "vqa_output")
    scores = head(model(unpack(golden.inputs)).pooled)
    loss = F.binary_cross_entropy_with_logits(scores, targets) * targets.shape[1]
    loss.backward()
    golden.check("scores", scores)
    golden.check("loss", loss)
    golden.check_gradients(gradients(model, prefix, vqa_output=head))


@pytest.mark.parametrize(
    ("name", "original", "options"),
    [
        ("uniter-nlvr2-pair", "nlvr2_output", {"pairs": 2}),
        *([("uniter-nlvr2-triplet", "nlvr2_output", {})] if EVERY else []),
        ("vilio-uniter-hm", "classifier", {"head": partial(ClassifierHead, layers=2)}),
        ("uniter-nav13n-hm", "linear", {"loss": "softmax_ce"}),
    ],
)
def test_classification_equals_the_original(golden, name, original, options):
    golden = golden(name)
    inputs, quirks = unpack(golden.inputs), {}
    if "num_bbs" in golden.inputs:  # nav13n attends padded regions: mask them truly, then ask for its quirk
        real = torch.arange(inputs.regions.mask.shape[1]) < golden.inputs["num_bbs"][:, None]
        object.__setattr__(inputs.regions, "mask", real)
        quirks = {"attend_padding": True}
    model, heads, prefix = build(golden, **quirks)
    task = Classify(model, labels=("no", "yes"), **options)
    load_head(task.head, heads, original)
    targets = golden.inputs["targets" if "targets" in golden.inputs else "labels"]
    batch = Batch(
        ids=tuple(map(str, range(len(targets)))),
        inputs=inputs,
        targets=targets,
        pairs=options.get("pairs", 1),
    )
    encoding = model(inputs)
    logits = task.score(encoding, batch)
    # Vilio multiplies the mean by the size of the batch.
    loss = task.loss(logits, batch) * (len(targets) if name == "vilio-uniter-hm" else 1)
    loss.backward()
    golden.check("scores" if "scores" in golden.outputs else "logits", logits)
    golden.check("loss", loss)
    golden.check_gradients(gradients(model, prefix, **{original: task.head}))
    if "sequence_output" in golden.outputs:
        states, rows = compact(joint(encoding), golden)
        golden.check("sequence_output", states, rows)
    if "pooled" in golden.outputs:
        golden.check("pooled", encoding.pooled)
    if "preds" in golden.outputs:
        golden.check("preds", logits.softmax(-1))
        golden.check("loss_on_logits", F.cross_entropy(logits, targets))
    if "score" in golden.outputs:
        golden.check("score", logits.log_softmax(-1)[:, 1])


def test_choices_equal_the_original(golden):
    golden = golden("uniter-vcr")
    model, heads, prefix = build(golden)
    head = ClassifierHead(model.dim, 2, layers=2, activation="relu")
    load_head(head, heads, "vcr_output")
    scores = head(model(unpack(golden.inputs)).pooled)
    loss = F.cross_entropy(scores, golden.inputs["targets"].squeeze(-1))
    loss.backward()
    golden.check("scores", scores[:, 1:])
    golden.check("loss", loss)
    golden.check_gradients(gradients(model, prefix, vcr_output=head))


def test_retrieval_equals_the_original(golden):
    golden = golden("uniter-itm-retrieval")
    model, heads, prefix = build(golden)
    head = ClassifierHead(model.dim, 1)
    load_head(head, heads, "rank_output")
    scores = head(model(unpack(golden.inputs)).pooled)
    groups = scores.sigmoid().reshape(-1, int(golden.inputs["sample_size"]))
    loss = (golden.config["margin"] + groups[:, 1:] - groups[:, :1]).clamp(min=0).mean()
    loss.backward()
    golden.check("scores", scores)
    golden.check("loss", loss)
    golden.check_gradients(gradients(model, prefix, rank_output=head))


def test_grounding_equals_the_original(golden):
    golden = golden("uniter-re")
    model, heads, prefix = build(golden)
    head = ClassifierHead(model.dim, 1, layers=golden.config["mlp"], width=1)
    load_head(head, heads, "re_output")
    scores = head(model(unpack(golden.inputs)).regions).squeeze(-1)
    scores = scores.masked_fill(golden.inputs["obj_masks"], -1e4)
    loss = F.cross_entropy(scores, golden.inputs["targets"].squeeze(-1))
    loss.backward()
    assert golden.config["loss_type"] == "cls"
    golden.check("scores", scores)
    golden.check("loss", loss)
    golden.check_gradients(gradients(model, prefix, re_output=head))


def test_embeddings_and_every_layer_equal_the_original(golden):
    golden = golden("uniter-pretrain").part("mlm")
    model, _, _ = build(golden)
    seen = {}

    def keep(name):
        return lambda module, given, result: seen.__setitem__(name, result)

    model.text.register_forward_hook(keep("text_embeddings"))
    model.regions.register_forward_hook(keep("image_embeddings"))
    for number, layer in enumerate(model.encoder.layers):
        layer.register_forward_hook(keep(f"encoder_layer_{number}"))
    inputs = unpack(golden.inputs)
    encoding = model(inputs)
    golden.check("text_embeddings", seen["text_embeddings"])
    # Padded regions have segment 1 in ours and in the original alike, so even they agree.
    golden.check("image_embeddings", seen["image_embeddings"])
    states, rows = compact(torch.cat([seen["text_embeddings"], seen["image_embeddings"]], 1), golden)
    golden.check("embedding_output", states, rows)
    for number in range(len(model.encoder.layers)):
        states, rows = compact(seen[f"encoder_layer_{number}"], golden)
        golden.check(f"encoder_layer_{number}", states, rows)
    golden.check("pooled", encoding.pooled)


def pretraining(golden, *, classes="kl_mean"):
    """The model and the task of the original's pre-training, and the prefix of its names."""
    model, heads, prefix = build(golden)
    count = len(golden.weights["region_classifier.net.3.bias"])
    features = {"features": partial(RegionFeatures, tied="regions.feature")}
    probabilities = {"classes": partial(RegionProbabilities, classes=count, loss=classes)}
    task = Pretrain(
        model,
        objectives={
            "matching": partial(Matching, exchange="regions"),
            "words": MaskedText,
            "features": partial(MaskedRegions, predict=features),
            "classes": partial(MaskedRegions, predict=probabilities),
            "alignment": Alignment,
        },
        weights={"alignment": golden.config["itm_ot_lambda"]},
        draw={"words": 8, "features": 4, "classes": 4, "matching+alignment": 6},
    )
    load_into(task, heads, UNITER_PRETRAIN, where=golden.name)
    assert restore(task.state_dict(), UNITER_PRETRAIN).keys() == heads.keys() - {
        "cls.predictions.decoder.weight",
        "feat_regress.weight",
    }
    return model, task, prefix


def learn(golden, model, task, prefix, loss):
    """Compare a loss and its gradients."""
    loss.backward(retain_graph=True)
    golden.check("loss", loss)
    found = {name: one.grad for name, one in task.named_parameters() if one.grad is not None}
    golden.check_gradients(gradients(model, prefix) | restore(found, UNITER_PRETRAIN))
    model.zero_grad()
    task.zero_grad()


def test_masked_words_equal_the_original(golden):
    golden = golden("uniter-pretrain")
    model, task, prefix = pretraining(golden)
    golden = golden.part("mlm")
    inputs, words = unpack(golden.inputs), golden.inputs["txt_labels"]
    scores = task.objectives["words"].head(model(inputs).text[words >= 0], model.word_embedding().weight)
    golden.check("scores", scores)
    losses = task.losses(model, Sample(inputs=inputs, words=words), ["words"])
    learn(golden, model, task, prefix, task.total(losses))


def hidden_regions(golden):
    """What the model is given, and what it is asked about hidden regions."""
    inputs = unpack(golden.part("mrfr").inputs)
    regions, hidden = inputs.regions, inputs.regions.hidden
    features = regions.features.masked_scatter(hidden[..., None], golden.inputs["mrfr.feat_targets"])
    targets = golden.inputs["mrc.label_targets"]
    probabilities = torch.zeros(*hidden.shape, targets.shape[1])
    probabilities[hidden] = targets
    return Sample(
        inputs=inputs, regions=replace(regions, features=features, probabilities=probabilities), wanted=hidden
    )


def test_hidden_region_features_equal_the_original(golden):
    golden = golden("uniter-pretrain")
    model, task, prefix = pretraining(golden)
    losses = task.losses(model, hidden_regions(golden), ["features"])
    learn(golden.part("mrfr"), model, task, prefix, task.total(losses))


@pytest.mark.parametrize(("part", "loss"), [("mrc", "hard"), ("mrckl", "kl_mean")])
def test_hidden_region_classes_equal_the_original(golden, part, loss):
    golden = golden("uniter-pretrain")
    model, task, prefix = pretraining(golden, classes=loss)
    sample = hidden_regions(golden)
    states = task.objectives["classes"].transform(model(sample.inputs).regions[sample.wanted])
    golden.part("mrc").check("scores", task.objectives["classes"].predict["classes"].decoder(states))
    losses = task.losses(model, sample, ["classes"])
    learn(golden.part(part), model, task, prefix, task.total(losses))


def test_matching_and_alignment_equal_the_original(golden):
    golden = golden("uniter-pretrain")
    model, task, prefix = pretraining(golden)
    both, golden = golden.part("itm_ot"), golden.part("itm")
    inputs, targets = unpack(golden.inputs), golden.inputs["targets"]
    sample = Sample(inputs=inputs, broken=1 - targets)
    encoding = model(inputs)
    golden.check("scores", task.objectives["matching"].head(encoding.pooled))
    text, regions = encoding.text, encoding.regions
    distance = task.objectives["alignment"].distance(text, inputs.text.mask, regions, inputs.regions.mask)
    both.check("distance", distance)
    learn(golden, model, task, prefix, task.total(task.losses(model, sample, ["matching"])))
    losses = task.losses(model, sample, ["matching", "alignment"])
    both.check("ot_loss", losses["alignment"])
    learn(both, model, task, prefix, task.total(losses))
