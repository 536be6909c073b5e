"""What the originals' readers feed, how their optimizers step, and how rates go."""

import json
import os
import re

import pytest
import torch
from safetensors.torch import load_file
from tests.parity.heads import HEADS, load_head
from torch import nn

from diptych.convert import fill_model
from diptych.convert.ernievil import ERNIEVIL
from diptych.convert.rules import restore
from diptych.data import Collate, Processor, Sources
from diptych.data.cutting import shares
from diptych.datasets import HatefulMemes
from diptych.datasets.hateful_memes import LABELS
from diptych.features import FeatureStore, MergedStore, import_features
from diptych.metrics import grade_answers, without_punctuation
from diptych.nn.boxes import corners_area, iou
from diptych.nn.coattention import BoxedRegions
from diptych.tasks import Classify
from diptych.tasks.base import AnswerScores
from diptych.tasks.classify import ClassIndex
from diptych.text import WordPiece
from diptych.train import HFAdamW, bert_adam, linear, paddle_adam, steps, triangle
from diptych.types import Batch, Example, Pair

EVERY = "DIPTYCH_GOLDENS" in os.environ  # a folder of all goldens, not the repository's selection


def advance(optimizer, factor, clip):
    """One step at a part of the peak rate; gives the highest rate and the norm of all gradients."""
    for group in optimizer.param_groups:
        group["lr"] = factor * group["initial_lr"]
    parameters = [one for group in optimizer.param_groups for one in group["params"]]
    norm = nn.utils.clip_grad_norm_(parameters, clip)
    optimizer.step()
    optimizer.zero_grad()
    return max(group["lr"] for group in optimizer.param_groups), norm


def test_bert_adam_steps_as_the_original(golden):
    golden = golden("lxmert-bertadam")
    config = golden.config
    start = {name.removeprefix("init/"): one for name, one in golden.inputs.items() if name[:5] == "init/"}
    moved = (golden.outputs["params/late"] != start["late"]).any(-1)
    joins = int(moved.int().argmax()) - 1  # its first step has rate 0
    model = nn.ParameterDict({name: nn.Parameter(one.clone()) for name, one in start.items()})
    factory = bert_adam(lr=config["lr"], weight_decay=config["weight_decay"], eps=config["eps"])
    optimizer, schedule = factory(model, nn.Identity()), linear(warmup=config["warmup"])
    for step in range(config["steps"]):
        for name, parameter in model.items():
            given = name != "late" or step >= joins
            parameter.grad = golden.inputs[f"grads/{name}"][step].clone() if given else None
        rate, norm = advance(optimizer, schedule(step, config["t_total"]), config["clip"])
        assert rate == pytest.approx(golden.outputs["lr_used"][step].item())
        golden.check("grad_norm_before_clip", norm, step)
        for name in sorted(set(start) - {"late"}):  # whose steps the original counts by themselves
            golden.check(f"params/{name}", model[name].detach(), step)


def test_rates_go_as_in_vl_bert(goldens):
    name = "vlbert-misc"
    told = json.loads((goldens / f"{name}.json").read_text())["lr_schedules"]
    rise, stairs = (told[kind]["args"] for kind in ("triangle", "step"))
    schedules = {
        "triangle": triangle(warmup=rise["warmup_steps"]),
        "step": steps(
            milestones=stairs["milestones"],
            factor=stairs["gamma"],
            warmup=stairs["warmup_iters"],
            warmup_factor=stairs["warmup_factor"],
            warmup_method=stairs["warmup_method"],
        ),
    }
    for kind, schedule in schedules.items():
        used = told[kind]["lr_used_by_update"]  # counted from 1: its trainer moves the rate before it steps
        rates = [told[kind]["base_lr"] * schedule(step, len(used)) for step in range(len(used) + 1)]
        assert rates == pytest.approx([told[kind]["lr_after_construction"], *used])


def test_hf_adamw_steps_as_in_vl_bert(goldens):
    told = json.loads((goldens / "vlbert-misc.json").read_text())["adamw"]
    weight = nn.Parameter(torch.tensor(told["start"], dtype=torch.float64))
    settings = {name: told[name] for name in ("lr", "eps", "weight_decay")}
    optimizer = HFAdamW([weight], betas=tuple(told["betas"]), **settings)
    for gradient, expected in zip(told["grads"], told["values"], strict=True):
        weight.grad = torch.tensor(gradient, dtype=torch.float64)
        optimizer.step()
        assert weight.tolist() == pytest.approx(expected, rel=1e-9)


def test_rows_are_cut_as_in_vl_bert(goldens):
    told = json.loads((goldens / "vlbert-misc.json").read_text())["caption_truncation"]
    for (text, boxes, most), kept in told["cases"]:
        assert shares(text, boxes, most) == tuple(kept)


def test_boxes_overlap_as_in_vl_bert(goldens):
    told = json.loads((goldens / "vlbert-misc.json").read_text())["iou"]
    edges = torch.tensor([0, 0, 1, 1])  # the last pixel belongs to a box there
    found = iou(torch.tensor([told["gt"]]) + edges, torch.tensor(told["boxes"]) + edges)
    torch.testing.assert_close(found[0], torch.tensor(told["iou"]))


def test_answers_are_spelled_and_graded_as_in_vl_bert(goldens):
    told = json.loads((goldens / "vlbert-misc.json").read_text())
    for answer, plain in told["vqa_answer_vocab_normalisation"]["cases"]:
        if answer != "<unk>":  # no answer, but the name of all others there
            assert without_punctuation(answer) == plain
    soft = told["vqa_soft_targets"]
    encode, pairs = AnswerScores(tuple(soft["vocab"])), (Pair(image=None, text=""),)
    for case in soft["cases"]:
        example = Example(id="1", pairs=pairs, target=grade_answers(case["answers"]))
        torch.testing.assert_close(encode([example])[0], torch.tensor(case["target"]))


@pytest.mark.parametrize("name", ["ernie-vil-train", "ernie-vil-train-layer-decay"])
def check_ernie_vil_trains_as_on_paddle(golden, goldens, build_ernievil, unpack_ernievil, name):
    after, data, head = golden(name), golden("ernie-vil-train"), HEADS["ernievil"]["hateful_memes"]
    told = {one: json.loads((goldens / f"{one}.json").read_text())["recipe"] for one in (name, data.name)}
    recipe = told[data.name]  # the other one says only in what it differs
    model = build_ernievil(after.config)
    weights = fill_model(model, golden("ernie-vil").weights, where=name)
    task = Classify(model, labels=("no", "yes"), loss="bce").eval()
    load_head(task, weights, head, where=name)
    optimizer = paddle_adam(
        lr=recipe["learning_rate"],
        weight_decay=float(recipe["weight_decay"].split()[0]),
        layer_decay=told[name].get("layer_decay_rate"),
    )(model, task)
    schedule = steps(
        milestones=recipe["decay_steps"], factor=recipe["lr_decay_ratio"], warmup=recipe["warmup_steps"]
    )
    clip = float(re.findall(r"norm ([\d.]+)", recipe["clip"])[0])
    batches = []
    for part in ("even", "odd"):
        inputs = {key.removeprefix(f"{part}/"): one for key, one in data.inputs.items() if part in key}
        targets = inputs["labels"].squeeze(-1).long()
        ids = tuple(map(str, range(len(targets))))
        batches.append(Batch(ids=ids, inputs=unpack_ernievil(inputs), targets=targets))
    for step, rate in enumerate(data.outputs["learning_rates"].tolist()):
        loss = task(model, batches[step % 2]).loss
        after.check("losses", loss.detach(), step)
        loss.backward()
        assert advance(optimizer, schedule(step, 0), clip)[0] == pytest.approx(rate)
    ours = restore({key: one.detach() for key, one in model.named_parameters()}, ERNIEVIL)
    ours |= restore({key: one.detach() for key, one in task.named_parameters()}, head)
    names = [key.removeprefix("after/") for key in after.outputs if key.startswith("after/")]
    assert names, f"{name} holds no weights"
    for key in names:
        after.check(f"after/{key}", ours[key])


def check_batches_are_those_of_ernie_vils_reader(goldens, tmp_path):
    name = "ernie-vil-reader"
    golden, folder = load_file(goldens / f"{name}.safetensors"), goldens / name
    settings = json.loads((goldens / f"{name}.json").read_text())["settings"]
    for table in ("main", "gt"):
        import_features(folder / f"{table}.tsv", tmp_path / table, dtype="float32")
    main, more = (FeatureStore(tmp_path / table) for table in ("main", "gt"))
    memes = HatefulMemes(folder, "dev_seen")
    text = WordPiece(folder / "vocab.txt")
    embedding, seen = BoxedRegions(main.meta.feature_dim, 1), {}
    for part in ("feature", "box"):
        getattr(embedding, part).register_forward_pre_hook(
            lambda module, given, part=part: seen.__setitem__(part, given[0])
        )
    size, most = settings["batch_size"], settings["max_region_num"]
    for start in range(0, len(memes), size):
        examples = [memes[number] for number in range(start, min(start + size, len(memes)))]
        place = f"batch{start // size}"
        sources = Sources(regions=MergedStore(main, more, most=most))
        processor = Processor(text=text, regions=True, max_tokens=512, max_regions=most)
        batch = Collate(processor, sources=sources, targets=ClassIndex(LABELS))(examples)
        words, areas = batch.inputs.text, batch.inputs.regions
        assert [int(key) for key in batch.ids] == golden[f"{place}/ids"].squeeze(-1).tolist()
        assert batch.targets.tolist() == golden[f"{place}/labels"].squeeze(-1).tolist()
        for field, got in (("src_ids", words.ids), ("sentence_ids", words.segments)):
            assert torch.equal(got, golden[f"{place}/{field}"].squeeze(-1)), f"{place} {field}"
        assert torch.equal(words.mask, golden[f"{place}/input_mask"].squeeze(-1).bool())
        regions = {"embeddings": areas.features, "loc": corners_area(areas.boxes), "mask": areas.mask}
        compare_regions(golden, place, regions)
        alone = Processor(text=text, regions=True, max_regions=settings["max_region_num_single"] - 1)
        batch = Collate(alone, sources=Sources(regions=main))(examples)
        _, mask = embedding(batch.inputs.regions)
        regions = {"embeddings": seen["feature"], "loc": seen["box"], "mask": mask}
        compare_regions(golden, f"single/{place}", regions)


def compare_regions(golden, place, got):
    """Every real region; the original's padding is cut, as ours is."""
    real = golden[f"{place}/image_mask"].squeeze(-1).bool()
    assert torch.equal(got["mask"], real), place
    for field in ("embeddings", "loc"):
        torch.testing.assert_close(
            got[field][real], golden[f"{place}/image_{field}"][real], atol=1e-6, rtol=1e-6
        )


if EVERY:  # no part of the repository's selection
    test_ernie_vil_trains_as_on_paddle = check_ernie_vil_trains_as_on_paddle
    test_batches_are_those_of_ernie_vils_reader = check_batches_are_those_of_ernie_vils_reader
