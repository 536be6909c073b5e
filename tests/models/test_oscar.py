from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from diptych.errors import ConfigError
from diptych.models import oscar_tiny
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
def test_region_embedding_is_the_formula(numbers, norm):
    torch.manual_seed(0)
    model, inputs = oscar_tiny(box_numbers=numbers, region_norm=norm).eval(), rows()
    x1, y1, x2, y2 = inputs.regions.boxes.unbind(-1)
    six = torch.stack([x1, y1, x2, y2, x2 - x1, y2 - y1], -1)
    expected = torch.cat([inputs.regions.features, six[..., :numbers]], -1) @ model.regions.project.weight.T
    expected = F.layer_norm(expected, (48,), eps=1e-12) if norm else expected
    torch.testing.assert_close(embedded(model, inputs), expected)


def test_object_names_are_the_second_segment(model):
    inputs = rows()
    segments = torch.zeros_like(inputs.text.ids)
    segments[:, 3:] = 1
    named = replace(inputs, text=replace(inputs.text, segments=segments))
    assert not torch.allclose(model(named).pooled, model(inputs).pooled)


def test_regions_of_two_images_are_told_apart_by_nothing(model):
    inputs = rows()
    two = replace(inputs.regions, image_index=torch.tensor([[0, 0, 1, 1]]).expand(3, 4))
    assert torch.equal(model(replace(inputs, regions=two)).pooled, model(inputs).pooled)


def test_numbers_of_a_box_that_do_not_exist():
    with pytest.raises(ConfigError, match=r"model.box_numbers is 5; expected 6 \(Oscar\) or 4 \(Vilio\)"):
        oscar_tiny(box_numbers=5)


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

    model, head = oscar_tiny(), ClassifierHead(48, 2)
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
