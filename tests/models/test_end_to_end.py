from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from diptych import models
from diptych.errors import ConfigError
from diptych.models import EndToEnd, RegionEncoder, uniter_tiny, vlbert_tiny
from diptych.nn import resnet_tiny
from diptych.nn.resnet import Bottleneck, ResNet
from diptych.tasks.base import exchanged
from diptych.types import Inputs, PaddedRegions, PaddedText

TINY = (getattr(models, name) for name in models.__all__ if name.endswith("_tiny"))
BUILDERS = [builder for builder in TINY if "regions" in builder().needs]


def build(builder=uniter_tiny, **options):
    torch.manual_seed(0)
    resnet = resnet_tiny(dilate_last=True, freeze_batch_norm=True, **options)
    return EndToEnd(RegionEncoder(resnet), builder(feature_dim=resnet.dim)).eval()


def inputs(counts=(3, 1, 2), *, extra=0, seed=0):
    """Pictures of several sizes in one batch, padded with zeros, with boxes inside."""
    generator = torch.Generator().manual_seed(seed)
    sizes = torch.tensor([[96.0, 64], [64, 80], [80, 96]])[: len(counts)]
    pixels = torch.zeros(len(counts), 3, 96, 96)
    for row, (width, height) in enumerate(sizes.int().tolist()):
        pixels[row, :, :height, :width] = torch.randn(3, height, width, generator=generator)
    corners = torch.rand(len(counts), max(counts), 2, 2, generator=generator)
    boxes = torch.cat([corners.amin(2), corners.amax(2)], 2)
    boxes = torch.cat([boxes, torch.full((len(counts), extra, 4), 0.5)], 1)
    mask = torch.arange(max(counts) + extra) < torch.tensor(counts)[:, None]
    regions = PaddedRegions(
        features=torch.zeros(*mask.shape, 0),
        boxes=boxes,
        mask=mask,
        image_index=torch.zeros_like(mask, dtype=torch.int64),
        sizes=sizes,
    )
    ids = torch.randint(1, 99, (len(counts), 5), generator=generator)
    text = PaddedText(ids=ids, mask=torch.ones_like(ids, dtype=torch.bool), segments=torch.zeros_like(ids))
    return Inputs(text=text, regions=regions, pixels=pixels)


@pytest.mark.parametrize("builder", BUILDERS)
def test_any_region_model_sees_pixels(builder):
    model, given = build(builder), inputs()
    assert model.needs == model.model.needs | {"pixels"}
    assert model.word_embedding() is model.model.word_embedding()
    encoding = model(given)
    assert encoding.pooled.shape == (3, model.dim)
    assert encoding.text.shape == (3, 5, model.text_dim)
    assert encoding.regions.shape == (3, 3, model.region_dim)
    assert encoding.pooled.isfinite().all()


@pytest.mark.parametrize("training", [False, True])
def test_a_text_without_a_picture_beside_pictures(training):
    """Rows of a corpus beside captions: neither side changes the other."""
    model, given = build(vlbert_tiny).train(training), inputs((3, 0, 2))
    both = model(given)
    pictures, texts = (exchanged(given, torch.tensor(rows), torch.tensor(rows)) for rows in ([0, 2], [1]))
    torch.testing.assert_close(both.pooled[[0, 2]], model(pictures).pooled, atol=1e-5, rtol=1e-5)
    alone = model(replace(texts, pixels=None)).pooled
    torch.testing.assert_close(both.pooled[[1]], alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("builder", BUILDERS)
def test_padding_of_regions_never_changes_a_result(builder):
    model, given = build(builder), inputs()
    expected = model(given)
    torch.testing.assert_close(model(inputs(extra=2)).pooled, expected.pooled, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("builder", BUILDERS)
def test_every_region_model_teaches_the_pixels(builder):
    model, given = build(builder).train(), inputs()
    encoding = model(given, reads=frozenset({"pooled"}))
    (encoding.pooled * torch.randn_like(encoding.pooled)).sum().backward()
    assert model.regions.resnet.layer1[0].conv1.weight.grad.abs().sum() > 0


def test_boxes_are_of_the_resized_picture_and_sizes_of_the_original():
    """Boxes come divided by the size, so only what the pixels show decides where they are."""
    encoder, given = build().regions, inputs()
    regions = replace(given.regions, sizes=10 * given.regions.sizes, resized=given.regions.sizes)
    torch.testing.assert_close(encoder(given.pixels, regions), encoder(given.pixels, given.regions))


def test_rows_may_all_be_without_regions():
    model, given = build().train(), inputs()
    none = replace(given.regions, mask=torch.zeros_like(given.regions.mask))
    assert not model.regions(given.pixels, none).any()


def test_vlbert_keeps_the_feature_of_a_hole_and_hides_the_word():
    model, given = build(vlbert_tiny), inputs((3, 3, 3))
    kept = EndToEnd(model.regions, vlbert_tiny(feature_dim=128, hide_features=False)).eval()
    kept.model.load_state_dict(model.model.state_dict())
    hidden = torch.zeros(3, 3, dtype=torch.bool)
    hidden[:, 1] = True
    holes = replace(given, regions=replace(given.regions, hidden=hidden))
    before = kept(holes).regions
    with torch.no_grad():
        kept.model.regions.hidden += 1
    assert torch.equal(kept(holes).regions, before)
    with torch.no_grad():
        kept.model.hidden_word += 1
    assert not torch.allclose(kept(holes).regions, before)
    assert not torch.allclose(model(holes).regions, before)


def test_batch_of_one_equals_row_of_a_batch():
    """Also where padding does not stay zero on its way."""
    model, given = build(), inputs()
    torch.nn.init.uniform_(model.regions.resnet.bn1.bias)
    together = model(given).pooled
    for row in range(3):
        alone = given.map(lambda tensor, row=row: tensor[row : row + 1])
        torch.testing.assert_close(model(alone).pooled[0], together[row], atol=1e-5, rtol=1e-5)


def test_permuting_regions_permutes_their_states_only():
    model, given = build(), inputs((3, 3, 3))
    order = torch.tensor([2, 0, 1])
    regions = given.regions
    turned = replace(regions, boxes=regions.boxes[:, order])
    before, after = model(given), model(replace(given, regions=turned))
    torch.testing.assert_close(after.pooled, before.pooled, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(after.regions, before.regions[:, order], atol=1e-5, rtol=1e-5)


def test_rows_without_any_region_are_text_only():
    model, given = build(), inputs((3, 0, 1))
    empty = given.regions.map(lambda tensor: tensor if tensor.shape[1:] == (2,) else tensor[:, :0])
    alone = model(replace(given, regions=empty))
    torch.testing.assert_close(alone.pooled[1], model(given).pooled[1], atol=1e-5, rtol=1e-5)


def test_the_loss_reaches_every_weight_that_is_not_frozen():
    model = build(frozen=2).train()
    encoding = model(inputs())
    (encoding.pooled * torch.randn_like(encoding.pooled)).sum().backward()
    network = model.regions.resnet
    without = {name for name, one in network.named_parameters() if one.grad is None or not one.grad.any()}
    assert without == {name for name, one in network.named_parameters() if not one.requires_grad}
    assert {name.split(".")[0] for name in without if "bn" not in name and "downsample" not in name} == {
        "conv1",
        "layer1",
    }
    assert model.regions.resnet.layer4[0].conv1.weight.grad.isfinite().all()


def test_a_model_learns_where_to_look():
    """Which of two regions shows the bright square: only the pixels tell."""
    torch.manual_seed(0)
    resnet = resnet_tiny(dilate_last=True)
    encoder, head = RegionEncoder(resnet, size=4), torch.nn.Linear(resnet.dim, 1)
    given = inputs((2,) * 3).regions
    halves = torch.tensor([[0, 0, 0.5, 1], [0.5, 0, 1, 1]])

    def batch(count):
        targets = torch.randint(2, (count,))
        pixels = 0.1 * torch.randn(count, 3, 32, 64)
        for row, target in enumerate(targets):
            pixels[row, :, 8:24, 32 * target + 8 : 32 * target + 24] += 2
        mask = torch.ones(count, 2, dtype=torch.bool)
        regions = replace(
            given,
            features=torch.zeros(count, 2, 0),
            boxes=halves.expand(count, 2, 4),
            mask=mask,
            image_index=torch.zeros_like(mask, dtype=torch.int64),
            sizes=torch.tensor([[64.0, 32.0]]).expand(count, 2),
        )
        return pixels, regions, targets

    optimizer = torch.optim.AdamW([*encoder.parameters(), *head.parameters()], lr=3e-3)
    for _ in range(25):
        pixels, regions, targets = batch(8)
        optimizer.zero_grad()
        F.cross_entropy(head(encoder(pixels, regions))[..., 0], targets).backward()
        optimizer.step()
    pixels, regions, targets = batch(64)
    encoder.eval()
    assert (head(encoder(pixels, regions))[..., 0].argmax(1) == targets).float().mean() > 0.9


def test_pixels_below_hidden_boxes_are_gone_for_all_regions():
    encoder, given = build().regions, inputs((2, 2, 2))
    boxes = given.regions.boxes.clone()
    boxes[0] = torch.tensor([[0.0, 0, 1, 1], [0.25, 0.25, 0.5, 0.5]])
    hidden = torch.tensor([[False, True]] + [[False, False]] * 2)
    regions = replace(given.regions, boxes=boxes, hidden=hidden)
    changed = given.pixels.clone()
    changed[0, :, 16:33, 24:49] = 7.0  # what lies below the hidden box, its last row and column included
    torch.testing.assert_close(encoder(changed, regions), encoder(given.pixels, regions))
    shown = replace(regions, hidden=None)
    assert not torch.allclose(encoder(changed, shown)[0], encoder(given.pixels, shown)[0])
    beside = changed.clone()
    beside[0, :, 33] = 7.0
    assert not torch.allclose(encoder(beside, regions)[0], encoder(changed, regions)[0])
    encoder.hide_pixels = False
    assert not torch.allclose(encoder(changed, regions)[0], encoder(given.pixels, regions)[0])


def test_silhouettes_weigh_the_cells_of_a_region():
    encoder, given = build().regions, inputs((2, 2, 2))
    plain = encoder(given.pixels, given.regions)
    full = torch.ones(3, 2, 14, 14)
    torch.testing.assert_close(encoder(given.pixels, replace(given.regions, silhouettes=full)), plain)
    half = full.clone()
    half[..., 7:] = 0
    left, right = (encoder(given.pixels, replace(given.regions, silhouettes=one)) for one in (half, 1 - half))
    torch.testing.assert_close(left + right, plain, atol=1e-5, rtol=1e-4)
    with pytest.raises(ConfigError, match=r"\(7, 7\).*\(14, 14\)"):
        encoder(given.pixels, replace(given.regions, silhouettes=full[..., :7, :7]))


def test_a_bottleneck_network_without_dilation_fits_too():
    torch.manual_seed(0)
    resnet = ResNet(Bottleneck, (1, 1, 1, 1), width=4, classes=None, stride_first=True)
    encoder, given = RegionEncoder(resnet, samples=0, aligned=True).eval(), inputs()
    assert encoder(given.pixels, given.regions).shape == (3, 3, 128)


def test_bfloat16_stays_close():
    model, given = build(), inputs()
    with torch.autocast("cpu", torch.bfloat16):
        rough = model(given).pooled.float()
    exact = model(given).pooled
    assert (rough - exact).norm() < 0.05 * exact.norm()


def test_what_does_not_fit_is_named():
    model, given = build(), inputs()
    large = replace(given.regions, sizes=torch.full((3, 2), 100.0))
    with pytest.raises(ConfigError, match=r"100 x 100.*96 x 96"):
        model(replace(given, regions=large))
    second = replace(given.regions, image_index=torch.ones(3, 3, dtype=torch.int64))
    with pytest.raises(ConfigError, match=r"two .* one "):
        model(replace(given, regions=second))
    with pytest.raises(ConfigError, match=r"EndToEnd .*pixels"):
        model(replace(given, pixels=None))
    with pytest.raises(ConfigError, match=r" 128; Uniter .* 64\. .*feature_dim=128"):
        EndToEnd(model.regions, uniter_tiny())
