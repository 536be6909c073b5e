from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from diptych.errors import ConfigError
from diptych.models import uniter_tiny
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
    return uniter_tiny(segments=3).eval()


def with_regions(inputs, **changes):
    return replace(inputs, regions=replace(inputs.regions, **changes))


def test_region_embedding_is_the_formula(model):
    inputs = rows()
    regions, part = inputs.regions, model.regions
    x1, y1, x2, y2 = regions.boxes.unbind(-1)
    seven = torch.stack([x1, y1, x2, y2, x2 - x1, y2 - y1, (x2 - x1) * (y2 - y1)], -1)
    segment = model.text.segments.weight[1]
    feature, box = part.feature_norm(part.feature(regions.features)), part.box_norm(part.box(seven))
    torch.testing.assert_close(part(regions, segment.expand(3, 4, -1)), part.norm(feature + box + segment))


def test_hidden_regions_show_nothing_of_their_features(model):
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


def test_the_second_image_has_its_own_segment(model):
    inputs = rows()
    two = with_regions(inputs, image_index=torch.tensor([[0, 0, 1, 1]]).expand(3, 4))
    assert not torch.allclose(model(two).pooled, model(inputs).pooled)
    with torch.no_grad():
        model.text.segments.weight[2] = model.text.segments.weight[1]
    torch.testing.assert_close(model(two).pooled, model(inputs).pooled)


def test_padded_regions_count_only_on_request(model):
    inputs = rows()
    mask = inputs.regions.mask.clone()
    mask[:, 2:] = False
    padded = with_regions(inputs, mask=mask)
    full = model(inputs).pooled
    assert not torch.allclose(model(padded).pooled, full)
    model.attend_padding = True
    assert torch.equal(model(padded).pooled, full)


def test_attention_is_captured_by_name(model):
    inputs = rows()
    with capture_attention(model) as maps:
        model(inputs)
    assert list(maps) == ["encoder.layers.0.attention", "encoder.layers.1.attention"]
    assert maps["encoder.layers.1.attention"].shape == (3, 4, 9, 9)


def test_width_and_heads_must_agree():
    with pytest.raises(ConfigError, match=r"width \(=48\) must be divisible by heads \(=5\)"):
        uniter_tiny(heads=5)


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

    model, head = uniter_tiny(), ClassifierHead(48, 2)
    (train, labels), (test, answers) = memes(1024), memes(256)
    optimizer = torch.optim.AdamW([*model.parameters(), *head.parameters()], lr=2e-3)
    for _ in range(8):
        for index in torch.randperm(1024).split(32):
            batch = train.map(lambda tensor, index=index: tensor[index])
            optimizer.zero_grad()
            F.cross_entropy(head(model(batch).pooled), labels[index]).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
    model.eval()
    assert (head(model(test).pooled).argmax(1) == answers).float().mean() > 0.95
