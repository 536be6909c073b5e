"""Optimizers, schedules and ERNIE-ViL's reader equal the originals, step by step."""

import json
import os

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from diptych.convert import HEADS
from diptych.convert.ernievil import ERNIEVIL, fill_ernievil
from diptych.convert.heads import load_head
from diptych.convert.rules import restore
from diptych.data import Collate, Processor, Sources
from diptych.datasets import HatefulMemes
from diptych.features import FeatureStore, import_features
from diptych.features.merged import MergedStore
from diptych.models import ErnieVil
from diptych.nn import Sizes
from diptych.nn.boxes import corners_area
from diptych.tasks import Classify
from diptych.text import WordPiece
from diptych.train import HFAdamW, bert_adam, linear, paddle_adam, steps, triangle
from diptych.types import Batch, Inputs, PaddedRegions, PaddedText

EVERY = "DIPTYCH_GOLDENS" in os.environ  # a folder of all goldens, not the repository's selection


def described(goldens, name):
    return json.loads((goldens / f"{name}.json").read_text())


def test_bert_adam_takes_the_original_steps(golden):
    golden = golden("lxmert-bertadam")
    config = golden.config
    names = ("weight", "bias", "norm")  # `late` is counted by its own steps there, by those of the run here
    module = nn.Module()
    for name in (*names, "late"):
        module.register_parameter(name, nn.Parameter(golden.inputs[f"init/{name}"].clone()))
    factory = bert_adam(
        lr=config["lr"],
        weight_decay=config["weight_decay"],
        betas=(config["b1"], config["b2"]),
        eps=config["eps"],
    )
    optimizer, schedule = factory(module, nn.Module()), linear(warmup=config["warmup"])
    for step in range(config["steps"]):
        for name, parameter in module.named_parameters():
            missing = name == "late" and step < 3
            parameter.grad = None if missing else golden.inputs[f"grads/{name}"][step].clone()
        norm = nn.utils.clip_grad_norm_(module.parameters(), config["clip"])
        rate = config["lr"] * schedule(step, config["t_total"])
        assert rate == pytest.approx(golden.outputs["lr_used"][step].item(), abs=1e-12)
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
        golden.check("grad_norm_before_clip", norm, step)
        for name in names:
            golden.check(f"params/{name}", module.get_parameter(name).detach(), step)


@pytest.mark.parametrize("kind", ["triangle", "step"])
def test_vlbert_schedules_give_the_original_rates(goldens, kind):
    found = described(goldens, "vlbert-misc")["lr_schedules"][kind]
    given = found["args"]
    if kind == "triangle":
        schedule, total = triangle(warmup=given["warmup_steps"]), given["t_total"]
    else:
        warmup = given["warmup_iters"]
        schedule, total = steps(milestones=given["milestones"], factor=given["gamma"], warmup=warmup), 0
    rates = [found["base_lr"] * schedule(step, total) for step in range(len(found["lr_used_by_update"]) + 1)]
    assert rates[0] == found["lr_after_construction"]
    assert rates[1:] == pytest.approx(found["lr_used_by_update"])  # the original steps the schedule first


def test_vlbert_adamw_takes_the_original_steps(goldens):
    found = described(goldens, "vlbert-misc")["adamw"]
    parameter = nn.Parameter(torch.tensor(found["start"], dtype=torch.float64))
    optimizer = HFAdamW(
        [parameter],
        lr=found["lr"],
        betas=tuple(found["betas"]),
        eps=found["eps"],
        weight_decay=found["weight_decay"],
    )
    for gradient, expected in zip(found["grads"], found["values"], strict=True):
        parameter.grad = torch.tensor(gradient, dtype=torch.float64)
        optimizer.step()
        torch.testing.assert_close(parameter.detach(), torch.tensor(expected, dtype=torch.float64))


def build(config):
    """The whole image is among the original's rows."""
    text, vision = config["t_biattention_id"], config["v_biattention_id"]
    streams = {
        "text": (config["hidden_size"], config["num_attention_heads"], 4 * config["hidden_size"], text),
        "vision": (
            config["v_hidden_size"],
            config["v_num_attention_heads"],
            config["v_intermediate_size"],
            vision,
        ),
    }
    return ErnieVil(
        vocab_size=config["vocab_size"],
        feature_dim=config["feature_size"],
        **{
            name: Sizes(dim=dim, heads=heads, hidden=hidden, layers=ids[-1] + 1)
            for name, (dim, heads, hidden, ids) in streams.items()
        },
        bridge=Sizes(dim=config["co_hidden_size"], heads=config["co_num_attention_heads"]),
        meetings=list(zip(text, vision, strict=True)),
        max_positions=config["max_position_embeddings"],
        segments=config["sent_type_vocab_size"],
        whole_image=False,
        dropout=0.0,
        attention_dropout=0.0,
        eps=config["layer_norm_eps"],
    )


def batch_of(inputs):
    mask = inputs["image_mask"].bool()
    regions = PaddedRegions(
        features=inputs["image_embeddings"],
        boxes=inputs["image_loc"][..., :4],
        mask=mask,
        image_index=torch.zeros(mask.shape, dtype=torch.int64),
        sizes=torch.ones(len(mask), 2),
    )
    text = PaddedText(
        ids=inputs["src_ids"], mask=inputs["input_mask"].bool(), segments=inputs["sentence_ids"]
    )
    return Batch(
        ids=tuple(map(str, range(len(mask)))),
        inputs=Inputs(text=text, regions=regions),
        targets=inputs["labels"].squeeze(-1).long(),
    )


if EVERY:

    @pytest.mark.parametrize("name", ["ernie-vil-train", "ernie-vil-train-layer-decay"])
    def test_ernievil_trains_as_on_paddle(golden, goldens, name):
        start, data, golden = golden("ernie-vil"), golden("ernie-vil-train"), golden(name)
        recipe = described(goldens, "ernie-vil-train")["recipe"]
        decay = described(goldens, name)["recipe"].get("layer_decay_rate")
        model = build(golden.config)
        head = fill_ernievil(model, start.weights, where=name)
        table = HEADS["ernievil"]["hateful_memes"]
        task = Classify(model, labels=("no", "yes"), loss="bce")
        load_head(task, head, table, where=name)
        schedule = steps(
            milestones=recipe["decay_steps"], factor=recipe["lr_decay_ratio"], warmup=recipe["warmup_steps"]
        )
        optimizer = paddle_adam(lr=recipe["learning_rate"], layer_decay=decay)(model, task, fused=False)
        parameters = [*model.parameters(), *task.parameters()]
        batches = [
            batch_of({key.partition("/")[2]: one for key, one in data.inputs.items() if key.startswith(part)})
            for part in ("even/", "odd/")
        ]
        total = len(golden.outputs["losses"])
        for step in range(total):
            factor = schedule(step, total)
            rate = recipe["learning_rate"] * factor
            assert rate == pytest.approx(data.outputs["learning_rates"][step].item(), rel=1e-6)
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"] * factor
            optimizer.zero_grad()
            loss = task(model, batches[step % 2]).loss
            golden.check("losses", loss.detach(), step)
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
        ours = restore(dict(model.named_parameters()), ERNIEVIL) | restore(
            dict(task.named_parameters()), table
        )
        after = [key for key in golden.outputs if key.startswith("after/")]
        assert after
        for key in after:
            golden.check(key, ours[key.removeprefix("after/")].detach())

    @pytest.fixture
    def read(goldens, tmp_path):
        """The memes of the golden, and its two extractions as stores."""
        folder = goldens / "ernie-vil-reader"
        for name in ("main", "gt"):
            import_features(folder / f"{name}.tsv", tmp_path / name)
        stores = [FeatureStore(tmp_path / name) for name in ("main", "gt")]
        return HatefulMemes(folder, "dev_seen"), folder / "vocab.txt", *stores

    def test_the_reader_gives_the_original_batches(goldens, read):
        dataset, vocabulary, main, more = read
        expected = load_file(goldens / "ernie-vil-reader.safetensors")
        found = described(goldens, "ernie-vil-reader")
        size, most = found["settings"]["batch_size"], found["settings"]["max_region_num"]
        processor = Processor(text=WordPiece(vocabulary), regions=True, max_regions=most)
        collate = Collate(processor, sources=Sources(regions=MergedStore(main, more, most=most)))
        assert found["n_samples"] == len(dataset)
        for number in range(found["n_batches"]):
            rows = range(number * size, min((number + 1) * size, len(dataset)))
            batch = collate([dataset[row] for row in rows])
            golden = {
                key.partition("/")[2]: one
                for key, one in expected.items()
                if key.startswith(f"batch{number}/")
            }
            assert batch.ids == tuple(map(str, golden["ids"].flatten().tolist()))
            text, regions = batch.inputs.text, batch.inputs.regions
            assert torch.equal(text.ids, golden["src_ids"].squeeze(-1))
            assert torch.equal(text.mask.float(), golden["input_mask"].squeeze(-1))
            check_regions(regions, golden)
            labels = [int(dataset[row].target == "hateful") for row in rows]
            assert labels == golden["labels"].flatten().tolist()

    def check_regions(regions, golden):
        mask = golden["image_mask"].squeeze(-1).bool()
        assert torch.equal(regions.mask, mask)
        torch.testing.assert_close(
            regions.features[mask], golden["image_embeddings"][mask], atol=2e-5, rtol=1e-4
        )
        places = corners_area(regions.boxes)
        torch.testing.assert_close(places[mask], golden["image_loc"][mask], atol=2e-6, rtol=1e-5)
