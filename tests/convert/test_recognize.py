"""Files are known by what is in them."""

import pytest
import torch

from diptych.convert import FAMILIES, choose_head, dropped, recognize, restore
from diptych.errors import CheckpointMismatch, ConfigError
from diptych.models import lxmert_tiny, oscar_tiny, uniter_tiny, vilbert_tiny, visualbert_tiny

BY_NAME = {family.name: family for family in FAMILIES}
MODELS = {
    "lxmert": lxmert_tiny,
    "oscar": oscar_tiny,
    "uniter": uniter_tiny,
    "vilbert": vilbert_tiny,
    "visualbert": visualbert_tiny,
}
SIZES = {"vocab_size": 40, "max_positions": 16, "feature_dim": 16}


def original(name, prefix="bert.", **sizes):
    weights = restore(MODELS[name](**SIZES, **sizes).state_dict(), BY_NAME[name].table)
    return {prefix + key: one for key, one in weights.items()}


@pytest.mark.parametrize("prefix", ["", "bert.", "_orig_mod.a.b."])
@pytest.mark.parametrize("name", MODELS)
def test_a_family_is_known_whatever_the_prefix(name, prefix):
    found = recognize(original(name, prefix), FAMILIES, where="x", asked=None)
    assert (found.family.name, found.split.prefix) == (name, prefix)
    assert found.sizes["vocab_size"] == 40
    assert found.sizes["feature_dim"] == 16


def test_bert_is_what_has_bert_and_nothing_else(bert_weights):
    assert recognize(bert_weights, FAMILIES, where="x", asked=None).family.name == "bert"


def test_sizes_are_read_off_shapes():
    found = recognize(original("lxmert"), FAMILIES, where="x", asked=None)
    assert found.sizes == {
        **{"vocab_size": 40, "dim": 48, "heads": None, "hidden": 192, "max_positions": 16, "segments": 2},
        **{"layers": 1, "region_layers": 1, "cross_layers": 2, "feature_dim": 16},
    }
    streams = recognize(original("vilbert"), FAMILIES, where="x", asked=None).sizes
    assert streams["vision"]["hidden"] == 96
    assert streams["meetings"] == [[0, 0], [1, 1]]
    assert streams["box_area"]


@pytest.mark.parametrize(("numbers", "norm"), [(4, False), (6, False), (6, True)])
def test_oscar_shows_its_boxes_and_its_norm(numbers, norm):
    weights = original("oscar", box_numbers=numbers, region_norm=norm)
    sizes = recognize(weights, FAMILIES, where="x", asked=None).sizes
    assert (sizes["feature_dim"], sizes["box_numbers"], sizes["region_norm"]) == (16, numbers, norm)


@pytest.mark.parametrize(("prefix", "segment"), [("bert.bert.", 0), ("model.bert.", 0), ("model.", 1)])
def test_vilio_shows_regions_as_a_second_segment(prefix, segment):
    sizes = recognize(original("visualbert", prefix), FAMILIES, where="x", asked=None).sizes
    assert sizes["region_segment"] == segment


def test_another_family_than_asked_is_refused():
    with pytest.raises(CheckpointMismatch, match=r"^x: .*UNITER .*img_linear.* lxmert\b"):
        recognize(original("uniter"), FAMILIES, where="x", asked="lxmert")
    with pytest.raises(ConfigError, match=r"'unitr'.* 'uniter'\?"):
        recognize(original("uniter"), FAMILIES, where="x", asked="unitr")


def test_what_fits_no_family_is_named_with_the_closest():
    weights = original("uniter")
    del weights["bert.encoder.layer.0.attention.self.query.weight"]
    with pytest.raises(CheckpointMismatch, match=r"^x: .*\b\d+ tensors.*uniter\b.*encoder\.layer\.0"):
        recognize(weights, FAMILIES, where="x", asked=None)
    with pytest.raises(CheckpointMismatch, match=r"^x: .*conv1\.weight"):
        recognize({"conv1.weight": torch.ones(1)}, FAMILIES, where="x", asked=None)


def test_what_fits_two_families_is_refused():
    weights = original("uniter") | original("oscar")
    with pytest.raises(CheckpointMismatch, match="oscar and uniter"):
        recognize(weights, FAMILIES, where="x", asked=None)


def test_a_file_without_a_size_says_which_name_is_missing():
    weights = original("uniter")
    del weights["bert.embeddings.position_embeddings.weight"]
    with pytest.raises(CheckpointMismatch, match=r"embeddings\.position_embeddings\.weight"):
        recognize(weights, FAMILIES, where="x", asked=None)


def linear(name, inputs, outputs):
    return {f"{name}.weight": torch.zeros(outputs, inputs), f"{name}.bias": torch.zeros(outputs)}


def stacked(name, inputs, outputs, *, numbers=(0, 3)):
    first, last = numbers
    return {
        **linear(f"{name}.{first}", inputs, 96),
        **({f"{name}.2.weight": torch.ones(96), f"{name}.2.bias": torch.zeros(96)} if last == 3 else {}),
        **linear(f"{name}.{last}", 96, outputs),
    }


@pytest.mark.parametrize(
    ("family", "weights", "task", "expected"),
    [
        ("uniter", linear("linear", 48, 2), "Classify", {"pairs": 1, "classes": 2}),
        ("uniter", linear("nlvr2_output", 96, 2), "Classify", {"pairs": 2, "classes": 2}),
        ("uniter", stacked("vqa_output", 48, 17), "Answer", {"layers": 2, "classes": 17}),
        ("uniter", stacked("vcr_output", 48, 2), "Choose", {"activation": "relu", "loss": "two_way"}),
        ("uniter", linear("re_output", 48, 1), "Ground", {"layers": 1}),
        ("uniter", linear("rank_output", 48, 1), "Match", {"loss": "margin"}),
        ("uniter", linear("itm_output", 48, 2), "Match", {"matches": 1}),
        ("oscar", stacked("classifier", 96, 2, numbers=(0, 2)), "Classify", {"pairs": 2, "norm": False}),
        ("oscar", linear("cls.seq_relationship", 48, 2), "Match", {"matches": 0}),
        ("lxmert", stacked("logit_fc", 48, 9), "Answer", {"activation": "gelu", "norm": True}),
        ("visualbert", linear("classifier", 48, 1), "Choose", {"loss": "ce"}),
        ("vilbert", linear("vision_logit", 48, 1), "Ground", {"layers": 1}),
    ],
)
def test_heads_become_tasks(family, weights, task, expected):
    found = recognize(original(family) | weights, FAMILIES, where="x", asked=None)
    head, node, classes = choose_head(found, 48, asked=None, where="x")
    assert head.name == next(iter(weights)).removesuffix(".weight").removesuffix(".0")
    assert node["_target_"] == f"diptych.tasks.{task}"
    assert expected.items() <= (node | node["head"] | {"classes": classes}).items()


def test_heads_of_pre_training_become_objectives():
    names = (
        "cls.predictions.transform.dense.bias",
        "itm_output.bias",
        "feat_regress.bias",
        "region_classifier.net.3.bias",
    )
    weights = original("uniter") | {name: torch.zeros(7) for name in names}
    found = recognize(weights, FAMILIES, where="x", asked=None)
    head, node, _ = choose_head(found, 48, asked=None, where="x")
    assert head.name == "pre-training"
    assert list(node["objectives"]) == ["matching", "alignment", "words", "features", "classes"]
    assert node["objectives"]["classes"]["predict"]["classes"]["classes"] == 7
    assert node["draw"]["words"] == 8
    del weights["feat_regress.bias"]
    found = recognize(weights, FAMILIES, where="x", asked=None)
    _, node, _ = choose_head(found, 48, asked=None, where="x")
    assert "features" not in node["objectives"]
    assert "draw" not in node


def test_of_several_heads_one_is_chosen_and_the_others_are_left_out():
    weights = original("uniter") | linear("nlvr2_output", 96, 2) | stacked("vqa_output", 48, 17)
    found = recognize(weights, FAMILIES, where="x", asked=None)
    head, _, _ = choose_head(found, 48, asked="vqa_output", where="x")
    left = dropped(found, head, targets=uniter_tiny(**SIZES).state_dict(), where="x")
    assert left == {
        "nlvr2_output: another head than the converted one": ["nlvr2_output.weight", "nlvr2_output.bias"]
    }
    with pytest.raises(ConfigError, match=r"'itm_output'.*nlvr2_output, vqa_output"):
        choose_head(found, 48, asked="itm_output", where="x")


def test_names_that_nobody_knows_are_an_error():
    found = recognize(original("uniter") | linear("mystery", 1, 1), FAMILIES, where="x", asked=None)
    with pytest.raises(CheckpointMismatch, match=r"\b52 name.*UNITER .*mystery\.weight"):
        dropped(found, None, targets=(), where="x")
