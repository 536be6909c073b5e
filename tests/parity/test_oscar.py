"""Oscar and Oscar+ equal microsoft/Oscar and Vilio: states, scores, losses, gradients."""

import os
from functools import partial

import pytest
import torch
from tests.parity.heads import HEADS

from diptych.convert import fill_model
from diptych.convert.oscar import OSCAR, OSCAR_PRETRAIN
from diptych.convert.rules import load_into, restore
from diptych.models import Oscar
from diptych.nn import ClassifierHead
from diptych.tasks import Answer, Classify, Match, Pretrain
from diptych.tasks.objectives import MaskedText, Matching, Sample, TagContrast
from diptych.types import Inputs, PaddedRegions, PaddedText

EVERY = "DIPTYCH_GOLDENS" in os.environ  # a folder of all goldens, not the repository's selection


def build(golden):
    """The model with the weights of the golden, those of its heads, and the prefix of its names."""
    config = golden.config
    vilio = "img_pos_feat" in golden.inputs or "matched_label" in golden.inputs
    numbers = 4 if vilio else 6
    model = Oscar(
        vocab_size=config["vocab_size"],
        feature_dim=config["img_feature_dim"] - numbers,
        dim=config["hidden_size"],
        heads=config["num_attention_heads"],
        hidden=config["intermediate_size"],
        layers=config["num_hidden_layers"],
        max_positions=config["max_position_embeddings"],
        segments=config["type_vocab_size"],
        box_numbers=numbers,
        region_norm=bool(config.get("use_img_layernorm")),
        eps=config["layer_norm_eps"],
    )
    heads = fill_model(model, golden.weights, where=golden.name)
    anchor = "embeddings.word_embeddings.weight"
    prefix = next(name for name in golden.weights if name.endswith(anchor)).removesuffix(anchor)
    return model.eval(), heads, prefix


def unpack(inputs):
    """The inputs of either original; the rows of a pair come one after the other."""
    ids, mask = inputs["input_ids"].flatten(0, -2), inputs["attention_mask"].flatten(0, -2).bool()
    segments = inputs.get("token_type_ids", inputs.get("segment_ids")).flatten(0, -2)
    if "img_pos_feat" in inputs:  # Vilio
        features, boxes = inputs["img_feat"], inputs["img_pos_feat"]
    else:  # the last two of six numbers are made of the first four, which are all that Vilio has
        both, numbers = inputs["img_feats"].flatten(0, -3), 4 if "matched_label" in inputs else 6
        features, boxes = both[..., :-numbers], both[..., both.shape[-1] - numbers :][..., :4]
    text_mask, region_mask = mask.split([ids.shape[1], boxes.shape[1]], 1)
    regions = PaddedRegions(
        features=features,
        boxes=boxes,
        mask=region_mask,
        image_index=torch.zeros_like(region_mask, dtype=torch.int64),
        sizes=torch.ones(len(ids), 2),
    )
    return Inputs(text=PaddedText(ids=ids, mask=text_mask, segments=segments), regions=regions)


def head_of(golden):
    """The head that the configuration of an Oscar golden describes, as (width, classes) to a module."""
    config = golden.config
    if config.get("classifier") != "mlp":
        return ClassifierHead
    # Oscar's scale is a multiple of one row's width, ours of the pair's.
    return partial(
        ClassifierHead,
        layers=2,
        width=config["cls_hidden_scale"] / config["num_choice"],
        activation="relu",
        norm=bool(config.get("use_img_layernorm")),
        eps=config["img_layer_norm_eps"],
    )


def gradients(model, prefix):
    """Gradients under the names of the original."""
    found = {name: one.grad for name, one in model.named_parameters() if one.grad is not None}
    return {prefix + name: one for name, one in restore(found, OSCAR).items()}


def check(golden, model, prefix, inputs, done):
    golden.check("logits", done.logits)
    golden.check("loss", done.loss)
    golden.check_gradients(gradients(model, prefix) | done.gradients)
    check_states(golden, inputs, done.encoding)


def check_states(golden, inputs, encoding):
    valid = torch.cat([inputs.text.mask, inputs.regions.mask], 1)
    if "sequence_output" in golden.outputs:
        states = torch.cat([encoding.text, encoding.regions], 1)
        golden.check("sequence_output", states[valid], valid)
        golden.check("pooled", encoding.pooled)


@pytest.mark.parametrize(
    ("name", "pairs"),
    [
        ("vilio-oscar-hm", 1),
        *([("oscar-nlvr2-pair", 2), ("oscarplus-nlvr2-pair", 2)] if EVERY else []),
    ],
)
def test_classification_equals_the_original(golden, perform, name, pairs):
    golden = golden(name)
    vilio = name.startswith("vilio")
    model, heads, prefix = build(golden)
    inputs, targets = unpack(golden.inputs), golden.inputs["labels"]
    head = partial(ClassifierHead, layers=2) if vilio else head_of(golden)
    task = Classify(model, labels=("no", "yes"), pairs=pairs, head=head)
    table = HEADS["vilio"]["hateful_memes"] if vilio else HEADS["oscar"]["nlvr2_pair"]
    scale = len(targets) if vilio else 1  # Vilio multiplies the mean by the batch
    done = perform(model, task, inputs, targets, weights=heads, table=table, pairs=pairs, scale=scale)
    check(golden, model, prefix, inputs, done)
    if "score" in golden.outputs:
        golden.check("score", done.logits.log_softmax(-1)[:, 1])


def test_retrieval_equals_the_original(golden, perform):
    golden = golden("oscar-retrieval")
    model, heads, prefix = build(golden)
    inputs, targets = unpack(golden.inputs), golden.inputs["labels"]
    task = Match(model, matches=1, head=head_of(golden))  # the fine-tuned head; that of pre-training has 0
    done = perform(model, task, inputs, targets, weights=heads, table=HEADS["oscar"]["retrieval"])
    expected = golden.outputs["logits"].softmax(-1)[:, 1:]  # by which the original ranks
    torch.testing.assert_close(done.logits.sigmoid(), expected, atol=2e-5, rtol=1e-4)
    golden.check("logits", task.head(done.encoding.pooled))
    golden.check("loss", done.loss)
    golden.check_gradients(gradients(model, prefix) | done.gradients)


def test_answers_equal_the_original(golden, perform):
    golden = golden("oscar-vqa")
    assert golden.config["loss_type"] == "bce"
    model, heads, prefix = build(golden)
    inputs, targets = unpack(golden.inputs), golden.inputs["labels"]
    answers = [str(number) for number in range(targets.shape[1])]
    task = Answer(model, answers=answers, head=head_of(golden))
    done = perform(model, task, inputs, targets, weights=heads, table=HEADS["oscar"]["vqa"])
    check(golden, model, prefix, inputs, done)


if EVERY:

    @pytest.mark.parametrize("name", ["oscar-pretrain", "oscarplus-pretrain", "vilio-oscar-pretrain"])
    def test_pretraining_equals_the_original(golden, name):
        golden = golden(name)
        model, heads, prefix = build(golden)
        inputs, given = unpack(golden.inputs), golden.inputs
        vilio = "matched_label" in given
        # Vilio fine-tunes Oscar's head with the labels turned around: 1 is a match there.
        matching = partial(Matching if vilio else TagContrast, matches=int(vilio))
        if not vilio:
            matching = partial(matching, classes=len(heads["cls.seq_relationship.bias"]))
        task = Pretrain(model, objectives={"matching": matching, "words": MaskedText})
        load_into(task, heads, OSCAR_PRETRAIN, where=name)
        width, words = inputs.text.mask.shape[1], given["masked_lm_labels"]
        assert not (words[:, width:] >= 0).any()
        broken = 1 - given["matched_label"] if vilio else given["next_sentence_label"]
        sample = Sample(inputs=inputs, words=words[:, :width], mismatch=broken)
        losses = task.losses(model, sample, ["matching", "words"])
        loss = task.total(losses)
        loss.backward()
        encoding, parts = model(inputs), task.objectives
        states = torch.cat([encoding.text, encoding.regions], 1)
        valid = torch.cat([inputs.text.mask, inputs.regions.mask], 1)
        scores = parts["words"].head(states, model.word_embedding().weight)
        golden.check("prediction_scores", scores[valid], valid)
        golden.check("seq_relationship_score", parts["matching"].head(encoding.pooled))
        golden.check("loss_mlm", losses["words"])
        golden.check("loss_matched" if vilio else "loss_contrastive", losses["matching"])
        golden.check("loss", loss)
        found = {key: one.grad for key, one in task.named_parameters() if one.grad is not None}
        golden.check_gradients(gradients(model, prefix) | restore(found, OSCAR_PRETRAIN))
        check_states(golden, inputs, encoding)
