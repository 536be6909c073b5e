"""Settings follow from what a file was trained for, not from its family alone."""

import pytest
import torch

from diptych import models
from diptych.convert import FAMILIES, inspect_checkpoint, restore
from diptych.convert.settings import MEMES
from diptych.datasets import hateful_memes

FAMILY = {family.name: family for family in FAMILIES}
SIZES = {"vocab_size": 40, "feature_dim": 16, "max_positions": 300}
STREAMS = {name: {"heads": 4} for name in ("text", "vision", "bridge")}
DIM = 48


def stacked(name, outputs, *, inputs=DIM, width=2 * DIM):
    """A head of two Linears with a LayerNorm between them."""
    return {
        f"{name}.0.weight": torch.zeros(width, inputs),
        f"{name}.0.bias": torch.zeros(width),
        f"{name}.2.weight": torch.zeros(width),
        f"{name}.2.bias": torch.zeros(width),
        f"{name}.3.weight": torch.zeros(outputs, width),
        f"{name}.3.bias": torch.zeros(outputs),
    }


def linear(name, outputs, *, inputs=DIM):
    return {f"{name}.weight": torch.zeros(outputs, inputs), f"{name}.bias": torch.zeros(outputs)}


def transformed(name, outputs):
    return {
        **linear(f"{name}.0.dense", DIM),
        f"{name}.0.LayerNorm.weight": torch.zeros(DIM),
        f"{name}.0.LayerNorm.bias": torch.zeros(DIM),
        **linear(f"{name}.1", outputs),
    }


VQA = {
    **linear("final_mlp.0.dense", DIM),
    "final_mlp.0.LayerNorm.weight": torch.zeros(DIM),
    "final_mlp.0.LayerNorm.bias": torch.zeros(DIM),
    **linear("final_mlp.2", 9),
}
COUNTER = {"model.bert.embeddings.position_ids": torch.arange(300)[None]}
BOX = {"box_numbers": 4}
# family, prefix of its names, head beside it, arguments of the model, and what must come of it
CASES = {
    "vilio-u": ("uniter", "model.", stacked("classifier", 2), {}, {"max_tokens": 300, "max_regions": 100}),
    "uniter-vqa": ("uniter", "uniter.", stacked("vqa_output", 9), {}, {"max_tokens": 300}),
    "nav13n": ("uniter", "model.", linear("linear", 2), {}, {"max_tokens": 256, "box_scale": "swapped"}),
    "vilio-o": ("oscar", "model.", stacked("classifier", 2), BOX, {"max_tokens": 128, "tags": False}),
    "oscar-vqa": ("oscar", "bert.", linear("classifier", 9), {}, {"max_regions": 50, "tags": True}),
    "oscar-nlvr2": ("oscar", "bert.", linear("classifier", 2, inputs=2 * DIM), {}, {"max_tokens": 55}),
    "vilio-v": ("visualbert", "model.", stacked("classifier", 2), {}, {"max_tokens": 128, "text_end": None}),
    "mmf-vqa": ("visualbert", "model.bert.", transformed("model.classifier", 9), {}, {"text_end": None}),
    "uclanlp-vqa": ("visualbert", "bert.bert.", linear("bert.classifier", 9), {}, {"text_end": "? [MASK]"}),
    "hf-vqa": ("visualbert", "visual_bert.", linear("cls", 9), {}, {"text_end": "? [MASK]"}),
    "vilio-x": (
        "lxmert",
        "model.bert.",
        stacked("classifier", 2),
        {},
        {"max_tokens": 128, "max_regions": 100},
    ),
    "vilio-x-backbone": ("lxmert", "model.bert.", COUNTER, {}, {"max_tokens": 128}),
    "lxmert-vqa": ("lxmert", "lxrt_encoder.model.bert.", stacked("logit_fc", 9), {}, {"max_tokens": 20}),
    "lxmert-gqa-hf": ("lxmert", "lxmert.", stacked("answer_head.logit_fc", 9), {}, {"max_tokens": 20}),
    "vlbert-vqa": (
        "vlbert",
        "vlbert.",
        VQA,
        {"readout": "before_end"},
        {"max_tokens": 298, "text_b": "[MASK]"},
    ),
    "vlbert-vcr": ("vlbert", "vlbert.", linear("final_mlp.1", 1), {}, {"clip_boxes": [600, 1200]}),
    "ernievil": ("ernievil", "", {}, {}, {"max_tokens": 300}),
    "vilbert": ("vilbert", "bert.", linear("vil_logit", 1, inputs=DIM), {}, {"max_tokens": 128}),
}


@pytest.mark.parametrize("case", CASES)
def test_settings_follow_from_what_the_file_is(tmp_path, case):
    name, prefix, head, options, expected = CASES[case]
    model = getattr(models, f"{name}_tiny")(**SIZES, **options)
    family = FAMILY[name]
    named = {
        family.backbone.original(key, prefix=prefix, head_prefix="", head=False): one
        for key, one in restore(model.state_dict(), family.table).items()
    }
    torch.save(named | head, tmp_path / "w.pth")
    asked = STREAMS if name in ("ernievil", "vilbert") else {"heads": 4}
    sizes = {"feature_dim": 16, "box_dim": model.regions.box_dim} if name == "vlbert" else {}
    sizes |= {"feature_dim": 16, "box_numbers": model.regions.box_numbers} if name == "oscar" else {}
    report = inspect_checkpoint(tmp_path / "w.pth", overrides={"model": asked | sizes})
    assert report.family == name, report.reason
    assert (report.head is not None) == bool(head.keys() - COUNTER.keys()), report
    for setting, value in expected.items():
        found, why = report.settings.get(f"processor.{setting}", (None, ""))
        assert found == value
        assert why.partition(":")[0] in (
            "the file",
            "the original",
            "default",
            "assumed",
            "",
            "assumed to be VQA",
        )
    if case.endswith("vqa") and name in ("visualbert", "vlbert"):
        assert report.settings["model.readout"][0] == "before_end"


def test_the_classes_of_published_memes_are_those_of_the_data_set():
    assert MEMES.labels == hateful_memes.LABELS
