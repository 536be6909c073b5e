from dataclasses import replace
from math import cos, sin

import pytest
import torch

from diptych.errors import ConfigError
from diptych.models import vlbert_tiny
from diptych.models.vlbert import box_waves
from diptych.types import Inputs

SIZE = 50.0


@pytest.fixture
def given(rows):
    inputs = rows()
    return with_regions(inputs, sizes=torch.full((3, 2), SIZE))


def build(**options):
    torch.manual_seed(0)
    return vlbert_tiny(**options).eval()


def with_regions(inputs, **changes):
    return replace(inputs, regions=replace(inputs.regions, **changes))


def with_text(inputs, **changes):
    return replace(inputs, text=replace(inputs.text, **changes))


def entered(model, inputs):
    """What enters the first layer: text, whole image, regions, END."""
    seen = []
    hook = model.encoder.register_forward_hook(lambda module, given, result: seen.append(given[0]))
    model(inputs)
    hook.remove()
    return seen[0]


def hiding(inputs, *numbers):
    hidden = torch.zeros_like(inputs.regions.mask)
    hidden[:, list(numbers)] = True
    return with_regions(inputs, hidden=hidden)


def with_whole_image(inputs):
    """The same rows with the whole image as an ordinary first region, as the originals' loaders make them."""
    regions = inputs.regions
    end = 1 - 1 / SIZE
    ahead = {
        "features": regions.features.mean(1, keepdim=True),
        "boxes": torch.tensor([0.0, 0.0, end, end]).expand(len(regions.boxes), 1, 4),
        "mask": regions.mask[:, :1],
        "image_index": regions.image_index[:, :1],
    }
    joined = {name: torch.cat([one, getattr(regions, name)], 1) for name, one in ahead.items()}
    return with_regions(inputs, **joined)


def test_waves_are_the_formula():
    boxes = torch.tensor([[[0.1, 0.2, 0.5, 0.3]]])
    numbers = [100 * one for one in (0.3, 0.25, 0.4, 0.1)]
    angles = [[number / 1000 ** (step / 3) for step in range(3)] for number in numbers]
    expected = [wave(one) for row in angles for wave in (sin, cos) for one in row]
    torch.testing.assert_close(box_waves(boxes, 24)[0, 0], torch.tensor(expected), atol=1e-5, rtol=1e-5)


def test_a_word_is_seen_with_what_it_names_and_else_with_the_whole_image(given):
    model = build()
    mentions = torch.full_like(given.text.ids, -1)
    mentions[0, 2] = 3
    named = with_text(given, mentions=mentions)
    seen, _ = model.regions(given.regions)
    carried = seen[:, :1].repeat(1, 5, 1)
    carried[0, 2] = seen[0, 4]
    part = model.embedding
    places = part.positions.weight[:5] + part.segments.weight[0]
    expected = part.norm(part.words(given.text.ids) + part.text_visual.norm(carried) + places)
    torch.testing.assert_close(entered(model, named)[:, :5], expected)


def test_regions_share_the_place_after_the_text_and_the_end_has_the_next(given):
    model = build()
    given.text.mask[1, 3:] = False
    part = model.embedding
    seen, _ = model.regions(given.regions)
    x = entered(model, given)[:, 5:]
    at = part.positions.weight + part.segments.weight[2]
    for row, count in enumerate((5, 3, 5)):
        regions = part.norm(model.region_word + part.region_visual.norm(seen[row]) + at[count])
        torch.testing.assert_close(x[row, :-1], regions)
        torch.testing.assert_close(x[row, -1], part.norm(part.end + at[count + 1]))


def test_holes_in_a_text_are_squeezed_out(given):
    model = build()
    squeezed = replace(given, text=given.text.map(lambda one: one[:, [0, 1, 3, 4]]))
    mask = given.text.mask.clone()
    mask[:, 2] = False
    torch.testing.assert_close(model(with_text(given, mask=mask)).pooled, model(squeezed).pooled)


def test_the_whole_image_is_added_by_the_model_or_by_hand(given):
    mentions = torch.full_like(given.text.ids, -1)
    mentions[:, 1] = 2
    added = build()(with_text(given, mentions=mentions))
    by_hand = with_whole_image(with_text(given, mentions=torch.where(mentions < 0, mentions, mentions + 1)))
    expected = build(whole_image=False)(by_hand)
    torch.testing.assert_close(added.pooled, expected.pooled)
    torch.testing.assert_close(added.text, expected.text)
    torch.testing.assert_close(added.regions, expected.regions[:, 1:])


@pytest.mark.parametrize(("resized", "last"), [(20.0, 20.0), (90.0, SIZE)])
def test_the_whole_image_ends_at_the_last_pixel_of_the_smaller_picture(given, resized, last):
    expected = build()(with_regions(given, sizes=torch.full((3, 2), last)))
    found = build()(with_regions(given, resized=torch.full((3, 2), resized)))
    torch.testing.assert_close(found.pooled, expected.pooled)


def test_hidden_regions_show_nothing_of_their_features(given):
    model = build()
    torch.nn.init.normal_(model.regions.hidden)
    other = given.regions.features.clone()
    other[:, 1] = 7.0
    hidden = hiding(given, 1)
    assert torch.equal(model(with_regions(hidden, features=other)).pooled, model(hidden).pooled)
    assert not torch.equal(model(hidden).pooled, model(given).pooled)
    torch.testing.assert_close(model(hiding(given)).pooled, model(given).pooled)
    model(hidden).pooled.sum().backward()
    assert model.regions.hidden.grad.any()
    assert model.hidden_word.grad.any()


@pytest.mark.parametrize("learned", [True, False])
def test_text_without_regions_carries_what_is_learned_or_zeros(given, learned):
    model = build(learned_blank=learned)
    mask = given.regions.mask.clone()
    mask[1] = False
    alone = Inputs(text=given.text)
    assert model(alone).regions is None
    torch.testing.assert_close(model(with_regions(given, mask=mask)).pooled[1], model(alone).pooled[1])
    part = model.embedding
    shown = part.text_visual.norm(model.blank) if learned else part.text_visual.norm.bias
    places = part.positions.weight[:5] + part.segments.weight[0]
    expected = part.norm(part.words(given.text.ids) + shown + places)
    torch.testing.assert_close(entered(model, alone)[:, :5], expected)


def test_blind_models_see_how_many_regions_there_are_and_nothing_else(given):
    model = build(blind=True)
    shown = with_regions(given, features=given.regions.features + 1, boxes=given.regions.boxes / 2)
    assert torch.equal(model(shown).pooled, model(given).pooled)
    fewer = given.regions.mask.clone()
    fewer[:, 2:] = False
    assert not torch.allclose(model(with_regions(given, mask=fewer)).pooled, model(given).pooled)


def test_what_is_seen_counts_for_nothing_at_first(given):
    model = build(visual_scale=0.0)
    other = with_regions(given, features=given.regions.features + 1)
    assert torch.equal(model(other).pooled, model(given).pooled)


def test_before_end_reads_the_state_of_the_token_before_the_last(given):
    model = build(readout="before_end")
    given.text.mask[1, 3:] = False
    encoding = model(given)
    assert torch.equal(encoding.pooled[0], encoding.text[0, 3])
    assert torch.equal(encoding.pooled[1], encoding.text[1, 1])
    assert torch.equal(model(given, reads=frozenset({"pooled"})).pooled, encoding.pooled)
    assert not any(name.startswith("pool") for name, _ in model.named_parameters())


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"readout": "last"}, r"model\.readout .*'last'.*'first'.*'before_end'"),
        ({"box_dim": 60}, r"model\.box_dim .* 60; .* 8\b"),
    ],
)
def test_options_that_do_not_exist(option, message):
    with pytest.raises(ConfigError, match=message):
        vlbert_tiny(**option)


def test_text_regions_and_end_must_fit_the_positions(given):
    assert build(max_positions=7)(given).pooled.isfinite().all()
    with pytest.raises(ConfigError, match=r" 5 .* 7 .* 6\. .*processor\.max_tokens"):
        build(max_positions=6)(given)
