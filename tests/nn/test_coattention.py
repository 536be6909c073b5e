import re

import pytest
import torch

from diptych.errors import ConfigError
from diptych.nn import BoxedRegions, CoEncoder, CoLayer, FeedForward, FusedPool, Sizes
from diptych.types import PaddedRegions

TEXT = Sizes(dim=12, heads=3, hidden=24, layers=3)
VISION = Sizes(dim=8, heads=2, hidden=16, layers=2)
BRIDGE = Sizes(dim=20, heads=5)


def streams(rows=2, tokens=5, regions=4):
    text, vision = torch.randn(rows, tokens, 12), torch.randn(rows, regions, 8)
    return text, torch.ones(rows, tokens).bool(), vision, torch.ones(rows, regions).bool()


def some_regions(**changes):
    generator = torch.Generator().manual_seed(0)
    parts = {
        "features": torch.randn(2, 4, 6, generator=generator),
        "boxes": torch.rand(2, 4, 4, generator=generator),
        "mask": torch.tensor([[1, 1, 1, 0], [1, 1, 0, 0]]).bool(),
        "image_index": torch.zeros(2, 4, dtype=torch.int64),
        "sizes": torch.ones(2, 2),
    }
    return PaddedRegions(**{**parts, **changes})


def test_both_streams_look_at_what_the_other_was_before():
    torch.manual_seed(0)
    layer = CoLayer(TEXT, VISION, bridge=BRIDGE).eval()
    text, text_mask, vision, vision_mask = streams()
    got_text, got_vision = layer(text, text_mask, vision, vision_mask)
    seeing = layer.text_attention(text, vision_mask, vision)
    reading = layer.vision_attention(vision, text_mask, text)
    assert torch.equal(got_text, layer.text_feedforward(seeing))
    assert torch.equal(got_vision, layer.vision_feedforward(reading))
    assert layer.text_attention.query.weight.shape == (20, 12)
    assert layer.text_attention.key.weight.shape == (20, 8)
    assert layer.vision_attention.out.weight.shape == (8, 20)


def test_layers_and_meetings_run_in_their_order():
    torch.manual_seed(0)
    encoder = CoEncoder(TEXT, VISION, bridge=BRIDGE, meetings=[(1, 0), (2, 1)]).eval()
    order = []
    for name, part in encoder.named_modules():
        if name.count(".") == 1:
            part.register_forward_hook(lambda module, given, result, name=name: order.append(name))
    text, vision = encoder(*streams())
    assert (text.shape, vision.shape) == ((2, 5, 12), (2, 4, 8))
    assert order == [
        "text_layers.0",
        "meetings.0",
        "text_layers.1",
        "vision_layers.0",
        "meetings.1",
        "text_layers.2",
        "vision_layers.1",
    ]


@pytest.mark.parametrize("meetings", [[(1, 0), (2, 1)], [(1, 1), (3, 2)], [(0, 0), (2, 2)], []])
@pytest.mark.parametrize("reads", [{"pooled"}, {"text"}, {"regions"}, {"pooled", "regions"}])
def test_streams_are_computed_as_far_as_they_are_read(meetings, reads):
    torch.manual_seed(0)
    encoder = CoEncoder(TEXT, VISION, bridge=BRIDGE, meetings=meetings).eval()
    given, run = streams(), []
    full = encoder(*given)
    for part in encoder.modules():
        if isinstance(part, FeedForward):
            part.register_forward_hook(lambda module, given, result: run.append(result.shape[1]))
    states = encoder(*given, reads=frozenset(reads))
    some = 1 if "pooled" in reads else 0
    for one, other, name in zip(states, full, ("text", "regions"), strict=True):
        count = other.shape[1] if name in reads else some
        torch.testing.assert_close(one, other[:, :count])
    assert sum(run) < 5 * (3 + len(meetings)) + 4 * (2 + len(meetings))


@pytest.mark.parametrize("meetings", [[(2, 0), (1, 1)], [(0, 3)], [(4, 0)], [(0, 1), (1, 0)]])
def test_meetings_that_cannot_be_are_refused(meetings):
    with pytest.raises(ConfigError, match=rf"^meetings .*{re.escape(str(meetings))}.* 3 .* 2 "):
        CoEncoder(TEXT, VISION, bridge=BRIDGE, meetings=meetings)


def test_the_whole_image_is_the_mean_of_real_regions():
    part = BoxedRegions(6, 8).eval()
    regions = some_regions()
    states, mask = part(regions)
    assert mask.tolist() == [[True, True, True, True, False], [True, True, True, False, False]]
    mean = regions.features[1, :2].mean(0)
    box = torch.tensor([0.0, 0.0, 1.0, 1.0, 1.0])
    torch.testing.assert_close(states[1, 0], part.norm(part.feature(mean) + part.box(box)))
    x1, y1, x2, y2 = regions.boxes[0, 2]
    box = torch.stack([x1, y1, x2, y2, (x2 - x1) * (y2 - y1)])
    torch.testing.assert_close(states[0, 3], part.norm(part.feature(regions.features[0, 2]) + part.box(box)))


def test_hidden_regions_show_nothing_not_even_in_the_mean():
    part = BoxedRegions(6, 8).eval()
    hidden = torch.zeros(2, 4, dtype=torch.bool)
    hidden[:, 1] = True
    noise = some_regions().features.clone()
    noise[:, 1] = 9.0
    states, _ = part(some_regions(hidden=hidden))
    assert torch.equal(part(some_regions(hidden=hidden, features=noise))[0], states)
    mean = some_regions().features[0, [0, 2]].mean(0)
    whole = part.box(torch.tensor([0.0, 0.0, 1.0, 1.0, 1.0]))
    torch.testing.assert_close(states[0, 0], part.norm(part.feature(mean) + whole))
    zeros = part.feature(torch.zeros(6))
    box = some_regions().boxes[0, 1]
    area = ((box[2] - box[0]) * (box[3] - box[1]))[None]
    torch.testing.assert_close(states[0, 2], part.norm(zeros + part.box(torch.cat([box, area]))))


def test_without_whole_image_and_area_regions_are_as_given():
    part = BoxedRegions(6, 8, whole_image=False, box_area=False).eval()
    regions = some_regions()
    states, mask = part(regions)
    assert mask is regions.mask
    torch.testing.assert_close(states, part.norm(part.feature(regions.features) + part.box(regions.boxes)))


@pytest.mark.parametrize("fusion", ["product", "sum"])
def test_pool_fuses_the_first_of_each_stream(fusion):
    torch.manual_seed(0)
    pool = FusedPool(12, 8, 20, fusion=fusion)
    text, _, vision, _ = streams()
    one, other = pool.text(text[:, 0]).relu(), pool.vision(vision[:, 0]).relu()
    assert torch.equal(pool(text, vision), one * other if fusion == "product" else one + other)


def test_pool_says_what_it_cannot_do():
    with pytest.raises(ConfigError, match=r"fusion .*'mean'.*'product'.*'sum'"):
        FusedPool(12, 8, 20, fusion="mean")
    text, _, vision, _ = streams(regions=0)
    with pytest.raises(ConfigError, match="whole_image"):
        FusedPool(12, 8, 20)(text, vision)
