import pytest
import torch

from diptych.convert import load_model
from diptych.convert.rules import restore
from diptych.convert.vilbert import VILBERT
from diptych.errors import CheckpointMismatch
from diptych.models import vilbert_base, vilbert_tiny

REGION_NAMES = {
    "v_embeddings.image_embeddings.weight": (1024, 2048),
    "v_embeddings.image_embeddings.bias": (1024,),
    "v_embeddings.image_location_embeddings.weight": (1024, 5),
    "v_embeddings.image_location_embeddings.bias": (1024,),
    "v_embeddings.LayerNorm.weight": (1024,),
    "v_embeddings.LayerNorm.bias": (1024,),
}
MEETING_NAMES = {
    "biattention.query1.weight": (1024, 1024),
    "biattention.key1.weight": (1024, 1024),
    "biattention.value1.weight": (1024, 1024),
    "biattention.query2.weight": (1024, 768),
    "biattention.key2.weight": (1024, 768),
    "biattention.value2.weight": (1024, 768),
    "biOutput.dense1.weight": (1024, 1024),
    "biOutput.LayerNorm1.weight": (1024,),
    "biOutput.dense2.weight": (768, 1024),
    "biOutput.LayerNorm2.weight": (768,),
    "v_intermediate.dense.weight": (1024, 1024),
    "v_output.dense.weight": (1024, 1024),
    "v_output.LayerNorm.weight": (1024,),
    "t_intermediate.dense.weight": (3072, 768),
    "t_output.dense.weight": (768, 3072),
    "t_output.LayerNorm.weight": (768,),
}


def original(model, prefix="bert."):
    return {prefix + name: one for name, one in restore(model.state_dict(), VILBERT).items()}


def equal(one, other):
    return all(torch.equal(weight, other.state_dict()[name]) for name, weight in one.state_dict().items())


def test_the_names_of_the_published_file():
    """Section by section what the pre-trained files hold below `bert.`."""
    with torch.device("meta"):
        names = restore(vilbert_base().state_dict(), VILBERT)
    shapes = {name: tuple(one.shape) for name, one in names.items()}
    assert shapes.items() >= REGION_NAMES.items()
    for number in range(6):
        found = {name: shapes[f"encoder.c_layer.{number}.{name}"] for name in MEETING_NAMES}
        assert found == MEETING_NAMES
    assert shapes["embeddings.word_embeddings.weight"] == (30522, 768)
    assert shapes["encoder.layer.11.intermediate.dense.weight"] == (3072, 768)
    assert shapes["encoder.v_layer.5.attention.self.query.weight"] == (1024, 1024)
    assert shapes["t_pooler.dense.weight"] == (1024, 768)
    assert shapes["v_pooler.dense.weight"] == (1024, 1024)
    assert len(shapes) == 5 + len(REGION_NAMES) + 18 * 16 + 6 * 2 * len(MEETING_NAMES) + 4 == 495


@pytest.mark.parametrize("prefix", ["bert.", "module.bert.", "model.bert.", "module.model.bert.", ""])
def test_every_prefix_goes_around(tmp_path, prefix):
    torch.manual_seed(0)
    model, other = vilbert_tiny(), vilbert_tiny()
    heads = {} if prefix == "" else {"classifier.weight": torch.ones(2)}
    torch.save(original(model, prefix) | heads, tmp_path / "vilbert.bin")
    assert load_model(other, tmp_path / "vilbert.bin").keys() == heads.keys()
    assert equal(model, other)


def test_names_of_old_archives_and_dead_weights(tmp_path):
    model, other = vilbert_tiny(), vilbert_tiny()
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): one
        for name, one in original(model).items()
    }
    old |= {f"bert.encoder.c_layer.1.biOutput.q_dense{n}.bias": torch.ones(48) for n in (1, 2)}
    torch.save(old, tmp_path / "vilbert.bin")
    assert load_model(other, tmp_path / "vilbert.bin") == {}
    assert equal(model, other)


def test_task_tokens_are_taken_dropped_or_new(tmp_path):
    torch.manual_seed(0)
    twelve = vilbert_tiny(tasks=20)
    torch.save(original(twelve), tmp_path / "twelve.bin")
    torch.save(original(vilbert_tiny()), tmp_path / "pretrained.bin")
    other, without, fresh = vilbert_tiny(tasks=20), vilbert_tiny(), vilbert_tiny(tasks=20)
    load_model(other, tmp_path / "twelve.bin")
    load_model(without, tmp_path / "twelve.bin")
    assert equal(twelve, other)
    assert equal(without, twelve)
    before = fresh.tasks.weight.clone()
    load_model(fresh, tmp_path / "pretrained.bin")
    assert torch.equal(fresh.tasks.weight, before)


def test_without_area_the_fifth_column_goes(tmp_path):
    """Vilio's own files have four columns, the files that it started from have five."""
    torch.manual_seed(0)
    model, cut, again = vilbert_tiny(), vilbert_tiny(box_area=False), vilbert_tiny(box_area=False)
    torch.save(original(model), tmp_path / "five.bin")
    load_model(cut, tmp_path / "five.bin")
    assert torch.equal(cut.regions.box.weight, model.regions.box.weight[:, :4])
    torch.save(original(cut, "model.bert."), tmp_path / "LASTtrain.pth")
    load_model(again, tmp_path / "LASTtrain.pth")
    assert equal(cut, again)
    with pytest.raises(CheckpointMismatch, match=r"regions\.box\.weight \(48, 4\).*\(48, 5\)"):
        load_model(vilbert_tiny(), tmp_path / "LASTtrain.pth")


def test_other_features_are_a_mismatch(tmp_path):
    torch.save(original(vilbert_tiny()), tmp_path / "vilbert.bin")
    with pytest.raises(CheckpointMismatch, match=r"regions\.feature\.weight \(48, 64\).*\(48, 32\)"):
        load_model(vilbert_tiny(feature_dim=32), tmp_path / "vilbert.bin")
