"""Heads on CLIP's towers equal the originals: Hate-CLIPper, RGCL with its search and votes, MemeCLIP."""

import os

import pytest
import torch
from torch.nn import functional as F

from diptych.convert import fill_model
from diptych.models import Clip, Embeddings
from diptych.nn import FusionHead, Sizes, fuse, nearest_cases, votes
from diptych.tasks import HateClipper, Rgcl
from diptych.tasks.meme_clip import AdapterHead, prototypes
from diptych.tasks.rgcl import Guidance
from diptych.types import Batch, Inputs, PaddedRegions, PaddedText

EVERY = "DIPTYCH_GOLDENS" in os.environ  # a folder of all goldens, not the repository's selection
OWN = pytest.mark.skipif(not EVERY, reason="not in the repository's selection")
LABELS = ("benign", "hateful")
# Names of the originals' parts, and of ours.
HATECLIPPER = {
    "image_map": "head.image_map",
    "text_map": "head.text_map",
    "pre_output": "head.deep.layers",
    "output": "head.deep.output",
    "pre_output_image": "alone.image.0",
    "output_image": "alone.image.1",
    "pre_output_text": "alone.text.0",
    "output_text": "alone.text.1",
}
RGCL = {
    "img_proj": "head.image_map",
    "text_proj": "head.text_map",
    "mlp": "head.deep.layers",
    "output_layer": "head.deep.output",
}
MEMECLIP = {
    "image_map.proj": "image_map",
    "text_map.proj": "text_map",
    "img_adapter.fc.0": "image_adapter.down",
    "img_adapter.fc.2": "image_adapter.up",
    "text_adapter.fc.0": "text_adapter.down",
    "text_adapter.fc.2": "text_adapter.up",
    "pre_output": "layers",
    "classifier": "",
}


def renamed(table, name):
    """Our name of a parameter of the original; None if it is not part of a head."""
    for theirs in sorted(table, key=len, reverse=True):
        if name.startswith(f"{theirs}."):
            return f"{table[theirs]}.{name.removeprefix(f'{theirs}.')}".lstrip(".")
    return None


def load(module, golden, table):
    own = {renamed(table, name): one for name, one in golden.weights.items()}
    own.pop(None, None)
    state = {name: one for name, one in module.state_dict().items() if not name.startswith("bank")}
    assert own.keys() == state.keys()
    module.load_state_dict(own, strict=False)
    return module.eval()


def gradients(module, golden, table):
    found = dict(module.named_parameters())
    names = [name.removeprefix("grad.") for name in golden.outputs if name.startswith("grad.")]
    golden.check_gradients({name: found[renamed(table, name)].grad for name in names})


def sizes(config):
    return Sizes(
        dim=config["hidden_size"],
        heads=config["num_attention_heads"],
        hidden=config["intermediate_size"],
        layers=config["num_hidden_layers"],
    )


def towers(golden):
    """CLIP with the golden's towers; the projections, which the heads do not read, are zero."""
    text, vision, joint = (golden.config[name] for name in ("text_config", "vision_config", "projection_dim"))
    model = Clip(
        vocab_size=text["vocab_size"],
        text=sizes(text),
        vision=sizes(vision),
        joint_dim=joint,
        image_size=vision["image_size"],
        patch=vision["patch_size"],
        max_positions=text["max_position_embeddings"],
        activation=text["hidden_act"],
        eps=text["layer_norm_eps"],
        frozen=["image", "text"],
    )
    own = {
        name.replace("image_encoder.", "vision_model.").replace("text_encoder.", "text_model."): one
        for name, one in golden.weights.items()
        if "encoder." in name
    }
    own["visual_projection.weight"] = torch.zeros(joint, vision["hidden_size"])
    own["text_projection.weight"] = torch.zeros(joint, text["hidden_size"])
    own["logit_scale"] = torch.zeros(())
    assert not fill_model(model, own, where=golden.name), "weights are left over"
    return model.eval()


def batch_of(golden):
    given = golden.inputs
    ids, mask = given["input_ids"], given["attention_mask"].bool()
    text = PaddedText(ids=ids, mask=mask, segments=torch.zeros_like(ids))
    names = tuple(map(str, range(len(ids))))
    return Batch(ids=names, inputs=Inputs(text=text, pixels=given["pixel_values"]), targets=given["labels"])


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("clip-hateclipper-align", marks=OWN),
        "clip-hateclipper-concat",
        pytest.param("clip-hateclipper-cross", marks=OWN),
    ],
)
def test_hate_clipper_equals_the_original(golden, name):
    golden = golden(name)
    config, model = golden.config, towers(golden)
    task = HateClipper(
        model,
        labels=LABELS,
        fusion=config["fusion"],
        dim=config["map_dim"],
        map_layers=config["num_mapping_layers"],
        layers=config["num_pre_output_layers"],
        dropouts=config["drop_probs"],
        image_loss=float(config["weight_image_loss"]),
        text_loss=float(config["weight_text_loss"]),
    )
    load(task, golden, HATECLIPPER)
    batch = batch_of(golden)
    encoding = model(batch.inputs, reads=task.reads)
    golden.check("image_pooled", encoding.tower_image)
    golden.check("text_pooled", encoding.tower_text)
    head = task.head
    golden.check("image_mapped", head.image_map(encoding.tower_image))
    golden.check("text_mapped", head.text_map(encoding.tower_text))
    image, text = head.mapped(task.readout(encoding, batch))
    golden.check("image_unit", image)
    golden.check("text_unit", text)
    golden.check("fused", fuse(image, text, config["fusion"]))
    golden.check("pre_output", head.deep.layers(fuse(image, text, config["fusion"])))
    outcome = task(model, batch)
    golden.check("logits", outcome.logits[:, 1])
    golden.check("total_loss", outcome.loss)
    golden.check("loss", task.loss(outcome.logits, batch))
    for side, loss in outcome.logs.items():
        golden.check(f"{side}_loss", loss)
    assert len(outcome.logs) == sum(f"{side}_loss" in golden.outputs for side in ("image", "text"))
    outcome.loss.backward()
    gradients(task, golden, HATECLIPPER)


def bank_head(golden):
    config = golden.config
    head = torch.nn.Module()
    head.head = FusionHead(
        config["image_dim"] + config["text_dim"],
        1,
        widths=(config["image_dim"], config["text_dim"]),
        dim=config["map_dim"],
        width=config["proj_dim"],
        layers=config["num_layers"],
        fusion=config["fusion_mode"],
        dropouts=config.get("dropout", (0.0, 0.0, 0.0)),
    )
    return load(head, golden, RGCL).head


def embedded(head, given, of=""):
    return head.embed(torch.cat([given[f"{of}image_feats"], given[f"{of}text_feats"]], 1))


def test_rgcl_equals_the_original(golden):
    golden = golden("clip-rgcl")
    labels, cases = golden.inputs["labels"], golden.config["cases"]
    assert cases
    for name, case in cases.items():
        head, own = bank_head(golden), golden.part(name)
        bank = embedded(head, golden.inputs)
        if name == next(iter(cases)):
            golden.check("embed", bank)
            golden.check("logits", head.decide(bank))
        rows = golden.inputs[case["rows"]]
        guidance = Guidance(
            loss=case["loss"],
            metric=case["metric"],
            margin=float(case["triplet_margin"]),
            hard=case["no_hard_negatives"] * case["hard_negatives_loss"],
            gold=case["no_pseudo_gold_positives"],
            unit=case["norm_feats_loss"],
            depth=case["hard_negatives_multiple"],
            compat=True,
        )
        same = labels[rows][:, None] == labels
        itself = rows[:, None] == torch.arange(len(labels))
        vectors = bank[rows]
        hard, gold = guidance.find(vectors, bank, same=same, other=~same, itself=itself)
        for kind, found in (("hard", hard), ("pseudo_gold", gold)):
            if found.shape[1] and f"{kind}_rows" in own.outputs:
                assert torch.equal(found, own.outputs[f"{kind}_rows"]), name
        # Only this case lets gradients flow into the bank; ours never does.
        kept = bank if "gradients flow" in case["bank"] else bank.detach()
        parts = guidance(vectors, labels[rows], kept, hard, gold)
        own.check("in_batch", parts["in_batch"])
        for ours, theirs in (("hard", "hard"), ("gold", "pseudo_gold")):
            if theirs in own.outputs:
                own.check(theirs, parts[ours])
        total = parts["total"]
        if case["hybrid_loss"]:
            weight = case["pos_weight_value"]
            entropy = F.binary_cross_entropy_with_logits(
                head.decide(vectors)[:, 0],
                labels[rows].float(),
                pos_weight=None if weight is None else torch.tensor(weight),
            )
            own.check("cross_entropy", entropy)
            total = (1 - case["ce_weight"]) * total + case["ce_weight"] * entropy
        own.check("total", total)
        total.backward()
        module = torch.nn.Module()
        module.head = head
        gradients(module, own, RGCL)


def test_the_task_computes_the_published_loss_of_rgcl(golden):
    """As a run does: the bank is computed from batches, and the task finds, compares and adds up."""
    golden = golden("clip-rgcl")
    config, given = golden.config, golden.inputs
    for name in ("published", "weighted", "contrastive"):
        case = config["cases"][name]
        model = Embeddings(parts={"tower_image": config["image_dim"], "tower_text": config["text_dim"]})
        task = Rgcl(
            model,
            labels=LABELS,
            cases=len(given["labels"]),
            dim=config["map_dim"],
            width=config["proj_dim"],
            layers=config["num_layers"],
            fusion=config["fusion_mode"],
            dropouts=config["dropout"],
            contrast=case["loss"],
            metric=case["metric"],
            margin=case["triplet_margin"],
            hard=case["no_hard_negatives"],
            gold=case["no_pseudo_gold_positives"],
            share=case["ce_weight"],
            positive_weight=case["pos_weight_value"],
            compat=True,
        )
        load(task, golden, RGCL)
        everyone = torch.arange(len(given["labels"]))
        task.know([str(number) for number in everyone.tolist()])
        task.remember(model, [stored(given, rows) for rows in everyone.split(7)])
        batch = stored(given, given[case["rows"]])
        golden.part(name).check("total", task.train()(model, batch).loss)


def test_the_votes_of_rgcl_equal_the_original(golden):
    golden = golden("clip-rgcl-knn")
    config, given, head = golden.config, golden.inputs, bank_head(golden)
    with torch.no_grad():
        bank, queries = embedded(head, given), embedded(head, given, "query.")
    golden.check("embed", bank)
    golden.check("query.embed", queries)
    golden.check("query.logits", head.decide(queries))
    similarities, rows = nearest_cases(queries, bank, config["topk"])
    assert torch.equal(rows, golden.outputs["neighbours"])
    golden.check("similarities", similarities)
    positive, truth = given["labels"][rows] == 1, given["query.labels"] == 1
    for name, measures in config["metrics"].items():
        weighting, by = name.split("_")
        score = votes(similarities.double(), positive, weighting=weighting, by=by).sum(1)
        golden.check(f"votes.{name}", score)
        decided = score >= (0.0 if by == "similarity" else 0.5)
        assert (decided == truth).double().mean().item() == pytest.approx(measures["accuracy"])


def test_memeclip_equals_the_original(golden):
    golden = golden("clip-memeclip")
    config, given = golden.config, golden.inputs
    head = AdapterHead(
        2 * config["unmapped_dim"],
        len(config["class_names"]),
        widths=(config["unmapped_dim"],) * 2,
        dim=config["map_dim"],
        map_layers=config["num_mapping_layers"],
        layers=config["num_pre_output_layers"],
        ratio=config["ratio"],
        reduction=config["adapter_reduction"],
        scale=config["scale"],
        dropouts=config["drop_probs"],
    )
    load(head, golden, MEMECLIP)
    image, text = given["image_features"], given["text_features"]
    golden.check("image_mapped", head.image_map(image))
    golden.check("text_mapped", head.text_map(text))
    golden.check("image_adapted", head.image_adapter(head.image_map(image)))
    golden.check("text_adapted", head.text_adapter(head.text_map(text)))
    both = torch.cat([image, text], 1)
    golden.check("fused", head.fused(both))
    golden.check("pre_output", head.layers(head.fused(both)))
    logits = head(both)
    golden.check("logits", logits)
    loss = F.cross_entropy(logits, given["labels"])
    golden.check("loss", loss)
    loss.backward()
    gradients(head, golden, MEMECLIP)
    projection = torch.nn.Linear(*given["visual_proj"].shape, bias=False)
    projection.weight.data = given["visual_proj"].T
    prompts = F.normalize(given["prompt_features"], dim=-1)
    golden.check("prototypes", prototypes(prompts, projection).detach())


def stored(given, rows):
    vectors = torch.cat([given["image_feats"], given["text_feats"]], 1)[rows][:, None]
    regions = PaddedRegions(
        features=vectors,
        boxes=torch.zeros(len(rows), 1, 4),
        mask=torch.ones(len(rows), 1).bool(),
        image_index=torch.zeros(len(rows), 1, dtype=torch.int64),
        sizes=torch.ones(len(rows), 2),
    )
    names = tuple(map(str, rows.tolist()))
    return Batch(ids=names, inputs=Inputs(regions=regions), targets=given["labels"][rows])
