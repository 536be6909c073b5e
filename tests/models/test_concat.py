import warnings
from dataclasses import replace

import pytest
import torch
from torch import nn

from diptych import models
from diptych.convert.bert import fill_bert
from diptych.errors import ConfigError
from diptych.models.concat import BertTower, Concat, ImageTower, VectorTower
from diptych.nn import resnet_tiny
from diptych.types import Inputs, PaddedText


def text(lengths=(6, 3), vocab_size=100):
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(1, vocab_size, (len(lengths), max(lengths)), generator=generator)
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    return PaddedText(ids=ids * mask, mask=mask, segments=torch.zeros_like(ids))


def test_the_language_model_is_bert():
    """The same weights give the numbers of transformers' BertModel, segments and padding included."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from transformers import BertConfig, BertModel

        torch.manual_seed(0)
        config = BertConfig(
            vocab_size=100, hidden_size=48, num_hidden_layers=3, num_attention_heads=4, intermediate_size=96
        )
        peer = BertModel(config).eval()
    for weight in peer.parameters():
        nn.init.normal_(weight, 0, 0.2)
    tower = BertTower(8, vocab_size=100, width=48, heads=4, hidden=96, layers=3).eval()
    fill_bert(tower, peer.state_dict(), where="peer")
    given = text()
    given = replace(given, segments=(torch.arange(6) > 2).long().expand(2, 6))
    states = tower.encoder(tower.text(given), given.mask)
    expected = peer(given.ids, attention_mask=given.mask.long(), token_type_ids=given.segments)
    torch.testing.assert_close(
        states[given.mask], expected.last_hidden_state[given.mask], atol=2e-5, rtol=1e-4
    )
    torch.testing.assert_close(tower.pool(states), expected.pooler_output, atol=2e-5, rtol=1e-4)


def test_text_comes_first_into_the_fusion():
    torch.manual_seed(0)
    model = Concat(VectorTower(5, 3), ImageTower(resnet_tiny(), 4), dim=6, dropout=0.0).eval()
    inputs = Inputs(vectors=torch.randn(2, 5), pixels=torch.randn(2, 3, 40, 40))
    both = torch.cat([model.text(inputs), model.image(inputs)], 1)
    assert both.shape == (2, 7)
    torch.testing.assert_close(model(inputs).pooled, model.fuse(both).relu())


def test_an_only_tower_is_passed_on():
    inputs = Inputs(vectors=torch.randn(2, 5), pixels=torch.randn(2, 3, 40, 40), text=text())
    for name, needs in (("text_bert_tiny", "text"), ("image_resnet_tiny", "pixels")):
        model = getattr(models, name)().eval()
        assert model.needs == {needs}
        assert model.fuse is None
        tower = model.text if model.text is not None else model.image
        torch.testing.assert_close(model(inputs).pooled, tower(inputs))


def test_nothing_at_all_is_refused():
    with pytest.raises(ConfigError, match="Concat"):
        Concat(None, None)


def dropouts(model):
    towers = {"text": model.text, "image": model.image, "fusion": model if model.fuse is not None else None}
    return {name: part.dropout.p for name, part in towers.items() if part is not None}


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("concat_fasttext", {}, {"text": 0.0, "image": 0.0, "fusion": 0.1}),
        ("concat_bert", {"dropout": 0.25}, {"text": 0.1, "image": 0.1, "fusion": 0.25}),
        ("text_fasttext", {}, {"text": 0.1}),
        ("text_bert", {"dropout": 0.3}, {"text": 0.3}),
        ("image_resnet", {}, {"image": 0.1}),
        ("concat_fasttext_tiny", {}, {"text": 0.0, "image": 0.0, "fusion": 0.1}),
        ("concat_bert_tiny", {}, {"text": 0.1, "image": 0.1, "fusion": 0.1}),
    ],
)
def test_dropout_is_where_the_originals_have_it(name, options, expected):
    with torch.device("meta"):
        assert dropouts(getattr(models, name)(**options)) == expected


def test_published_widths():
    with torch.device("meta"):
        drivendata, nav13n = models.concat_fasttext(), models.concat_bert()
    assert drivendata.text.project.weight.shape == (300, 150)
    assert drivendata.image.project.weight.shape == (300, 2048)
    assert drivendata.fuse.weight.shape == (256, 600)
    assert nav13n.text.project.weight.shape == (128, 768)
    assert nav13n.image.project.weight.shape == (128, 1000)
    assert nav13n.fuse.weight.shape == (128, 256)
    assert (drivendata.dim, nav13n.dim) == (256, 128)


def test_padding_of_the_text_counts_only_on_request():
    torch.manual_seed(0)
    model = models.text_bert_tiny().eval()
    given = text()
    short = given.map(lambda tensor: tensor[1:, :3])
    torch.testing.assert_close(model(Inputs(text=given)).pooled[1:], model(Inputs(text=short)).pooled)
    quirk = models.text_bert_tiny(attend_padding=True).eval()
    quirk.load_state_dict(model.state_dict())
    full = replace(given, mask=torch.ones_like(given.mask))
    assert torch.equal(quirk(Inputs(text=given)).pooled, model(Inputs(text=full)).pooled)
    assert not torch.allclose(quirk(Inputs(text=given)).pooled[1:], quirk(Inputs(text=short)).pooled)


def test_frozen_batch_norm_reaches_the_tower():
    model = models.concat_fasttext_tiny(freeze_batch_norm=True).train()
    assert not model.image.resnet.bn1.training
    assert not model.image.resnet.bn1.weight.requires_grad


def test_the_mean_of_a_text_leaves_padding_out():
    torch.manual_seed(0)
    tower = BertTower(8, vocab_size=100, width=16, heads=2, hidden=32, layers=2, mean=True).eval()
    both, short = Inputs(text=text((6, 3))), text((6, 3))
    alone = PaddedText(ids=short.ids[1:, :3], mask=short.mask[1:, :3], segments=short.segments[1:, :3])
    torch.testing.assert_close(tower.encode(both)[1:], tower.encode(Inputs(text=alone)))
    states = tower.encoder(tower.text(alone), alone.mask)
    torch.testing.assert_close(tower.encode(Inputs(text=alone)), states.mean(1))


def test_frozen_towers_stay_as_they_are():
    """Their networks have no gradients, dropout or new statistics; what follows them is trained."""
    torch.manual_seed(0)
    image = ImageTower(resnet_tiny(), 4)
    model = Concat(VectorTower(5, 3), image, dim=6, frozen=["image"]).train()
    inputs = Inputs(vectors=torch.randn(2, 5), pixels=torch.randn(2, 3, 40, 40))
    before = {name: one.clone() for name, one in image.resnet.state_dict().items()}
    model(inputs).pooled.sum().backward()
    assert all(one.grad is None for one in image.resnet.parameters())
    assert image.project.weight.grad is not None
    assert all(torch.equal(before[name], one) for name, one in image.resnet.state_dict().items())
    assert model.dropout.training


def test_a_tower_that_is_not_there_cannot_be_frozen():
    with pytest.raises(ConfigError, match=r"text.*image"):
        Concat(None, ImageTower(resnet_tiny(), 4), frozen=["text"])


def test_the_sides_alone():
    """The vectors before the projections, of one side without the input of the other."""
    torch.manual_seed(0)
    model = Concat(VectorTower(5, 3), ImageTower(resnet_tiny(), 4)).eval()
    inputs = Inputs(vectors=torch.randn(2, 5), pixels=torch.randn(2, 3, 40, 40))
    whole = model(inputs)
    assert model.tower_dims == (whole.tower_image.shape[1], 5)
    seen = model(replace(inputs, vectors=None), reads=frozenset({"tower_image"}))
    torch.testing.assert_close(seen.tower_image, whole.tower_image)
    assert seen.pooled is None
    assert seen.tower_text is None
