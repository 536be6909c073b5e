from dataclasses import replace

import pytest
import torch

from diptych.errors import ConfigError
from diptych.models import vilbert_tiny
from diptych.nn import capture_attention


def build(**options):
    torch.manual_seed(0)
    return vilbert_tiny(**options).eval()


def with_regions(inputs, **changes):
    return replace(inputs, regions=replace(inputs.regions, **changes))


def with_whole_image(inputs):
    """The same rows with the whole image as an ordinary first region, as the originals' loaders make them."""
    regions = inputs.regions
    ahead = {
        "features": regions.features.mean(1, keepdim=True),
        "boxes": torch.tensor([0.0, 0.0, 1.0, 1.0]).expand(len(regions.boxes), 1, 4),
        "mask": regions.mask[:, :1],
        "image_index": regions.image_index[:, :1],
    }
    joined = {name: torch.cat([one, getattr(regions, name)], 1) for name, one in ahead.items()}
    return with_regions(inputs, **joined)


def test_the_whole_image_is_added_by_the_model_or_by_hand(rows):
    inputs = rows()
    given = build(whole_image=False)(with_whole_image(inputs))
    added = build()(inputs)
    torch.testing.assert_close(added.pooled, given.pooled)
    torch.testing.assert_close(added.text, given.text)
    torch.testing.assert_close(added.regions, given.regions[:, 1:])


def test_without_the_whole_image_the_first_region_is_pooled(rows):
    inputs, model = rows(), build(whole_image=False)
    regions = inputs.regions
    order = [1, 0, 2, 3]
    swapped = with_regions(inputs, features=regions.features[:, order], boxes=regions.boxes[:, order])
    assert not torch.allclose(model(swapped).pooled, model(inputs).pooled)
    torch.testing.assert_close(build()(swapped).pooled, build()(inputs).pooled)


@pytest.mark.parametrize("fusion", ["product", "sum"])
def test_pooled_is_fused_from_both_streams(fusion, rows):
    inputs, model = rows(), build(fusion=fusion, whole_image=False)
    encoding = model(inputs)
    one = model.pool.text(encoding.text[:, 0]).relu()
    other = model.pool.vision(encoding.regions[:, 0]).relu()
    torch.testing.assert_close(encoding.pooled, one * other if fusion == "product" else one + other)


def test_padded_regions_count_only_on_request(rows):
    inputs, model = rows(), build(whole_image=False)
    mask = inputs.regions.mask.clone()
    mask[:, 2:] = False
    padded = with_regions(inputs, mask=mask)
    full = model(inputs).pooled
    assert not torch.allclose(model(padded).pooled, full)
    model.attend_padding = True
    assert torch.equal(model(padded).pooled, full)


def test_a_task_token_is_read_and_not_returned(rows):
    inputs = rows()
    plain, first, second = build(tasks=3), build(tasks=3, task=0), build(tasks=3, task=1)
    one, other = first(inputs), second(inputs)
    assert one.text.shape == plain(inputs).text.shape
    assert not torch.allclose(one.pooled, other.pooled)
    second.load_state_dict(first.state_dict())
    with torch.no_grad():
        second.tasks.weight[1] = first.tasks.weight[0]
    torch.testing.assert_close(second(inputs).pooled, one.pooled)


def test_a_task_without_its_token_is_refused():
    with pytest.raises(ConfigError, match=r"^task .* 3\b.* 3 "):
        vilbert_tiny(tasks=3, task=3)


def test_attention_is_captured_by_name(rows):
    inputs, model = rows(), build()
    with capture_attention(model) as maps:
        model(inputs)
    assert maps["encoder.text_layers.1.attention"].shape == (3, 4, 5, 5)
    assert maps["encoder.vision_layers.0.attention"].shape == (3, 4, 5, 5)
    assert maps["encoder.meetings.1.text_attention"].shape == (3, 4, 5, 5)
    assert len(maps) == 2 + 2 + 2 * 2
