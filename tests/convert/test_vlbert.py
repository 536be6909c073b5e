import pytest
import torch

from diptych.convert import load_mmbert, load_model
from diptych.convert.rules import restore
from diptych.convert.vlbert import VLBERT
from diptych.errors import CheckpointMismatch
from diptych.models import vlbert_base, vlbert_tiny

OWN_NAMES = {
    "vlbert.word_embeddings.weight": (30522, 768),
    "vlbert.position_embeddings.weight": (512, 768),
    "vlbert.token_type_embeddings.weight": (3, 768),
    "vlbert.end_embedding.weight": (1, 768),
    "image_feature_extractor.obj_downsample.1.weight": (768, 4096),
    "image_feature_extractor.obj_downsample.1.bias": (768,),
    "object_linguistic_embeddings.weight": (1, 768),
    "object_mask_visual_embedding.weight": (1, 2048),
    "object_mask_word_embedding.weight": (1, 768),
    "aux_text_visual_embedding.weight": (1, 768),
    **{
        f"vlbert.{norm}.{part}": (768,)
        for norm in ("embedding_LayerNorm", "visual_ln_text", "visual_ln_object")
        for part in ("weight", "bias")
    },
}


@pytest.fixture
def published():
    """What a file of pre-training holds, less its pooler, and with some of its heads and image network."""
    torch.manual_seed(3)
    weights = restore(vlbert_tiny().state_dict(), VLBERT)
    own = {name: one for name, one in weights.items() if not name.startswith("vlbert.pooler.")}
    heads = {
        "vlbert.mlm_head.predictions.bias": torch.ones(1000),
        "vlbert.relationsip_head.caption_image_relationship.bias": torch.ones(2),
        "image_feature_extractor.backbone.conv1.weight": torch.ones(1),
    }
    return own, heads


def save(path, weights, prefix=""):
    torch.save({"state_dict": {prefix + name: one for name, one in weights.items()}}, path)
    return path


def test_the_names_of_the_published_file():
    with torch.device("meta"):
        names = restore(vlbert_base().state_dict(), VLBERT)
    shapes = {name: tuple(one.shape) for name, one in names.items()}
    assert shapes.items() >= OWN_NAMES.items()
    assert shapes["vlbert.encoder.layer.11.output.dense.weight"] == (768, 3072)
    assert len(shapes) == len(OWN_NAMES) + 12 * 16 + 2


@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_published_file_fills_all_but_the_pooler(tmp_path, published, prefix):
    own, heads = published
    model = vlbert_tiny()
    pooler = model.pool.dense.weight.clone()
    assert load_model(model, save(tmp_path / "vl.model", own | heads, prefix)).keys() == heads.keys()
    again = restore(model.state_dict(), VLBERT)
    assert all(torch.equal(again[name], one) for name, one in own.items())
    assert torch.equal(model.pool.dense.weight, pooler)


def test_the_name_of_the_choice_task_goes_around(tmp_path, published):
    renamed = {name.replace("vlbert.", "vlbert._module."): one for name, one in published[0].items()}
    model = vlbert_tiny()
    assert not load_model(model, save(tmp_path / "vcr.model", renamed))
    assert torch.equal(model.embedding.end[None], published[0]["vlbert.end_embedding.weight"])


def test_what_the_model_does_not_have_is_handed_back_or_left_out(tmp_path):
    path = save(tmp_path / "task.model", restore(vlbert_tiny().state_dict(), VLBERT))
    model = vlbert_tiny(readout="before_end", learned_blank=False)
    assert load_model(model, path).keys() == {"vlbert.pooler.dense.weight", "vlbert.pooler.dense.bias"}


def test_a_bert_fills_what_speaks(tmp_path, bert_weights):
    torch.manual_seed(0)
    model = vlbert_tiny()
    before = {name: one.clone() for name, one in model.state_dict().items()}
    head = {"cls.predictions.bias": torch.ones(1000)}
    named = {f"bert.{name}": one for name, one in bert_weights.items()}
    torch.save(named | head, tmp_path / "bert.bin")
    assert load_model(model, tmp_path / "bert.bin").keys() == head.keys()
    segments = model.embedding.segments.weight
    assert torch.equal(segments[:2], bert_weights["embeddings.token_type_embeddings.weight"])
    assert torch.equal(segments[2], before["embedding.segments.weight"][2])
    assert torch.equal(model.embedding.words.weight, bert_weights["embeddings.word_embeddings.weight"])
    assert torch.equal(model.pool.dense.weight, bert_weights["pooler.dense.weight"])
    assert torch.equal(model.regions.project.weight, before["regions.project.weight"])


def test_mmbert_starts_from_a_bert_that_sees_as_vlbert_does(tmp_path, bert_weights, published):
    own, heads = published
    own["vlbert.word_embeddings.weight"] = torch.ones(77, 48)  # English words, which are not taken
    torch.save(bert_weights, tmp_path / "bert.bin")
    model = vlbert_tiny()
    torch.nn.init.constant_(model.regions.hidden, 5.0)
    path = save(tmp_path / "vl.model", own | heads)
    words = {f"cls.predictions.{name}": torch.ones(2) for name in ("bias", "transform.dense.bias")}
    named = {f"bert.{name}": one for name, one in bert_weights.items()}
    torch.save(named | words, tmp_path / "bert.bin")
    taken = load_mmbert(model, bert=tmp_path / "bert.bin", vlbert=path)
    seen = {name for name in heads if name.startswith("vlbert.mvrc_head.")}
    spoken = {f"vlbert.mlm_head.predictions.{name}" for name in ("bias", "transform.dense.bias")}
    assert taken.keys() == seen | spoken
    state = restore(model.state_dict(), VLBERT)
    seeing = [name for name in own if "encoder" not in name and "word_embeddings" not in name]
    for name in seeing:
        if name not in ("object_mask_visual_embedding.weight",) and "embedding_LayerNorm" not in name:
            assert torch.equal(state[name], own[name]), name
    assert (model.regions.hidden == 5).all()
    assert torch.equal(model.embedding.words.weight, bert_weights["embeddings.word_embeddings.weight"])
    assert torch.equal(model.embedding.norm.weight, bert_weights["embeddings.LayerNorm.weight"])
    query = bert_weights["encoder.layer.1.attention.self.query.weight"]
    assert torch.equal(model.encoder.layers[1].attention.query.weight, query)


def test_a_bert_cannot_teach_to_see(tmp_path, bert_weights):
    torch.save(bert_weights, tmp_path / "bert.bin")
    with pytest.raises(CheckpointMismatch):
        load_mmbert(vlbert_tiny(), bert=tmp_path / "bert.bin", vlbert=tmp_path / "bert.bin")


def test_other_features_are_a_mismatch(tmp_path, published):
    with pytest.raises(CheckpointMismatch, match=r"regions\.project\.weight \(48, 320\).*\(48, 288\)"):
        load_model(vlbert_tiny(feature_dim=32), save(tmp_path / "vl.model", published[0]))
