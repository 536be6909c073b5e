import math

import pytest
import torch
from torch import nn

from diptych.errors import ConfigError
from diptych.nn import Attention, Encoder, capture_attention


def rows(count, width, seed=0):
    return torch.randn(2, count, width, generator=torch.Generator().manual_seed(seed))


def by_hand(layer, x, mask, context):
    """The formula, head by head and row by row."""
    states = []
    for one, other, real in zip(x, context, mask, strict=True):
        q, k, v = layer.query(one), layer.key(other[real]), layer.value(other[real])
        size = q.shape[1] // layer.heads
        heads = []
        for head in range(layer.heads):
            part = slice(head * size, (head + 1) * size)
            weights = (q[:, part] @ k[:, part].T / math.sqrt(size)).softmax(-1)
            heads.append(weights @ v[:, part])
        states.append(layer.norm(one + layer.out(torch.cat(heads, 1))))
    return torch.stack(states)


def test_self_attention_is_the_formula():
    layer, x = Attention(12, 3).eval(), rows(5, 12)
    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 0, 1, 1, 1]]).bool()
    torch.testing.assert_close(layer(x, mask), by_hand(layer, x, mask, x))


def test_cross_attention_takes_other_widths():
    layer, x, context = Attention(12, 2, context_dim=7, inner_dim=10).eval(), rows(5, 12), rows(4, 7, 1)
    mask = torch.tensor([[1, 1, 1, 0], [0, 0, 0, 1]]).bool()
    torch.testing.assert_close(layer(x, mask, context), by_hand(layer, x, mask, context))


def test_nothing_to_attend_gives_zeros_and_not_nan():
    layer, x = Attention(12, 3).eval(), rows(5, 12)
    nothing = torch.zeros(2, 5, dtype=torch.bool)
    expected = layer.norm(x + layer.out.bias)
    torch.testing.assert_close(layer(x, nothing), expected)
    with capture_attention(layer) as maps:
        torch.testing.assert_close(layer(x, nothing), expected)
    assert not maps[""].any()


def test_bfloat16_attends_alike():
    layer, x = Attention(12, 3).eval(), rows(5, 12)
    mask = torch.tensor([[1, 1, 1, 0, 0], [0, 0, 0, 0, 0]]).bool()
    with torch.autocast("cpu", torch.bfloat16):
        rough = layer(x, mask)
    torch.testing.assert_close(rough.float(), layer(x, mask), atol=0.03, rtol=0.03)


def test_width_must_be_divisible_by_heads():
    with pytest.raises(ConfigError, match=r"\(=10\).*heads \(=3\)"):
        Attention(10, 3)


def test_capture_gives_every_map_and_changes_nothing():
    encoder, x = Encoder(3, 12, heads=2, hidden=24).eval(), rows(5, 12)
    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]).bool()
    model = nn.ModuleDict({"encoder": encoder})
    plain = encoder(x, mask)
    with capture_attention(model) as maps:
        torch.testing.assert_close(encoder(x, mask), plain)
    assert sorted(maps) == [f"encoder.layers.{number}.attention" for number in range(3)]
    weights = maps["encoder.layers.2.attention"]
    assert weights.shape == (2, 2, 5, 5)
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 2, 5))
    assert not weights[0, :, :, 3:].any()
    seen = len(maps)
    encoder(x, mask)
    assert len(maps) == seen
    assert all(layer.attention.record is None for layer in encoder.layers)


def test_captured_maps_have_all_queries_whatever_is_kept():
    layer, x = Attention(12, 2).eval(), rows(5, 12)
    mask = torch.ones(2, 5, dtype=torch.bool)
    kept = layer(x, mask, keep=slice(1, 3))
    torch.testing.assert_close(kept, layer(x, mask)[:, 1:3])
    with capture_attention(layer) as maps:
        torch.testing.assert_close(layer(x, mask, keep=slice(1, 3)), kept)
    assert maps[""].shape == (2, 2, 5, 5)


def test_captured_maps_have_gradients():
    encoder, x = Encoder(1, 12, heads=2, hidden=24).eval(), rows(5, 12)
    with capture_attention(encoder) as maps:
        out = encoder(x, torch.ones(2, 5, dtype=torch.bool))
    (gradient,) = torch.autograd.grad(out[:, 0, 0].sum(), maps["layers.0.attention"])
    assert gradient.abs().sum() > 0


def test_capture_ends_with_an_error_inside():
    layer = Attention(12, 3)
    with pytest.raises(KeyError), capture_attention(layer):
        raise KeyError
    assert layer.record is None


def test_attention_dropout_acts_in_training_only():
    layer, x = Attention(12, 3, dropout=0.0, attention_dropout=0.5), rows(5, 12)
    mask = torch.ones(2, 5, dtype=torch.bool)
    torch.manual_seed(0)
    assert not torch.equal(layer(x, mask), layer(x, mask))
    layer.eval()
    assert torch.equal(layer(x, mask), layer(x, mask))
