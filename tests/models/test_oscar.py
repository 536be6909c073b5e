from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from diptych.errors import ConfigError
from diptych.models import oscar_tiny


@pytest.fixture
def model():
    torch.manual_seed(0)
    return oscar_tiny().eval()


def embedded(model, inputs):
    """What enters the first layer at the places of the regions."""
    seen = []
    hook = model.encoder.register_forward_hook(lambda module, given, result: seen.append(given[0]))
    model(inputs)
    hook.remove()
    return seen[0][:, inputs.text.ids.shape[1] :]


@pytest.mark.parametrize("numbers", [4, 6])
@pytest.mark.parametrize("norm", [False, True])
def test_region_embedding_is_the_formula(numbers, norm, rows):
    torch.manual_seed(0)
    model, inputs = oscar_tiny(box_numbers=numbers, region_norm=norm).eval(), rows()
    x1, y1, x2, y2 = inputs.regions.boxes.unbind(-1)
    six = torch.stack([x1, y1, x2, y2, x2 - x1, y2 - y1], -1)
    expected = torch.cat([inputs.regions.features, six[..., :numbers]], -1) @ model.regions.project.weight.T
    expected = F.layer_norm(expected, (48,), eps=1e-12) if norm else expected
    torch.testing.assert_close(embedded(model, inputs), expected)


def test_object_names_are_the_second_segment(model, rows):
    inputs = rows()
    segments = torch.zeros_like(inputs.text.ids)
    segments[:, 3:] = 1
    named = replace(inputs, text=replace(inputs.text, segments=segments))
    assert not torch.allclose(model(named).pooled, model(inputs).pooled)


def test_regions_of_two_images_are_told_apart_by_nothing(model, rows):
    inputs = rows()
    two = replace(inputs.regions, image_index=torch.tensor([[0, 0, 1, 1]]).expand(3, 4))
    assert torch.equal(model(replace(inputs, regions=two)).pooled, model(inputs).pooled)


def test_numbers_of_a_box_that_do_not_exist():
    with pytest.raises(ConfigError, match=r"model\.box_numbers .* 5; .* 6 .* 4 "):
        oscar_tiny(box_numbers=5)
