"""ViLBERT equals facebookresearch/vilbert-multi-task, shengyuzhang/DeVLBert and Vilio's D."""

import json
import os
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch.nn import functional as F

from diptych.convert.rules import load_into, rename, restore
from diptych.convert.vilbert import DEVLBERT_PRETRAIN, VILBERT, VILBERT_PRETRAIN, fill_vilbert
from diptych.models import Vilbert, devlbert_base, vilbert_base
from diptych.nn import ClassifierHead, Sizes, WeightNormHead
from diptych.tasks import Pretrain
from diptych.tasks.classify import Classify
from diptych.tasks.objectives import (
    Confounders,
    Interventions,
    MaskedRegions,
    MaskedText,
    Matching,
    RegionProbabilities,
    Sample,
)
from diptych.types import Batch, Inputs, PaddedRegions, PaddedText

EVERY = "DIPTYCH_GOLDENS" in os.environ  # a folder of all goldens, not the repository's selection
TASKS = "bert.embeddings.task_embeddings.weight"
WEIGHT_NORM = [
    rename("main.{}.weight_g", "layers.{}.scale"),
    rename("main.{}.weight_v", "layers.{}.direction"),
    rename("main.{}.bias", "layers.{}.bias"),
]


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
    return model.eval(), fill_vilbert(model, golden.weights, where=golden.name)


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


def classifier(dim, weights, name, *, width=2):
    own = below(weights, name)
    head = ClassifierHead(dim, len(own["logit_fc.3.bias"]), layers=2, width=width)
    load_into(head, own, [rename("logit_fc", "layers")], where=name)
    return head


def weight_normed(dim, classes, weights):
    head = WeightNormHead(dim, classes).eval()
    load_into(head, below(weights, "vil_prediction"), WEIGHT_NORM, where="vil_prediction")
    return head


def grounding(vision, golden, weights):
    """Scores of regions; the original pushes padded ones down by 10000."""
    padded = 1 - golden.inputs["image_attention_mask"][..., None].float()
    return linear(weights, "vision_logit")(vision) - 10000 * padded


def gradients(golden, model, head=None, name="", table=()):
    """Gradients under the names of the golden: of the model, of a head, of single weights."""
    found = {key: one.grad for key, one in model.named_parameters() if one.grad is not None}
    result = {f"bert.{key}": one for key, one in restore(found, VILBERT).items()}
    if head is not None:
        own = {key: one.grad for key, one in head.named_parameters() if one.grad is not None}
        result |= {f"{name}.{key}": one for key, one in restore(own, table).items()}
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
    heads = fill_vilbert(model, weights, where=name)
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
def test_answers_equal_the_original(golden, name, prefix):
    golden = golden(name)
    model, heads = build(golden, tasks=len(golden.weights.get(TASKS, ())))
    encoding, *states = run(model, unpack(golden.inputs))
    check_states(golden, prefix, *states)
    targets = golden.inputs["vqa_target"]
    if "vil_prediction.main.0.weight_g" in heads:
        head, table = weight_normed(model.dim, targets.shape[1], heads), WEIGHT_NORM
    else:
        head, table = classifier(model.dim, heads, "vil_prediction"), [rename("logit_fc", "layers")]
    scores = head(encoding.pooled)
    loss = F.binary_cross_entropy_with_logits(scores, targets) * targets.shape[1]
    loss.backward()
    golden.check(f"{prefix}vil_prediction", scores)
    golden.check(f"{prefix}loss_vqa", loss)
    check_heads(golden, prefix, model, heads, encoding.pooled, *states[:2])
    check_gradients(golden, gradients(golden, model, head, "vil_prediction", table), prefix)


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
        parts.append((encoding.pooled, *states))
    pooled, *states = (torch.cat(part) for part in zip(*parts, strict=True))
    check_states(golden, "task/", *states)
    golden.check("task/vil_prediction", classifier(model.dim, heads, "vil_prediction")(pooled))
    check_heads(golden, "task/", model, heads, pooled, *states[:2])


def check_heads(golden, prefix, model, heads, pooled, text, vision):
    golden.check(f"{prefix}vil_logit", linear(heads, "vil_logit")(pooled))
    golden.check(f"{prefix}vision_logit", grounding(vision, golden, heads))
    golden.check(f"{prefix}linguisic_logit", linear(heads, "linguisic_logit")(text))
    asked = pretraining(golden, model, {key: w for key, w in heads.items() if key.startswith("cls.")})[0]
    asked = asked.objectives
    golden.check(f"{prefix}linguisic_prediction", asked["words"].head(text, model.word_embedding().weight))
    golden.check(f"{prefix}vision_prediction", region_classes(asked["regions"], vision))
    if f"{prefix}vil_tri_prediction" not in golden.outputs:  # DeVLBERT's binary head is that of matching
        golden.check(f"{prefix}vil_binary_prediction", asked["matching"].head(pooled))
        return
    pairs = pooled.reshape(len(pooled) // 2, -1)
    binary = classifier(pairs.shape[1], heads, "vil_binary_prediction", width=1)
    golden.check(f"{prefix}vil_binary_prediction", binary(pairs))
    golden.check(f"{prefix}vil_prediction_gqa", classifier(model.dim, heads, "vil_prediction_gqa")(pooled))
    golden.check(f"{prefix}vil_tri_prediction", linear(heads, "vil_tri_prediction")(pooled))


def test_vilio_equals_the_original(golden):
    golden = golden("vilio-d")
    model, heads = build(golden, whole_image=False, box_area=False, attend_padding=True)
    inputs, targets = unpack(golden.inputs, first=0), golden.inputs["label"]
    encoding, *states = run(model, inputs)
    check_states(golden, "", *states)
    task = Classify(model, labels=("no", "yes"), head=WeightNormHead).eval()
    load_into(task.head, below(heads, "vil_prediction"), WEIGHT_NORM, where="vil_prediction")
    batch = Batch(ids=tuple(map(str, range(len(targets)))), inputs=inputs, targets=targets)
    logits = task.score(encoding, batch)
    loss = task.loss(logits, batch) * len(targets)  # Vilio multiplies the mean by the size of the batch
    loss.backward()
    golden.check("logits", logits)
    golden.check("log_probs", logits.log_softmax(-1))
    golden.check("score", logits.log_softmax(-1)[:, 1])
    golden.check("loss", loss)
    check_gradients(golden, gradients(golden, model, task.head, "vil_prediction", WEIGHT_NORM))


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
            wanted=given["image_label"] == 1,
            broken=given["next_sentence_label"],
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
