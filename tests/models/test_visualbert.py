from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from diptych.errors import ConfigError
from diptych.models import visualbert_tiny
from diptych.nn import ClassifierHead
from diptych.types import Inputs, PaddedRegions, PaddedText


def rows(count=3, tokens=5, regions=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(1, 99, (count, tokens), generator=generator)
    return Inputs(
        text=PaddedText(ids=ids, mask=torch.ones_like(ids).bool(), segments=torch.zeros_like(ids)),
        regions=PaddedRegions(
            features=torch.randn(count, regions, 64, generator=generator),
            boxes=torch.rand(count, regions, 4, generator=generator),
            mask=torch.ones(count, regions, dtype=torch.bool),
            image_index=torch.zeros(count, regions, dtype=torch.int64),
            sizes=torch.ones(count, 2),
        ),
    )


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


def test_region_embedding_is_the_formula(model):
    inputs, part = rows(), model.regions
    plain = part.feature(inputs.regions.features) + part.segments.weight[0] + part.positions.weight[0]
    torch.testing.assert_close(embedded(model, inputs), model.text.norm(plain))


def test_boxes_are_never_read(model):
    inputs = rows()
    assert torch.equal(
        model(with_regions(inputs, boxes=inputs.regions.boxes / 2)).pooled, model(inputs).pooled
    )


def test_the_second_image_has_the_next_segment(model):
    inputs = rows()
    two = with_regions(inputs, image_index=torch.tensor([[0, 0, 1, 1]]).expand(3, 4))
    assert not torch.allclose(model(two).pooled, model(inputs).pooled)
    second = with_regions(inputs, image_index=torch.ones(3, 4, dtype=torch.int64))
    expected = model(second).pooled
    model.region_segment = 1  # as Vilio has it
    assert torch.equal(model(inputs).pooled, expected)


def test_regions_named_by_words_get_the_mean_of_their_positions(model):
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


def test_before_end_reads_the_state_of_the_token_before_the_last():
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
        ({"region_segment": 2}, "model.region_segment is 2; expected a row of 2 segments"),
        ({"readout": "last"}, "model.readout is 'last'; expected one of"),
    ],
)
def test_options_that_do_not_exist(option, message):
    with pytest.raises(ConfigError, match=message):
        visualbert_tiny(**option)


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

    model, head = visualbert_tiny(), ClassifierHead(48, 2)
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


def test_layer_average_reads_the_first_token_of_every_layer():
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
