"""ViLBERT equals facebookresearch/vilbert-multi-task, shengyuzhang/DeVLBert and Vilio's D."""

import json
import os
from dataclasses import replace
from functools import partial

import pytest
import torch
from tests.parity.heads import HEADS, MATCHES, load_head
from torch.nn import functional as F

from diptych.convert import fill_model
from diptych.convert.rules import load_into, restore
from diptych.convert.vilbert import DEVLBERT_PRETRAIN, VILBERT, VILBERT_PRETRAIN
from diptych.models import Vilbert, devlbert_base, vilbert_base
from diptych.nn import ClassifierHead, Sizes, WeightNormHead
from diptych.tasks import Answer, Classify, Ground, Match, Pretrain
from diptych.tasks.objectives import (
    Confounders,
    Interventions,
    MaskedRegions,
    MaskedText,
    Matching,
    RegionProbabilities,
    Sample,
)
from diptych.types import Batch, Encoding, Inputs, PaddedRegions, PaddedText

EVERY = "DIPTYCH_GOLDENS" in os.environ  # a folder of all goldens, not the repository's selection
TASKS = "bert.embeddings.task_embeddings.weight"


def build(golden, **options):
    """The model with the weights of the golden, and those of its heads."""
    config = golden.config
    meetings = zip(config["t_biattention_id"], config["v_biattention_id"], strict=True)
    model = Vilbert(
        vocab_size=config["vocab_size"],
        feature_dim=config["v_feature_size"],
        text=Sizes(
            dim=config["hidden_size"],
            heads=config["num_attention_heads"],
            hidden=config["intermediate_size"],
            layers=config["num_hidden_layers"],
        ),
        vision=Sizes(
            dim=config["v_hidden_size"],
            heads=config["v_num_attention_heads"],
            hidden=config["v_intermediate_size"],
            layers=config["v_num_hidden_layers"],
        ),
        bridge=Sizes(dim=config["bi_hidden_size"], heads=config["bi_num_attention_heads"]),
        meetings=list(meetings),
        max_positions=config["max_position_embeddings"],
        segments=config["type_vocab_size"],
        **options,
    )
    return model.eval(), fill_model(model, golden.weights, where=golden.name)


def unpack(inputs, *, first=1):
    """What a model of ours is given: the original's rows from region `first` on."""
    ids, features, boxes = inputs["input_ids"], inputs["image_feat"], inputs["image_loc"]
    mask = inputs.get("image_attention_mask", torch.ones(features.shape[:2])).bool()
    return Inputs(
        text=PaddedText(
            ids=ids,
            mask=inputs["attention_mask"].bool(),
            segments=inputs.get("token_type_ids", torch.zeros_like(ids)),
        ),
        regions=PaddedRegions(
            features=features[:, first:],
            boxes=boxes[:, first:, :4],
            mask=mask[:, first:],
            image_index=torch.zeros(mask[:, first:].shape, dtype=torch.int64),
            sizes=torch.ones(len(ids), 2),
        ),
    )


def run(model, inputs):
    """The encoding, and the states of both streams with whatever the model has added."""
    streams, pooled = [], []
    hooks = [
        model.encoder.register_forward_hook(lambda module, given, result: streams.extend(result)),
        model.pool.text.register_forward_hook(lambda module, given, result: pooled.append(result.relu())),
        model.pool.vision.register_forward_hook(lambda module, given, result: pooled.append(result.relu())),
    ]
    encoding = model(inputs)
    for hook in hooks:
        hook.remove()
    return encoding, *streams, *pooled


def check_states(golden, prefix, text, vision, pooled_text, pooled_vision):
    """Padded positions included: the mask of the original is on keys only, as is ours."""
    golden.check(f"{prefix}sequence_t", text)
    golden.check(f"{prefix}sequence_v", vision)
    golden.check(f"{prefix}pooled_t", pooled_text)
    golden.check(f"{prefix}pooled_v", pooled_vision)


def below(weights, name):
    return {key.removeprefix(f"{name}."): w for key, w in weights.items() if key.startswith(f"{name}.")}


def linear(weights, name):
    own = below(weights, name)
    return lambda x: F.linear(x, own["weight"], own["bias"])


def gradients(golden, model):
    """Gradients under the names of the golden: of the model, of single weights."""
    found = {key: one.grad for key, one in model.named_parameters() if one.grad is not None}
    result = {f"bert.{key}": one for key, one in restore(found, VILBERT).items()}
    return result | {key: one.grad for key, one in golden.weights.items() if one.grad is not None}


PUBLISHED = [
    ("manifest-vilbert-multitask", vilbert_base, {"tasks": 20}),
    ("manifest-vilio-d", devlbert_base, {"box_area": False}),
]
if EVERY:
    PUBLISHED += [
        ("manifest-vilbert-pretrain", vilbert_base, {}),
        ("manifest-devlbert-pretrain", devlbert_base, {}),
    ]


@pytest.mark.parametrize(("name", "builder", "options"), PUBLISHED)
def test_full_size_takes_the_published_names(goldens, name, builder, options):
    shapes = json.loads((goldens / f"{name}.json").read_text())["tensors"]
    with torch.device("meta"):
        model = builder(**options)
        weights = {key: torch.empty(shape) for key, shape in shapes.items()}
    heads = fill_model(model, weights, where=name)
    assert heads.keys() == {key for key in shapes if not key.startswith("bert.")}


def check_gradients(golden, ours, prefix=""):
    """As `Golden.check_gradients`, for the names `grad:...` of this family."""
    start = f"{prefix}grad:"
    outputs = {
        f"grad.{key.removeprefix(start)}": one for key, one in golden.outputs.items() if key.startswith(start)
    }
    type(golden)(golden.name, golden.config, {}, {}, outputs).check_gradients(ours)


@pytest.mark.parametrize(
    ("name", "prefix"), [("vilbert-multitask", "plain/"), *([("devlbert-vltasks", "")] if EVERY else [])]
)
def test_answers_equal_the_original(golden, perform, name, prefix):
    golden = golden(name)
    model, heads = build(golden, tasks=len(golden.weights.get(TASKS, ())))
    inputs, targets = unpack(golden.inputs), golden.inputs["vqa_target"]
    encoding, *states = run(model, inputs)
    check_states(golden, prefix, *states)
    family = "vilbert" if prefix else "devlbert"
    head = partial(ClassifierHead, layers=2) if prefix else WeightNormHead
    task = Answer(model, answers=names(targets.shape[1]), head=head)
    done = perform(model, task, inputs, targets, weights=heads, table=HEADS[family]["vqa"])
    golden.check(f"{prefix}vil_prediction", done.logits)
    golden.check(f"{prefix}loss_vqa", done.loss)
    check_heads(golden, prefix, model, heads, encoding, *states[:2])
    check_gradients(golden, gradients(golden, model) | done.gradients, prefix)


def test_task_tokens_equal_the_original(golden):
    """The original takes a task for each row; a model of ours has one."""
    golden = golden("vilbert-multitask")
    tasks = len(golden.weights[TASKS])
    parts = []
    for row, task in enumerate(golden.inputs["task_ids"].flatten().tolist()):
        model, heads = build(golden, tasks=tasks, task=task)
        one = unpack(golden.inputs).map(lambda tensor, row=row: tensor[row : row + 1])
        encoding, *states = run(model, one)
        given = one.text.mask.shape[1]
        assert encoding.text.shape[1] == given
        torch.testing.assert_close(encoding.text, states[0][:, [0, *range(2, given + 1)]])
        parts.append((encoding.pooled, encoding.regions, *states))
    pooled, regions, *states = (torch.cat(part) for part in zip(*parts, strict=True))
    check_states(golden, "task/", *states)
    check_heads(golden, "task/", model, heads, Encoding(pooled=pooled, regions=regions), *states[:2])


def names(count):
    return [str(number) for number in range(count)]


def check_heads(golden, prefix, model, heads, encoding, text, vision):
    """The scores of all forms of decision that the golden has, and of what pre-training predicts."""
    inputs = unpack(golden.inputs)
    ids = tuple(names(len(encoding.pooled)))
    tables = HEADS["vilbert"]

    def score(task, benchmark, pairs=1):
        load_head(task, heads, tables[benchmark], where=benchmark)
        return task.eval().score(encoding, Batch(ids=ids[::pairs], inputs=inputs, pairs=pairs))

    golden.check(f"{prefix}vil_logit", score(Match(model), "retrieval"))
    mask = inputs.regions.mask  # the original also scores its whole image, which ours keeps inside
    grounded = score(Ground(model), "refcoco")
    expected = golden.outputs[f"{prefix}vision_logit"][:, 1:, 0]
    torch.testing.assert_close(grounded[mask], expected[mask], atol=2e-5, rtol=1e-4)
    golden.check(f"{prefix}linguisic_logit", linear(heads, "linguisic_logit")(text))
    asked = pretraining(golden, model, {key: w for key, w in heads.items() if key.startswith("cls.")})[0]
    asked = asked.objectives
    golden.check(f"{prefix}linguisic_prediction", asked["words"].head(text, model.word_embedding().weight))
    golden.check(f"{prefix}vision_prediction", region_classes(asked["regions"], vision))
    binary = golden.outputs[f"{prefix}vil_binary_prediction"]
    if f"{prefix}vil_tri_prediction" not in golden.outputs:  # DeVLBERT's binary head is that of matching
        match = score(Match(model, matches=MATCHES["devlbert"]), "match")
        torch.testing.assert_close(match[:, 0], binary[:, 0] - binary[:, 1], atol=2e-5, rtol=1e-4)
        return
    two = Classify(model, labels=("no", "yes"), pairs=2, head=partial(ClassifierHead, layers=2, width=1))
    golden.check(f"{prefix}vil_binary_prediction", score(two, "nlvr2", 2))
    three = Classify(model, labels=("no", "maybe", "yes"))
    golden.check(f"{prefix}vil_tri_prediction", score(three, "snli_ve"))
    for name, benchmark in (("vil_prediction", "vqa"), ("vil_prediction_gqa", "gqa")):
        answers = names(golden.outputs[f"{prefix}{name}"].shape[1])
        task = Answer(model, answers=answers, head=partial(ClassifierHead, layers=2))
        golden.check(f"{prefix}{name}", score(task, benchmark))


def test_vilio_equals_the_original(golden, perform):
    golden = golden("vilio-d")
    model, heads = build(golden, whole_image=False, box_area=False, attend_padding=True)
    inputs, targets = unpack(golden.inputs, first=0), golden.inputs["label"]
    _, *states = run(model, inputs)
    check_states(golden, "", *states)
    task = Classify(model, labels=("no", "yes"), head=WeightNormHead)
    table, scale = HEADS["vilio"]["hateful_memes_d"], len(targets)  # Vilio multiplies the mean by the batch
    done = perform(model, task, inputs, targets, weights=heads, table=table, scale=scale)
    golden.check("logits", done.logits)
    golden.check("log_probs", done.logits.log_softmax(-1))
    golden.check("score", done.logits.log_softmax(-1)[:, 1])
    golden.check("loss", done.loss)
    check_gradients(golden, gradients(golden, model) | done.gradients)


def region_classes(objective, vision):
    return objective.predict["classes"].decoder(objective.transform(vision))


def pretraining(golden, model, heads):
    """The task of either original's pre-training, filled, and the table from its names."""
    count = golden.config["v_target_size"]
    predict = {"classes": partial(RegionProbabilities, classes=count)}
    objectives = {
        "matching": partial(Matching, matches=0),
        "words": MaskedText,
        "regions": partial(MaskedRegions, predict=predict),
    }
    if causal := "dic_v" in golden.inputs:
        seen, known = (
            Confounders(vectors=golden.inputs[f"dic_{side}"], prior=golden.inputs[f"prior_{side}"])
            for side in "vt"
        )
        objectives["causes"] = partial(Interventions, seen=seen, known=known, nouns=())
    task = Pretrain(model, objectives=objectives)
    table = DEVLBERT_PRETRAIN if causal else VILBERT_PRETRAIN
    load_into(task, heads, table, where=golden.name)
    return task, table


if EVERY:

    @pytest.mark.parametrize("name", ["vilbert-pretrain", "devlbert-pretrain"])
    def test_pretraining_equals_the_original(golden, name):
        golden = golden(name)
        model, heads = build(golden)
        task, table = pretraining(golden, model, heads)
        inputs, given, parts = unpack(golden.inputs), golden.inputs, task.objectives
        truth = replace(inputs.regions, probabilities=given["image_target"])
        sample = Sample(
            inputs=inputs,
            regions=truth,
            words=given["masked_lm_labels"],
            selected=given["image_label"] == 1,
            mismatch=given["next_sentence_label"],
        )
        found = task.losses(model, sample, ["words", "regions", "matching"])
        losses = {
            "loss_mlm": found["words"],
            "loss_region": found["regions"],
            "loss_align": found["matching"],
        }
        encoding, text, vision, *pooled = run(model, inputs)
        scores = {
            "prediction_scores_t": parts["words"].head(text, model.word_embedding().weight),
            "prediction_scores_v": region_classes(parts["regions"], vision),
            "seq_relationship_score": parts["matching"].head(encoding.pooled),
        }
        for key in scores.keys() & golden.outputs.keys():
            golden.check(key, scores[key])
        if "dic_v" in given:
            check_states(golden, "", text, vision, *pooled)
            causes = parts["causes"]
            golden.check("causal_v_out", causes.regions[0](vision[:, 1:]))
            golden.check("causal_t2v_out", causes.words[1](text))
            shown = given["causal_label_v"] == 1
            more = causes.losses(model, encoding, given["causal_label_t"], given["image_target"], shown)
            names = {"words": "t", "words_by_regions": "t2v", "regions": "v", "regions_by_words": "v2t"}
            losses |= {f"loss_causal_{names[part]}": loss for part, loss in more.items()}
        losses["loss_total"] = task.total(losses)
        losses["loss_total"].backward()
        for key, value in losses.items():
            golden.check(key, value)
        own = {key: one.grad for key, one in task.named_parameters() if one.grad is not None}
        check_gradients(golden, gradients(golden, model) | restore(own, table))
