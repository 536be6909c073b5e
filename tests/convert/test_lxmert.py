import pytest
import torch

from diptych.convert import load_model
from diptych.convert.lxmert import LXMERT, transfer_answers
from diptych.convert.rules import restore
from diptych.errors import CheckpointMismatch
from diptych.models import lxmert_base, lxmert_tiny
from diptych.nn import ClassifierHead
from diptych.recipe.build import load_weights
from diptych.text import normalize_answer

HEADS = {
    "cls.predictions.bias": torch.ones(1000),
    "obj_predict_head.decoder_dict.obj.bias": torch.ones(1600),
    "answer_head.logit_fc.3.bias": torch.ones(9500),
}


def released():
    """Name to shape of `model_LXRT.pth` below `module.bert.`, section by section."""
    width, hidden = 768, 3072

    def linear(name, rows, columns=width):
        return {f"{name}.weight": (rows, columns), f"{name}.bias": (rows,)}

    def norm(name):
        return {f"{name}.weight": (width,), f"{name}.bias": (width,)}

    def attend(inner, outer):
        projections = {}
        for part in ("query", "key", "value"):
            projections |= linear(f"{inner}.{part}", width)
        return projections | linear(f"{outer}.dense", width) | norm(f"{outer}.LayerNorm")

    names = {"embeddings.word_embeddings.weight": (30522, width)}
    names |= {"embeddings.position_embeddings.weight": (512, width)}
    names |= {"embeddings.token_type_embeddings.weight": (2, width)}
    names |= norm("embeddings.LayerNorm") | linear("pooler.dense", width)
    for part, columns in (("visn", 2048), ("box", 4)):
        name = f"encoder.visn_fc.{part}"
        names |= linear(f"{name}_fc", width, columns) | norm(f"{name}_layer_norm")
    for stack, count in (("layer", 9), ("r_layers", 5)):
        for number in range(count):
            one = f"encoder.{stack}.{number}"
            names |= attend(f"{one}.attention.self", f"{one}.attention.output") | norm(
                f"{one}.output.LayerNorm"
            )
            names |= linear(f"{one}.intermediate.dense", hidden) | linear(
                f"{one}.output.dense", width, hidden
            )
    for number in range(5):
        one = f"encoder.x_layers.{number}"
        names |= attend(f"{one}.visual_attention.att", f"{one}.visual_attention.output")
        for side in ("lang", "visn"):
            names |= attend(f"{one}.{side}_self_att.self", f"{one}.{side}_self_att.output")
            names |= linear(f"{one}.{side}_inter.dense", hidden) | norm(f"{one}.{side}_output.LayerNorm")
            names |= linear(f"{one}.{side}_output.dense", width, hidden)
    return names


def test_the_names_of_the_released_file():
    with torch.device("meta"):
        names = restore(lxmert_base().state_dict(), LXMERT)
    assert {name: tuple(one.shape) for name, one in names.items()} == released()
    # Of the 473 names of the released file, 24 belong to heads.
    assert len(names) == 473 - 24


@pytest.mark.parametrize(
    ("prefix", "heads"),
    [
        ("module.bert.", "module."),  # the released files
        ("bert.", ""),  # pre-trained on one GPU; Vilio's X after its own pre-training
        ("lxmert.", ""),  # Hugging Face with heads
        ("lxrt_encoder.model.bert.", ""),  # fine-tuned
        ("lxrt_encoder.model.module.bert.", ""),  # fine-tuned on several GPUs
        ("model.bert.", ""),  # Vilio's X, fine-tuned
        ("module.model.bert.", "module."),  # the same, averaged
    ],
)
def test_every_prefix_goes_around(tmp_path, prefix, heads):
    torch.manual_seed(0)
    model, other = lxmert_tiny(), lxmert_tiny()
    original = {prefix + name: one for name, one in restore(model.state_dict(), LXMERT).items()}
    original |= {heads + name: one for name, one in HEADS.items()}
    if heads:
        original["module.n_averaged"] = torch.tensor(3)
    torch.save(original, tmp_path / "lxmert.pth")
    assert load_model(other, tmp_path / "lxmert.pth").keys() == HEADS.keys()
    assert all(torch.equal(one, model.state_dict()[name]) for name, one in other.state_dict().items())


def test_old_names_of_norms_and_a_counter(tmp_path):
    torch.manual_seed(0)
    model, other = lxmert_tiny(), lxmert_tiny()
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): one
        for name, one in restore(model.state_dict(), LXMERT).items()
    }
    torch.save(old | {"embeddings.position_ids": torch.arange(512)[None]}, tmp_path / "lxmert.bin")
    assert load_model(other, tmp_path / "lxmert.bin") == {}
    assert torch.equal(other.text.words.weight, model.text.words.weight)


def test_other_depths_are_a_mismatch(tmp_path):
    torch.save(restore(lxmert_tiny(layers=2).state_dict(), LXMERT), tmp_path / "lxmert.pth")
    with pytest.raises(CheckpointMismatch, match=r"16 unused: text_encoder\.layers\.1\.attention"):
        load_model(lxmert_tiny(), tmp_path / "lxmert.pth")
    with pytest.raises(CheckpointMismatch, match=r"16 unfilled: region_encoder\.layers\.1\.attention"):
        load_model(lxmert_tiny(layers=2, region_layers=2), tmp_path / "lxmert.pth")


@pytest.mark.parametrize(
    ("answer", "expected"),
    [("A man.", "man"), ("the an hour", "an hour"), ("Two", "2"), ("two dogs", "two dogs"), ("", "")],
)
def test_normalized_answers(answer, expected):
    assert normalize_answer(answer) == expected


def test_answers_find_their_rows():
    torch.manual_seed(0)
    source, head = ClassifierHead(4, 3, layers=2), ClassifierHead(4, 2, layers=2)
    weights = {f"answer_head.logit_fc.{name[7:]}": one for name, one in source.state_dict().items()}
    unknown = transfer_answers(head, weights, learned=["cat", "1", "dog"], answers=["Platypus", "One."])
    assert unknown == ("Platypus",)
    assert torch.equal(head.layers[0].weight, source.layers[0].weight)
    assert torch.equal(head.layers[3].weight[1], source.layers[3].weight[1])
    assert not head.layers[3].weight[0].any()


@pytest.mark.parametrize(
    ("names", "learned", "answers", "message"),
    [
        ("logit_fc", 3, 2, "answer_head"),
        ("answer_head.logit_fc", 3, 1, r"\b1 answers .*\b2\b"),
        ("answer_head.logit_fc", 4, 2, r"layers\.3\.weight \(3, 8\).*\(4, 8\)"),
    ],
)
def test_answers_without_rows_are_a_mismatch(names, learned, answers, message):
    head = ClassifierHead(4, 2, layers=2)
    weights = {f"{names}.{key[7:]}": one for key, one in ClassifierHead(4, 3, layers=2).state_dict().items()}
    with pytest.raises(CheckpointMismatch, match=message):
        transfer_answers(head, weights, learned=["a"] * learned, answers=["b"] * answers)


def test_training_starts_from_a_published_file(tmp_path):
    torch.manual_seed(0)
    model, other = lxmert_tiny(), lxmert_tiny()
    torch.save(restore(model.state_dict(), LXMERT), tmp_path / "lxmert.pth")
    load_weights(other, {"model": str(tmp_path / "lxmert.pth")}, None)
    assert torch.equal(other.pool.dense.weight, model.pool.dense.weight)
