from dataclasses import replace

import pytest
import torch

from diptych.errors import ConfigError
from diptych.models import visualbert_tiny


@pytest.fixture
def model():
    torch.manual_seed(0)
    return visualbert_tiny().eval()


def with_regions(inputs, **changes):
    return replace(inputs, regions=replace(inputs.regions, **changes))


def with_mentions(inputs, *mentions):
    return replace(inputs, text=replace(inputs.text, mentions=torch.tensor(mentions)))


def embedded(model, inputs):
    """What enters the first layer at the places of the regions."""
    seen = []
    hook = model.encoder.register_forward_hook(lambda module, given, result: seen.append(given[0]))
    model(inputs)
    hook.remove()
    return seen[0][:, inputs.text.ids.shape[1] :]


def test_region_embedding_is_the_formula(model, rows):
    inputs, part = rows(), model.regions
    plain = part.feature(inputs.regions.features) + part.segments.weight[0] + part.positions.weight[0]
    torch.testing.assert_close(embedded(model, inputs), model.text.norm(plain))


def test_boxes_are_never_read(model, rows):
    inputs = rows()
    assert torch.equal(
        model(with_regions(inputs, boxes=inputs.regions.boxes / 2)).pooled, model(inputs).pooled
    )


def test_the_second_image_has_the_next_segment(model, rows):
    inputs = rows()
    two = with_regions(inputs, image_index=torch.tensor([[0, 0, 1, 1]]).expand(3, 4))
    assert not torch.allclose(model(two).pooled, model(inputs).pooled)
    second = with_regions(inputs, image_index=torch.ones(3, 4, dtype=torch.int64))
    expected = model(second).pooled
    model.region_segment = 1  # as Vilio has it
    assert torch.equal(model(inputs).pooled, expected)


def test_regions_named_by_words_get_the_mean_of_their_positions(model, rows):
    inputs = rows(count=1)
    inputs.text.mask[:, 4] = False
    part, positions = model.regions, model.text.positions.weight
    plain = part.feature(inputs.regions.features) + part.segments.weight[0] + part.positions.weight[0]
    plain[0, 1] += (positions[0] + positions[3]) / 2
    plain[0, 2] += positions[1]
    named = with_mentions(inputs, [1, 2, -1, 1, 3])  # the last token is padding
    torch.testing.assert_close(embedded(model, named), model.text.norm(plain))
    nobody = with_mentions(inputs, [-1] * 5)
    assert torch.equal(model(nobody).pooled, model(inputs).pooled)


def test_before_end_reads_the_state_of_the_token_before_the_last(rows):
    torch.manual_seed(0)
    model, inputs = visualbert_tiny(readout="before_end").eval(), rows()
    inputs.text.mask[1, 3:] = False
    encoding = model(inputs)
    assert torch.equal(encoding.pooled[0], encoding.text[0, 3])
    assert torch.equal(encoding.pooled[1], encoding.text[1, 1])
    assert not any(name.startswith("pool") for name, _ in model.named_parameters())


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"region_segment": 2}, r"model\.region_segment .* 2; .* 0 .* 1\b"),
        ({"readout": "last"}, r"model\.readout .*'last'.*'first'"),
    ],
)
def test_options_that_do_not_exist(option, message):
    with pytest.raises(ConfigError, match=message):
        visualbert_tiny(**option)


def test_layer_average_reads_the_first_token_of_every_layer(rows):
    torch.manual_seed(0)
    model, inputs = visualbert_tiny(readout="layer_average").eval(), rows()
    seen = [embedded_all(model, inputs)]
    for layer in model.encoder.layers:
        seen.append(layer(seen[-1], torch.ones(seen[0].shape[:2], dtype=torch.bool)))
    shares = model.average.weights.softmax(0)
    expected = sum(share * one[:, 0] for share, one in zip(shares, seen, strict=True))
    encoding = model(inputs)
    torch.testing.assert_close(encoding.pooled, expected)
    torch.testing.assert_close(torch.cat([encoding.text, encoding.regions], 1), seen[-1])
    encoding.pooled.sum().backward()
    assert model.average.weights.grad.ne(0).all()


def embedded_all(model, inputs):
    seen = []
    hook = model.encoder.layers[0].register_forward_hook(lambda module, given, result: seen.append(given[0]))
    model(inputs)
    hook.remove()
    return seen[0]
