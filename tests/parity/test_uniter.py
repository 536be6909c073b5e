"""UNITER equals ChenRocks/UNITER, nav13n/multimodal-learning and Vilio: states, scores, losses, gradients."""

import os
from dataclasses import replace
from functools import partial

import pytest
import torch
from tests.parity.heads import HEADS
from torch.nn import functional as F

from diptych.convert import fill_model
from diptych.convert.rules import load_into, restore
from diptych.convert.uniter import UNITER, UNITER_PRETRAIN
from diptych.models import Uniter
from diptych.nn import ClassifierHead, PairAttention
from diptych.tasks import Answer, Choose, Classify, Ground, Match, Pretrain
from diptych.tasks.objectives import (
    Alignment,
    MaskedRegions,
    MaskedText,
    Matching,
    RegionFeatures,
    RegionProbabilities,
    Sample,
)
from diptych.types import Inputs, PaddedRegions, PaddedText

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
    heads = fill_model(model, golden.weights, where=golden.name)
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


def gradients(model, prefix):
    """Gradients under the names of the original."""
    found = {name: one.grad for name, one in model.named_parameters() if one.grad is not None}
    return {prefix + name: one for name, one in restore(found, UNITER).items()}


HEADED = partial(ClassifierHead, layers=2)
NLVR2 = HEADS["uniter"]
PAIR_ATTENTION = {"pairs": 2, "readout": PairAttention}
EXTRA = [
    ("uniter-nlvr2-pair", NLVR2["nlvr2_pair"], {"pairs": 2}),
    ("uniter-nlvr2-triplet", NLVR2["nlvr2_triplet"], {}),
    ("vilio-uniter-hm", HEADS["vilio"]["hateful_memes"], {"head": HEADED}),
]


@pytest.mark.parametrize(
    ("name", "benchmark"), [("uniter-vqa", "vqa"), *([("uniter-ve", "snli_ve")] if EVERY else [])]
)
def test_answers_equal_the_original(golden, perform, name, benchmark):
    golden = golden(name)
    model, heads, prefix = build(golden)
    targets = golden.inputs["targets"]
    task = Answer(model, answers=names(targets.shape[1]), head=HEADED)
    table = HEADS["uniter"][benchmark]
    done = perform(model, task, unpack(golden.inputs), targets, weights=heads, table=table)
    check(golden, model, prefix, done)


def names(count):
    return [str(number) for number in range(count)]


def check(golden, model, prefix, done, *, scores="scores"):
    golden.check(scores, done.logits)
    golden.check("loss", done.loss)
    golden.check_gradients(gradients(model, prefix) | done.gradients)


@pytest.mark.parametrize(
    ("name", "table", "options"),
    [
        ("uniter-nlvr2-paired-attn", NLVR2["nlvr2_paired_attention"], PAIR_ATTENTION),
        *(EXTRA if EVERY else []),
        ("uniter-nav13n-hm", HEADS["nav13n"]["hateful_memes"], {"loss": "softmax_ce"}),
    ],
)
def test_classification_equals_the_original(golden, perform, name, table, options):
    golden = golden(name)
    inputs, quirks = unpack(golden.inputs), {}
    if "num_bbs" in golden.inputs:  # nav13n attends padded regions: mask them truly, then ask for its quirk
        real = torch.arange(inputs.regions.mask.shape[1]) < golden.inputs["num_bbs"][:, None]
        object.__setattr__(inputs.regions, "mask", real)
        quirks = {"attend_padding": True}
    model, heads, prefix = build(golden, **quirks)
    if "readout" in options:
        readout = partial(PairAttention, heads=golden.config["num_attention_heads"])
        options = options | {"readout": readout}
    task = Classify(model, labels=("no", "yes"), **options)
    targets = golden.inputs["targets" if "targets" in golden.inputs else "labels"]
    pairs = options.get("pairs", 1)
    scale = len(targets) if name == "vilio-uniter-hm" else 1  # Vilio multiplies the mean by the batch
    done = perform(model, task, inputs, targets, weights=heads, table=table, pairs=pairs, scale=scale)
    check(golden, model, prefix, done, scores="scores" if "scores" in golden.outputs else "logits")
    if "sequence_output" in golden.outputs:
        states, rows = compact(joint(done.encoding), golden)
        golden.check("sequence_output", states, rows)
    if "pooled" in golden.outputs:
        golden.check("pooled", done.encoding.pooled)
    if "preds" in golden.outputs:
        golden.check("preds", done.logits.softmax(-1))
        golden.check("loss_on_logits", F.cross_entropy(done.logits, targets))
    if "score" in golden.outputs:
        golden.check("score", done.logits.log_softmax(-1)[:, 1])


def test_choices_equal_the_original(golden, perform):
    golden = golden("uniter-vcr")
    model, heads, prefix = build(golden)
    task = Choose(model, head=partial(HEADED, activation="relu"), loss="two_way")
    pairs = golden.config["num_choices"]
    targets = golden.inputs["targets"].reshape(-1, pairs)
    assert (targets.sum(1) == 1).all()
    table = HEADS["uniter"]["vcr"]
    inputs = unpack(golden.inputs)
    done = perform(model, task, inputs, targets.argmax(1), weights=heads, table=table, pairs=pairs)
    golden.check("scores", done.logits[..., 1].reshape(-1, 1))
    golden.check("loss", done.loss)
    golden.check_gradients(gradients(model, prefix) | done.gradients)


def test_retrieval_equals_the_original(golden, perform):
    golden = golden("uniter-itm-retrieval")
    model, heads, prefix = build(golden)
    task = Match(model, loss="margin", margin=golden.config["margin"])
    pairs = int(golden.inputs["sample_size"])
    inputs, table = unpack(golden.inputs), HEADS["uniter"]["retrieval"]
    targets = torch.zeros(len(inputs) // pairs, dtype=torch.int64)  # the first row of a group is right
    done = perform(model, task, inputs, targets, weights=heads, table=table, pairs=pairs)
    golden.check("scores", done.logits.reshape(-1, 1))
    golden.check("loss", done.loss)
    golden.check_gradients(gradients(model, prefix) | done.gradients)


def test_grounding_equals_the_original(golden, perform):
    golden = golden("uniter-re")
    assert golden.config["loss_type"] == "cls"
    model, heads, prefix = build(golden)
    layers = golden.config["mlp"]
    task = Ground(model, head=partial(ClassifierHead, layers=layers, width=1), loss="ce")
    inputs = unpack(golden.inputs)
    assert torch.equal(inputs.regions.mask, ~golden.inputs["obj_masks"])
    right = golden.inputs["targets"].squeeze(-1)  # the original is told the region, ours the box
    boxes = inputs.regions.boxes[torch.arange(len(right)), right]
    table = HEADS["uniter"]["refcoco_plus" if layers == 2 else "refcoco"]
    done = perform(model, task, inputs, boxes, weights=heads, table=table)
    check(golden, model, prefix, done)


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
        inputs=inputs,
        regions=replace(regions, features=features, probabilities=probabilities),
        selected=hidden,
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
    states = task.objectives["classes"].transform(model(sample.inputs).regions[sample.selected])
    golden.part("mrc").check("scores", task.objectives["classes"].predict["classes"].decoder(states))
    losses = task.losses(model, sample, ["classes"])
    learn(golden.part(part), model, task, prefix, task.total(losses))


def test_matching_and_alignment_equal_the_original(golden):
    golden = golden("uniter-pretrain")
    model, task, prefix = pretraining(golden)
    both, golden = golden.part("itm_ot"), golden.part("itm")
    inputs, targets = unpack(golden.inputs), golden.inputs["targets"]
    sample = Sample(inputs=inputs, mismatch=1 - targets)
    encoding = model(inputs)
    golden.check("scores", task.objectives["matching"].head(encoding.pooled))
    text, regions = encoding.text, encoding.regions
    distance = task.objectives["alignment"].distance(text, inputs.text.mask, regions, inputs.regions.mask)
    both.check("distance", distance)
    learn(golden, model, task, prefix, task.total(task.losses(model, sample, ["matching"])))
    losses = task.losses(model, sample, ["matching", "alignment"])
    both.check("ot_loss", losses["alignment"])
    learn(both, model, task, prefix, task.total(losses))
