import pytest
import torch
from transformers import VisualBertConfig, VisualBertModel

from diptych.convert import load_model
from diptych.convert.rules import restore
from diptych.convert.visualbert import VISUALBERT
from diptych.errors import CheckpointMismatch
from diptych.models import VisualBert, visualbert_base, visualbert_tiny
from diptych.types import Inputs, PaddedRegions, PaddedText

REGION_NAMES = {
    "embeddings.projection.weight": (768, 2048),
    "embeddings.projection.bias": (768,),
    "embeddings.token_type_embeddings_visual.weight": (2, 768),
    "embeddings.position_embeddings_visual.weight": (512, 768),
}


def test_the_names_of_the_published_file():
    """What mmf's model.pth holds below `model.bert.`, and uclanlp's files below `bert.bert.`."""
    with torch.device("meta"):
        names = restore(visualbert_base().state_dict(), VISUALBERT)
    shapes = {name: tuple(one.shape) for name, one in names.items()}
    assert shapes.items() >= REGION_NAMES.items()
    assert shapes["embeddings.word_embeddings.weight"] == (30522, 768)
    assert shapes["embeddings.LayerNorm.weight"] == (768,)
    assert shapes["encoder.layer.11.output.dense.weight"] == (768, 3072)
    assert len(shapes) == 5 + len(REGION_NAMES) + 12 * 16 + 2


@pytest.mark.parametrize("prefix", ["bert.bert.", "model.bert.", "bert.", "module.model.", ""])
def test_every_prefix_goes_around(tmp_path, prefix):
    torch.manual_seed(0)
    model, other = visualbert_tiny(), visualbert_tiny()
    original = restore(model.state_dict(), VISUALBERT) | {"embeddings.position_ids": torch.arange(512)[None]}
    heads = {} if prefix == "" else {"cls.seq_relationship.bias": torch.ones(2)}
    torch.save({prefix + name: one for name, one in original.items()} | heads, tmp_path / "model.pth")
    assert load_model(other, tmp_path / "model.pth").keys() == heads.keys()
    assert all(torch.equal(one, model.state_dict()[name]) for name, one in other.state_dict().items())


def test_a_pooler_that_the_model_does_not_read_is_a_head(tmp_path):
    torch.save(restore(visualbert_tiny().state_dict(), VISUALBERT), tmp_path / "model.pth")
    heads = load_model(visualbert_tiny(readout="before_end"), tmp_path / "model.pth")
    assert heads.keys() == {"pooler.dense.weight", "pooler.dense.bias"}


def test_layer_weights_go_around_and_may_be_new(tmp_path):
    model, other = visualbert_tiny(readout="layer_average"), visualbert_tiny(readout="layer_average")
    with torch.no_grad():
        model.average.weights.copy_(torch.tensor([0.5, 1.0, -2.0]))
    original = restore(model.state_dict(), VISUALBERT)
    assert original["layer_weights"].tolist() == [0.5, 1.0, -2.0]
    torch.save(original, tmp_path / "model.pth")
    load_model(other, tmp_path / "model.pth")
    assert torch.equal(other.average.weights, model.average.weights)
    with pytest.raises(CheckpointMismatch, match=r"average\.weights"):
        load_model(visualbert_tiny(), tmp_path / "model.pth")
    torch.save(restore(visualbert_tiny().state_dict(), VISUALBERT), tmp_path / "plain.pth")
    load_model(other, tmp_path / "plain.pth")
    assert torch.equal(other.average.weights, model.average.weights)


def test_the_features_of_another_task_are_a_mismatch(tmp_path):
    torch.save(restore(visualbert_tiny().state_dict(), VISUALBERT), tmp_path / "vqa.th")
    with pytest.raises(CheckpointMismatch, match=r"regions\.feature\.weight \(48, 64\).*\(48, 32\)"):
        load_model(visualbert_tiny(feature_dim=32), tmp_path / "vqa.th")


def test_the_library_of_hugging_face_gives_the_same_numbers(tmp_path):
    torch.manual_seed(0)
    theirs = VisualBertModel(
        VisualBertConfig(
            vocab_size=90,
            hidden_size=24,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=48,
            max_position_embeddings=20,
            visual_embedding_dim=10,
            initializer_range=0.3,
        )
    ).eval()
    theirs.save_pretrained(tmp_path)
    ours = VisualBert(
        vocab_size=90,
        feature_dim=10,
        dim=24,
        heads=2,
        hidden=48,
        layers=2,
        max_positions=20,
        region_segment=1,  # their default
    ).eval()
    assert not load_model(ours, tmp_path / "model.safetensors")
    ids, features = torch.randint(1, 90, (3, 6)), torch.randn(3, 4, 10)
    text_mask = torch.arange(6) < torch.tensor([6, 3, 5])[:, None]
    region_mask = torch.arange(4) < torch.tensor([2, 4, 1])[:, None]
    alignment = torch.full((3, 4, 2), -1)
    alignment[0, 1] = torch.tensor([2, 4])
    alignment[1, 3, 0] = 1
    mentions = torch.full((3, 6), -1)
    mentions[0, 2] = mentions[0, 4] = 1
    mentions[1, 1] = 3
    expected = theirs(
        input_ids=ids,
        attention_mask=text_mask.long(),
        visual_embeds=features,
        visual_attention_mask=region_mask.long(),
        image_text_alignment=alignment,
    )
    zeros = torch.zeros_like(ids)
    got = ours(
        Inputs(
            text=PaddedText(ids=ids, mask=text_mask, segments=zeros, mentions=mentions),
            regions=PaddedRegions(
                features=features,
                boxes=torch.zeros(3, 4, 4),
                mask=region_mask,
                image_index=torch.zeros(3, 4, dtype=torch.int64),
                sizes=torch.ones(3, 2),
            ),
        )
    )
    valid = torch.cat([text_mask, region_mask], 1)
    states = torch.cat([got.text, got.regions], 1)[valid]
    torch.testing.assert_close(states, expected.last_hidden_state[valid], atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(got.pooled, expected.pooler_output, atol=2e-5, rtol=1e-4)
