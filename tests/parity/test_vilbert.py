"""ViLBERT equals facebookresearch/vilbert-multi-task, shengyuzhang/DeVLBert and Vilio's D."""

import json
import os
from functools import partial

import pytest
import torch
from torch.nn import functional as F

from diptych.convert import HEADS, MATCHES, load_head
from diptych.convert.rules import restore
from diptych.convert.vilbert import VILBERT, fill_vilbert
from diptych.models import Vilbert, devlbert_base, vilbert_base
from diptych.nn import ClassifierHead, Sizes, WeightNormHead
from diptych.tasks import Answer, Classify, Ground, Match
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


def transform(states, weights, name):
    """Linear, GELU, LayerNorm: what every pre-training head begins with."""
    own = below(weights, f"{name}.transform")
    x = F.gelu(F.linear(states, own["dense.weight"], own["dense.bias"]))
    return F.layer_norm(x, x.shape[-1:], own["LayerNorm.weight"], own["LayerNorm.bias"], 1e-12)


def words(states, weights, model, name="cls.predictions"):
    return F.linear(transform(states, weights, name), model.word_embedding().weight, weights[f"{name}.bias"])


def classes(states, weights, name="cls.imagePredictions"):
    return linear(weights, f"{name}.decoder")(transform(states, weights, name))


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
    golden.check(f"{prefix}linguisic_prediction", words(text, heads, model))
    golden.check(f"{prefix}vision_prediction", classes(vision, heads))
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


if EVERY:

    @pytest.mark.parametrize("name", ["vilbert-pretrain", "devlbert-pretrain"])
    def test_pretraining_equals_the_original(golden, name):
        golden = golden(name)
        model, heads = build(golden)
        for key, weight in heads.items():
            weight.requires_grad_(key != "cls.predictions.decoder.weight")
        encoding, text, vision, *pooled = run(model, unpack(golden.inputs))
        inputs, labels = golden.inputs, golden.inputs["masked_lm_labels"].flatten()
        got = {
            "prediction_scores_t": words(text, heads, model),
            "prediction_scores_v": classes(vision, heads),
            "seq_relationship_score": linear(heads, "cls.bi_seq_relationship")(encoding.pooled),
        }
        losses = {
            "loss_mlm": F.cross_entropy(got["prediction_scores_t"].flatten(0, 1), labels, ignore_index=-1),
            "loss_region": region_loss(got["prediction_scores_v"][:, 1:], inputs["image_label"], inputs),
            "loss_align": F.cross_entropy(got["seq_relationship_score"], inputs["next_sentence_label"]),
        }
        if "dic_v" in inputs:
            check_states(golden, "", text, vision, *pooled)
            got, interventions = intervention_losses(golden, model, heads, text, vision)
            losses |= interventions
        losses["loss_total"] = sum(losses.values())
        losses["loss_total"].backward()
        for key, value in (got | losses).items():
            golden.check(key, value)
        check_gradients(golden, gradients(golden, model))


def region_loss(scores, labels, inputs):
    """KL divergence to the detector's classes, summed over labelled regions and divided by their number."""
    divergence = F.kl_div(scores.log_softmax(-1), inputs["image_target"], reduction="none").sum(-1)
    return divergence[labels == 1].sum() / (labels == 1).sum()


def intervention_losses(golden, model, heads, text, vision):
    """DeVLBERT's four: within each stream, and across."""
    inputs, regions, losses = golden.inputs, vision[:, 1:], {}
    seen, known = (inputs["dic_v"], inputs["prior_v"]), (inputs["dic_t"], inputs["prior_t"])
    states = {
        "v": intervene(regions, *seen, heads, "causal_v"),
        "v2t": intervene(regions, *known, heads, "causal_v2t", projection="v2t"),
        "t": intervene(text, *known, heads, "causal_t"),
        "t2v": intervene(text, *seen, heads, "causal_t2v", projection="t2v"),
    }
    for kind in ("v", "v2t"):
        scores = classes(states[kind], heads, f"cls.causal_predictor_{kind}")
        losses[f"loss_causal_{kind}"] = region_loss(scores, inputs["causal_label_v"], inputs)
    for kind in ("t", "t2v"):
        scores, labels = (
            words(states[kind], heads, model, f"cls.causal_predictor_{kind}"),
            inputs["causal_label_t"],
        )
        losses[f"loss_causal_{kind}"] = F.cross_entropy(
            scores.flatten(0, 1), labels.flatten(), ignore_index=-1
        )
    return {"causal_v_out": states["v"], "causal_t2v_out": states["t2v"]}, losses


def intervene(states, dictionary, prior, weights, name, *, projection=None):
    """What a confounder contributes, over a dictionary and its prior."""
    y, z = linear(weights, f"{name}.Wy")(states), linear(weights, f"{name}.Wz")(dictionary)
    attention = (y @ z.T / y.shape[-1] ** 0.5).softmax(-1)
    values = dictionary if projection is None else linear(weights, f"{name}.{projection}")(dictionary)
    return (attention * prior) @ values
