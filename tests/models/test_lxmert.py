from dataclasses import replace

import pytest
import torch

from diptych.models import lxmert_tiny
from diptych.nn import capture_attention


@pytest.fixture
def model():
    torch.manual_seed(0)
    return lxmert_tiny().eval()


def test_region_embedding_is_the_formula(model, rows):
    regions, part = rows().regions, model.regions
    feature, box = part.feature_norm(part.feature(regions.features)), part.box_norm(part.box(regions.boxes))
    torch.testing.assert_close(part(regions), (feature + box) / 2)


def test_hidden_regions_have_zeros_for_features_and_keep_their_boxes(model, rows):
    regions = rows().regions
    hidden = torch.zeros(3, 4, dtype=torch.bool)
    hidden[:, 1] = True
    features = regions.features.clone()
    features[:, 1] = 0
    expected = model.regions(replace(regions, features=features))
    assert torch.equal(model.regions(replace(regions, hidden=hidden)), expected)


def test_the_last_region_layer_runs_only_where_somebody_reads_it(model, rows):
    with capture_attention(model) as maps:
        model(rows(), reads=frozenset({"pooled"}))
    assert "cross_layers.0.regions.attention" in maps
    assert "cross_layers.1.regions.attention" not in maps
    assert maps["cross_layers.1.text.attention"].shape == (3, 4, 5, 5)


def test_first_rows_of_the_text_tables_are_never_trained(model, rows):
    inputs = rows()
    inputs.text.ids[:, 2] = 0
    model(inputs).pooled.square().sum().backward()
    for table in (model.text.words, model.text.positions, model.text.segments):
        assert not table.weight.grad[0].any()
    assert model.text.positions.weight.grad[1].any()


def test_rows_without_any_region_have_gradients(model, rows):
    inputs = rows()
    inputs.regions.mask[1] = False
    model(inputs).pooled.square().sum().backward()
    assert all(one.grad.isfinite().all() for one in model.parameters() if one.grad is not None)


def test_attention_of_every_layer_and_direction_is_captured(model, rows):
    with capture_attention(model) as maps:
        model(rows())
    assert maps["text_encoder.layers.0.attention"].shape == (3, 4, 5, 5)
    assert maps["region_encoder.layers.0.attention"].shape == (3, 4, 4, 4)
    assert maps["cross_layers.1.attention.text"].shape == (3, 4, 5, 4)
    assert maps["cross_layers.1.attention.regions"].shape == (3, 4, 4, 5)


def test_attended_padding_is_seen(model, rows):
    inputs = rows()
    padded = replace(inputs.regions, mask=inputs.regions.mask & (torch.arange(4) < 3))
    longer = replace(inputs, regions=padded)
    masked, everything = model(longer).pooled, model(inputs).pooled
    assert not torch.allclose(masked, everything, atol=1e-4)
    model.attend_padding = True
    torch.testing.assert_close(model(longer).pooled, everything)
