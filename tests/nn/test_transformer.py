import pytest
import torch
from torch.nn import functional as F

from diptych.nn import CrossLayer, Encoder, FeedForward, capture_attention, checkpointed
from diptych.nn.attention import FIRST, NOTHING


def test_feed_forward_is_the_formula():
    layer = FeedForward(6, 10).eval()
    x = torch.randn(2, 3, 6, generator=torch.Generator().manual_seed(0))
    inner = layer.contract(F.gelu(layer.expand(x), approximate="none"))
    torch.testing.assert_close(layer(x), layer.norm(x + inner))


def test_padding_never_changes_real_states():
    torch.manual_seed(0)
    encoder = Encoder(2, 12, heads=3, hidden=24).eval()
    x = torch.randn(2, 6, 12)
    mask = torch.tensor([[1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 0]]).bool()
    noisy = torch.where(mask[..., None], x, 1e3 * torch.randn(2, 6, 12))
    torch.testing.assert_close(encoder(noisy, mask)[mask], encoder(x, mask)[mask])
    alone = encoder(x[:1, :4], torch.ones(1, 4, dtype=torch.bool))
    torch.testing.assert_close(alone[0], encoder(x, mask)[0, :4])


def cross(seed=0):
    torch.manual_seed(seed)
    layer = CrossLayer(12, 3, hidden=24).eval()
    text, regions = torch.randn(2, 5, 12), torch.randn(2, 3, 12)
    text_mask = torch.tensor([[1, 1, 1, 1, 0], [1, 1, 1, 1, 1]]).bool()
    region_mask = torch.tensor([[1, 1, 1], [1, 0, 0]]).bool()
    return layer, (text, text_mask, regions, region_mask)


def test_both_sides_of_a_cross_layer_look_at_what_came_in():
    layer, (text, text_mask, regions, region_mask) = cross()
    new_text, new_regions = layer(text, text_mask, regions, region_mask)
    seen = layer.attention(text, region_mask, regions)
    torch.testing.assert_close(new_text, layer.text(seen, text_mask))
    seen = layer.attention(regions, text_mask, text)
    torch.testing.assert_close(new_regions, layer.regions(seen, region_mask))


@pytest.mark.parametrize("keep", [FIRST, slice(2), slice(2, 5), NOTHING])
def test_an_encoder_keeps_what_is_read(keep):
    torch.manual_seed(0)
    encoder, x = Encoder(2, 12, heads=3, hidden=24).eval(), torch.randn(2, 6, 12)
    mask = torch.tensor([[1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 0]]).bool()
    torch.testing.assert_close(encoder(x, mask, keep), encoder(x, mask)[:, keep])


def test_a_side_of_a_cross_layer_that_nobody_reads_is_not_computed():
    layer, given = cross()
    both = layer(*given)
    text, regions = layer(*given, keep_text=FIRST, keep_regions=NOTHING)
    torch.testing.assert_close(text, both[0][:, :1])
    assert regions.shape == (2, 0, 12)
    text, regions = layer(*given, keep_text=NOTHING)
    assert torch.equal(regions, both[1])
    regions.sum().backward()
    assert text.shape == (2, 0, 12)
    assert all(one.grad is None for one in layer.text.parameters())


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_checkpointed_layers_are_computed_twice_and_give_equal_gradients(dropout):
    torch.manual_seed(0)
    encoder, calls = Encoder(2, 12, heads=3, hidden=24, dropout=dropout), []
    encoder.layers[0].attention.register_forward_hook(lambda *call: calls.append(call))
    x, mask = torch.randn(2, 6, 12), torch.ones(2, 6, dtype=torch.bool)

    def gradients():
        calls.clear()
        encoder.zero_grad()
        torch.manual_seed(1)
        encoder(x, mask).square().sum().backward()
        return [one.grad for one in encoder.parameters()]

    plain = gradients()
    assert len(calls) == 1
    with checkpointed(encoder):
        again = gradients()
    assert len(calls) == 2
    assert all(torch.equal(one, other) for one, other in zip(plain, again, strict=True))
    gradients()
    assert len(calls) == 1


def test_every_call_of_the_shared_attention_of_a_cross_layer_has_its_map():
    layer, given = cross()
    with capture_attention(layer) as maps:
        layer(*given)
    assert {name: tuple(one.shape[2:]) for name, one in maps.items()} == {
        "attention.regions": (3, 5),
        "attention.text": (5, 3),
        "text.attention": (5, 5),
        "regions.attention": (3, 3),
    }
    assert (maps["attention.text"][1, ..., 1:] == 0).all()
