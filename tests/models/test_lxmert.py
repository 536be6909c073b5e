from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from diptych.models import lxmert_tiny
from diptych.nn import ClassifierHead, capture_attention
from diptych.types import Inputs, PaddedRegions, PaddedText


def rows(count=3, tokens=5, regions=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(1, 99, (count, tokens), generator=generator)
    low = torch.rand(count, regions, 2, generator=generator) / 2
    high = low + torch.rand(count, regions, 2, generator=generator) / 2
    return Inputs(
        text=PaddedText(ids=ids, mask=torch.ones_like(ids).bool(), segments=torch.zeros_like(ids)),
        regions=PaddedRegions(
            features=torch.randn(count, regions, 64, generator=generator),
            boxes=torch.cat([low, high], -1),
            mask=torch.ones(count, regions, dtype=torch.bool),
            image_index=torch.zeros(count, regions, dtype=torch.int64),
            sizes=torch.ones(count, 2),
        ),
    )


@pytest.fixture
def model():
    torch.manual_seed(0)
    return lxmert_tiny().eval()


def test_region_embedding_is_the_formula(model):
    regions, part = rows().regions, model.regions
    feature, box = part.feature_norm(part.feature(regions.features)), part.box_norm(part.box(regions.boxes))
    torch.testing.assert_close(part(regions), (feature + box) / 2)


def test_hidden_regions_have_zeros_for_features_and_keep_their_boxes(model):
    regions = rows().regions
    hidden = torch.zeros(3, 4, dtype=torch.bool)
    hidden[:, 1] = True
    features = regions.features.clone()
    features[:, 1] = 0
    expected = model.regions(replace(regions, features=features))
    assert torch.equal(model.regions(replace(regions, hidden=hidden)), expected)


def test_without_region_states_the_rest_is_the_same(model):
    lean = lxmert_tiny(region_states=False).eval()
    lean.load_state_dict(model.state_dict())
    one, other = model(rows()), lean(rows())
    assert torch.equal(other.pooled, one.pooled)
    assert torch.equal(other.text, one.text)
    assert (lean.region_dim, other.regions) == (0, None)
    with capture_attention(lean) as maps:
        lean(rows())
    assert "cross_layers.0.regions.attention" in maps
    assert "cross_layers.1.regions.attention" not in maps


def test_first_rows_of_the_text_tables_are_never_trained(model):
    inputs = rows()
    inputs.text.ids[:, 2] = 0
    model(inputs).pooled.square().sum().backward()
    for table in (model.text.words, model.text.positions, model.text.segments):
        assert not table.weight.grad[0].any()
    assert model.text.positions.weight.grad[1].any()


def test_rows_without_any_region_have_gradients(model):
    inputs = rows()
    inputs.regions.mask[1] = False
    model(inputs).pooled.square().sum().backward()
    assert all(one.grad.isfinite().all() for one in model.parameters() if one.grad is not None)


def test_text_attention_of_every_layer_is_captured(model):
    with capture_attention(model) as maps:
        model(rows())
    assert maps["text_encoder.layers.0.attention"].shape == (3, 4, 5, 5)
    assert maps["region_encoder.layers.0.attention"].shape == (3, 4, 4, 4)
    assert maps["cross_layers.1.attention"].shape == (3, 4, 5, 4)


def test_tiny_learns_what_only_both_modalities_tell():
    """One of 8 words and one of 8 pictures, of two families each: the label is whether the families agree."""
    torch.manual_seed(0)
    kinds = torch.randn(8, 64)

    def memes(count):
        inputs = rows(count, 5, 2, seed=count)
        text, image = torch.randint(8, (2, count))
        inputs.text.ids[:, 3] = 100 + text
        inputs.regions.features.mul_(0.5)[:, 0] += kinds[image]
        return inputs, ((text < 4) == (image < 4)).long()

    model, head = lxmert_tiny(region_states=False), ClassifierHead(48, 2)
    (train, labels), (test, answers) = memes(1024), memes(256)
    optimizer = torch.optim.AdamW([*model.parameters(), *head.parameters()], lr=1e-3)
    for _ in range(8):
        for index in torch.randperm(1024).split(32):
            batch = train.map(lambda tensor, index=index: tensor[index])
            optimizer.zero_grad()
            F.cross_entropy(head(model(batch).pooled), labels[index]).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
    model.eval()
    assert (head(model(test).pooled).argmax(1) == answers).float().mean() > 0.95


def test_attended_padding_is_seen(model):
    inputs = rows()
    padded = replace(inputs.regions, mask=inputs.regions.mask & (torch.arange(4) < 3))
    longer = replace(inputs, regions=padded)
    masked, everything = model(longer).pooled, model(inputs).pooled
    assert not torch.allclose(masked, everything, atol=1e-4)
    model.attend_padding = True
    torch.testing.assert_close(model(longer).pooled, everything)
