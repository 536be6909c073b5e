"""LXMERT equals airsplay/lxmert and Hugging Face's LxmertModel: states, scores, losses, gradients."""

import json
import os
import warnings
from dataclasses import replace
from functools import partial

import pytest
import torch
from tests.parity.heads import HEADS
from torch import nn
from torch.nn import functional as F

from diptych.convert import fill_model
from diptych.convert.lxmert import LXMERT, LXMERT_PRETRAIN, transfer_answers
from diptych.convert.rules import load_into, rename, restore
from diptych.models import Lxmert
from diptych.nn import ClassifierHead
from diptych.tasks import Answer, Classify, Pretrain
from diptych.tasks.objectives import (
    Answers,
    MaskedRegions,
    MaskedText,
    Matching,
    RegionFeatures,
    RegionLabels,
    Sample,
)
from diptych.text import WordPiece, normalize_answer, write_vocabulary
from diptych.types import EVERYTHING, Inputs, PaddedRegions, PaddedText

ANCHOR = "embeddings.word_embeddings.weight"

EVERY = "DIPTYCH_GOLDENS" in os.environ  # a folder of all goldens, not the repository's selection


def build(golden, **options):
    """The model with the weights of the golden, those of its heads, and the prefix of its names."""
    config = golden.config
    model = Lxmert(
        vocab_size=config["vocab_size"],
        feature_dim=config["visual_feat_dim"],
        dim=config["hidden_size"],
        heads=config["num_attention_heads"],
        hidden=config["intermediate_size"],
        layers=config["l_layers"],
        region_layers=config["r_layers"],
        cross_layers=config["x_layers"],
        max_positions=config["max_position_embeddings"],
        segments=config["type_vocab_size"],
        eps=config["layer_norm_eps"],
        **options,
    )
    heads = fill_model(model, golden.weights, where=golden.name)
    prefix = next(name for name in golden.weights if name.endswith(ANCHOR)).removesuffix(ANCHOR)
    return model.eval(), heads, prefix


def unpack(inputs, *, leave_out=()):
    """The original's arguments as ours; what it is not told it takes to be segment 0 and real."""
    given = {name: one for name, one in inputs.items() if name not in leave_out}
    ids, features = given["input_ids"], given["visual_feats"]
    everywhere = torch.ones(features.shape[:2])
    return Inputs(
        text=PaddedText(
            ids=ids,
            mask=given.get("attention_mask", torch.ones_like(ids)).bool(),
            segments=given.get("token_type_ids", torch.zeros_like(ids)),
        ),
        regions=PaddedRegions(
            features=features,
            boxes=given["visual_boxes"],
            mask=given.get("visual_attention_mask", everywhere).bool(),
            image_index=torch.zeros(features.shape[:2], dtype=torch.int64),
            sizes=torch.ones(len(ids), 2),
        ),
    )


@pytest.fixture
def golden(golden, goldens):
    """As for every family, with all that the description says in `config` and dots for slashes in names."""

    def load(name):
        found = golden(name)
        inputs, outputs = (
            {key.replace("/", "."): one for key, one in part.items()}
            for part in (found.inputs, found.outputs)
        )
        about = json.loads((goldens / f"{name}.json").read_text())
        return replace(found, config=about | found.config, inputs=inputs, outputs=outputs)

    return load


def gradients(model, prefix, head=None, table=()):
    """Gradients under the names of the original, of the model and of a head with its table."""

    def found(module):
        return {name: one.grad for name, one in module.named_parameters() if one.grad is not None}

    result = {prefix + name: one for name, one in restore(found(model), LXMERT).items()}
    return result | (restore(found(head), table) if head is not None else {})


def check_norm(golden, *modules):
    """The norm of all gradients together, which the original clips."""
    found = [one.grad for module in modules for one in module.parameters() if one.grad is not None]
    golden.check("grad_global_norm", nn.utils.get_total_norm(found))


def check_tokens(golden, folder):
    """The ids of the original's tokenizer, which pads to its length."""
    write_vocabulary(folder / "vocab.txt", golden.config["vocab"])
    tokenizer = WordPiece(folder / "vocab.txt")
    for sentence, ids in zip(golden.config["sentences"], golden.inputs["input_ids"].tolist(), strict=True):
        got = tokenizer.encode(sentence, max_tokens=golden.config["max_seq_length"]).ids
        assert got == tuple(ids[: len(got)]), sentence
        assert not any(ids[len(got) :])


def check_unread(golden, model, prefix):
    """What the original lists as parameters without gradient is what nobody reads."""
    trained = restore({name: one for name, one in model.named_parameters() if one.grad is not None}, LXMERT)
    every = restore(dict(model.named_parameters()), LXMERT)
    unread = {prefix + name for name in every.keys() - trained.keys()}
    assert unread == set(golden.config["params_without_gradient"])


if EVERY:

    @pytest.mark.parametrize(
        ("part", "leave_out", "attend_padding"),
        [
            ("", (), False),
            ("no_visual_mask.", (), True),
            ("no_visual_mask.", ("visual_attention_mask",), False),
            ("defaults.", ("visual_attention_mask", "attention_mask", "token_type_ids"), False),
        ],
    )
    def test_masks_equal_the_original(golden, part, leave_out, attend_padding):
        golden = golden("lxmert-encoder")
        model, _, _ = build(golden, attend_padding=attend_padding)
        inputs = unpack(golden.inputs, leave_out=leave_out)
        encoding = model(inputs)
        text, regions = inputs.text.mask, inputs.regions.mask
        golden.check(f"{part}lang_sequence", encoding.text[text], text)
        golden.check(f"{part}visn_sequence", encoding.regions[regions], regions)
        golden.check(f"{part}pooled", encoding.pooled)


if EVERY:

    def test_every_layer_equals_the_original(golden):
        golden = golden("lxmert-encoder")
        model, _, prefix = build(golden)
        seen = {}

        def keep(module, name):
            module.register_forward_hook(lambda module, given, result: seen.__setitem__(name, result))

        keep(model.text, "text_embeddings")
        keep(model.regions, "visual_embeddings")
        for stack, name in ((model.text_encoder, "l_layer"), (model.region_encoder, "r_layer")):
            for number, layer in enumerate(stack.layers):
                keep(layer, f"{name}.{number}")
        for number, layer in enumerate(model.cross_layers):
            keep(layer.text, f"x_layer.{number}.lang")
            keep(layer.regions, f"x_layer.{number}.visn")
        inputs = unpack(golden.inputs)
        encoding = model(inputs)
        assert seen.keys() == {
            name for name in golden.outputs if "layer." in name or name.endswith("_embeddings")
        }
        text, regions = inputs.text.mask, inputs.regions.mask
        for name, states in seen.items():
            mask = text if name.startswith(("text", "l_")) or name.endswith("lang") else regions
            golden.check(name, states[mask], mask)
        objective = encoding.text[text].square().sum() / text.sum()
        objective = objective + encoding.regions[regions].pow(3).sum() / regions.sum() + encoding.pooled.sum()
        objective.backward()
        golden.check("objective", objective)
        golden.check_gradients(gradients(model, prefix))


@pytest.mark.parametrize("reads", [EVERYTHING, frozenset({"pooled"})])
def test_answers_equal_the_original(golden, perform, tmp_path, reads):
    golden = golden("lxmert-vqa")
    check_tokens(golden, tmp_path)
    model, heads, prefix = build(golden)
    target = golden.inputs["target"]
    count = target.shape[1]
    table, answers = HEADS["lxmert"]["vqa"], [str(number) for number in range(count)]
    head = partial(ClassifierHead, layers=2)
    bce, ce = (Answer(model, answers=answers, head=head, loss=loss) for loss in ("bce", "ce"))
    inputs = unpack(golden.inputs)
    best = F.one_hot(target.argmax(1), count).float()  # GQA's loss takes no answer at all for the first one
    done = perform(model, ce, inputs, best, weights=heads, table=table, scale=count, reads=reads)
    golden.check("gqa_mce_loss", done.loss)
    model.zero_grad()
    done = perform(model, bce, inputs, target, weights=heads, table=table, reads=reads)
    golden.check("pooled", done.encoding.pooled)
    golden.check("logits", done.logits)
    golden.check("bce_mean", done.loss / count)
    golden.check("loss", done.loss)
    golden.check_gradients(gradients(model, prefix) | done.gradients)
    check_norm(golden, model, bce)
    check_unread(golden, model, prefix)


def test_two_images_equal_the_original(golden, perform, tmp_path):
    golden = golden("lxmert-nlvr2")
    check_tokens(golden, tmp_path)
    model, heads, prefix = build(golden)
    task = Classify(model, labels=("False", "True"), pairs=2, head=partial(ClassifierHead, layers=2, width=1))
    labels, flat = golden.inputs["label"], {}
    for name, one in golden.inputs.items():
        flat[name] = one.flatten(0, 1) if name.startswith("visual") else one.repeat_interleave(2, 0)
    table = HEADS["lxmert"]["nlvr2"]
    done = perform(model, task, unpack(flat), labels, weights=heads, table=table, pairs=2)
    golden.check("pooled_flat", done.encoding.pooled)
    golden.check("logits", done.logits)
    golden.check("loss", done.loss)
    golden.check_gradients(gradients(model, prefix) | done.gradients)
    check_norm(golden, model, task)
    check_unread(golden, model, prefix)


def pretraining(model, config):
    """The task of the original's pre-training."""
    predict = {
        "labels": partial(RegionLabels, classes=config["num_objects"]),
        "attributes": partial(RegionLabels, classes=config["num_attrs"], field="attributes"),
        "features": partial(
            RegionFeatures, feature_dim=config["visual_feat_dim"], loss="smooth_l1", share=0.15
        ),
    }
    answers = [str(number) for number in range(config["num_answers"])]
    return Pretrain(
        model,
        objectives={
            "matching": Matching,
            "words": MaskedText,
            "regions": partial(MaskedRegions, predict=predict),
            "answers": partial(Answers, labels=answers),
        },
    )


def test_pretraining_equals_the_original(golden):
    golden = golden("lxmert-pretraining")
    model, weights, prefix = build(golden)
    assert torch.equal(weights["cls.predictions.decoder.weight"], model.word_embedding().weight)
    task = pretraining(model, golden.config)
    load_into(task, weights, LXMERT_PRETRAIN, where=golden.name)
    inputs, given = unpack(golden.inputs), golden.inputs
    truth = replace(
        inputs.regions,
        features=given["feat_targets"],
        labels=given["obj_labels"],
        scores=given["obj_conf"],
        attributes=given["attr_labels"],
        attribute_scores=given["attr_conf"],
    )
    sample = Sample(
        inputs=inputs,
        regions=truth,
        words=given["masked_lm_labels"],
        selected=given["feat_mask"].bool(),
        mismatch=1 - given["matched_labels"],
        answers=given["answer_labels"],
    )
    losses = task.losses(model, sample, list(task.objectives))
    total = task.total(losses)
    total.backward()
    encoding, mask, parts = model(inputs), inputs.text.mask, task.objectives
    golden.check("lang_sequence", encoding.text[mask], mask)
    golden.check("visn_sequence", encoding.regions)
    golden.check("pooled", encoding.pooled)
    golden.check("lm_logits", parts["words"].head(encoding.text, model.word_embedding().weight)[mask], mask)
    golden.check("matched_logits", parts["matching"].head(encoding.pooled))
    golden.check("answer_logits", parts["answers"].head(encoding.pooled))
    regions = parts["regions"].transform(encoding.regions)
    for name, part in (("obj", "labels"), ("attr", "attributes"), ("feat", "features")):
        golden.check(f"visual_logits.{name}", parts["regions"].predict[part].decoder(regions))
        golden.check(f"loss.{name}", losses[f"regions.{part}"])
    for name, part in (("mask_lm", "words"), ("matched", "matching"), ("qa", "answers")):
        golden.check(f"loss.{name}", losses[part])
    golden.check("loss_total", total)
    golden.check_gradients(gradients(model, prefix, task, LXMERT_PRETRAIN))
    check_norm(golden, model, task)


def test_transferred_answers_equal_the_original(golden):
    golden = golden("lxmert-answer-transfer")
    about, answers = golden.config, golden.config["label2ans"]
    for answer, expected in about["answer_normalisation_cases"]:
        assert normalize_answer(answer) == expected, answer
    assert [normalize_answer(answer) for answer in answers] == about["normalised_label2ans"]
    head = ClassifierHead(golden.config["hidden_size"], len(answers), layers=2)
    table = [rename("logit_fc", "layers")]
    load_into(head, golden.part("before").inputs, table, where=golden.name)
    learned = [answer["ans"] for answer in about["pretraining_answers"]]  # codespell:ignore ans
    weights = {name.removeprefix("module."): one for name, one in golden.weights.items()}
    unknown = transfer_answers(head, weights, learned=learned, answers=answers)
    assert list(unknown) == [a for a, known in zip(answers, about["transferred"], strict=True) if not known]
    after = restore(head.state_dict(), table)
    assert after.keys() == golden.outputs.keys()
    assert all(torch.equal(after[name], one) for name, one in golden.outputs.items())


def peer(**options):
    """Hugging Face's LxmertModel with random weights, and ours with the same."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from transformers import LxmertConfig, LxmertModel

        config = LxmertConfig(
            vocab_size=90, hidden_size=48, num_attention_heads=4, intermediate_size=96, visual_feat_dim=20,
            l_layers=2, r_layers=1, x_layers=3, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
        )  # fmt: skip
        theirs = LxmertModel(config)
    torch.manual_seed(0)
    for one in theirs.parameters():
        nn.init.normal_(one, 0, 0.2)
    ours = Lxmert(
        vocab_size=90, feature_dim=20, dim=48, heads=4, hidden=96, layers=2, region_layers=1, cross_layers=3,
        dropout=0.0, attention_dropout=0.0,
    )  # fmt: skip
    assert fill_model(ours, theirs.state_dict(), where="peer") == {}
    return ours, theirs


def test_transformers_gives_the_same_numbers():
    ours, theirs = peer()
    ids = torch.randint(0, 90, (4, 7))
    given = {
        "input_ids": ids,
        "token_type_ids": torch.randint(0, 2, ids.shape),
        "attention_mask": (torch.arange(7) < torch.tensor([7, 3, 5, 1])[:, None]).long(),
        "visual_feats": torch.randn(4, 6, 20),
        "visual_pos": torch.rand(4, 6, 4),
        "visual_attention_mask": (torch.arange(6) < torch.tensor([2, 6, 1, 4])[:, None]).long(),
    }
    expected = theirs(**given)
    inputs = unpack(given | {"visual_boxes": given["visual_pos"]})
    encoding = ours(inputs)
    text, regions = inputs.text.mask, inputs.regions.mask
    close = partial(torch.testing.assert_close, atol=2e-5, rtol=1e-4)
    close(encoding.text[text], expected.language_output[text])
    close(encoding.regions[regions], expected.vision_output[regions])
    close(encoding.pooled, expected.pooled_output)

    def objective(states, seen, pooled):
        return states[text].square().mean() + seen[regions].square().mean() + pooled.sum()

    objective(encoding.text, encoding.regions, encoding.pooled).backward()
    objective(expected.language_output, expected.vision_output, expected.pooled_output).backward()
    mine = gradients(ours, "")
    for name, one in theirs.named_parameters():
        close(mine[name], one.grad, msg=lambda text, name=name: f"{name}: {text}")
