from dataclasses import replace

import pytest
import torch
from torch import nn

from diptych.errors import ConfigError
from diptych.models import uniter_tiny
from diptych.nn import capture_attention


@pytest.fixture
def model():
    torch.manual_seed(0)
    return uniter_tiny(segments=3).eval()


def with_regions(inputs, **changes):
    return replace(inputs, regions=replace(inputs.regions, **changes))


def test_region_embedding_is_the_formula(model, rows):
    inputs = rows()
    regions, part = inputs.regions, model.regions
    x1, y1, x2, y2 = regions.boxes.unbind(-1)
    seven = torch.stack([x1, y1, x2, y2, x2 - x1, y2 - y1, (x2 - x1) * (y2 - y1)], -1)
    segment = model.text.segments.weight[1]
    feature, box = part.feature_norm(part.feature(regions.features)), part.box_norm(part.box(seven))
    torch.testing.assert_close(part(regions, segment.expand(3, 4, -1)), part.norm(feature + box + segment))


def test_hidden_regions_show_nothing_of_their_features(model, rows):
    inputs = rows()
    nn.init.normal_(model.regions.hidden)
    hidden = torch.zeros(3, 4, dtype=torch.bool)
    hidden[:, 1] = True
    other = inputs.regions.features.clone()
    other[:, 1] = 7.0
    one = model(with_regions(inputs, hidden=hidden)).pooled
    assert torch.equal(model(with_regions(inputs, hidden=hidden, features=other)).pooled, one)
    assert not torch.equal(model(inputs).pooled, one)
    assert torch.equal(
        model(with_regions(inputs, hidden=torch.zeros_like(hidden))).pooled, model(inputs).pooled
    )
    model(with_regions(inputs, hidden=hidden)).pooled.sum().backward()
    assert model.regions.hidden.grad.any()


def test_the_second_image_has_its_own_segment(model, rows):
    inputs = rows()
    two = with_regions(inputs, image_index=torch.tensor([[0, 0, 1, 1]]).expand(3, 4))
    assert not torch.allclose(model(two).pooled, model(inputs).pooled)
    with torch.no_grad():
        model.text.segments.weight[2] = model.text.segments.weight[1]
    torch.testing.assert_close(model(two).pooled, model(inputs).pooled)


def test_padded_regions_count_only_on_request(model, rows):
    inputs = rows()
    mask = inputs.regions.mask.clone()
    mask[:, 2:] = False
    padded = with_regions(inputs, mask=mask)
    full = model(inputs).pooled
    assert not torch.allclose(model(padded).pooled, full)
    model.attend_padding = True
    assert torch.equal(model(padded).pooled, full)


def test_attention_is_captured_by_name(model, rows):
    inputs = rows()
    with capture_attention(model) as maps:
        model(inputs)
    assert list(maps) == ["encoder.layers.0.attention", "encoder.layers.1.attention"]
    assert maps["encoder.layers.1.attention"].shape == (3, 4, 9, 9)


def test_width_and_heads_must_agree():
    with pytest.raises(ConfigError, match=r"\(=48\).*heads \(=5\)"):
        uniter_tiny(heads=5)
