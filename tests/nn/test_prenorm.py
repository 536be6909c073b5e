import pytest
import torch
from torch import nn
from torch.nn import functional as F

from diptych.nn import AttentionPool, PreNormEncoder, Sizes
from diptych.nn.prenorm import QuickGELU

SIZES = Sizes(dim=12, heads=3, hidden=20, layers=2)


def build(**options):
    torch.manual_seed(0)
    return PreNormEncoder(SIZES, **options).eval()


def test_quick_gelu_is_close_to_gelu():
    x = torch.linspace(-6, 6, 200)
    difference = (QuickGELU()(x) - F.gelu(x)).abs().max()
    assert 0.01 < difference < 0.03


def test_a_layer_equals_torchs():
    """With the exact GELU, torch's own layer computes the same."""
    encoder = build()
    layer = encoder.layers[0]
    peer = nn.TransformerEncoderLayer(
        12, 3, 20, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
    ).eval()
    part = layer.attention
    packed = {
        kind: torch.cat([getattr(one, kind) for one in (part.query, part.key, part.value)])
        for kind in ("weight", "bias")
    }
    with torch.no_grad():
        peer.self_attn.in_proj_weight.copy_(packed["weight"])
        peer.self_attn.in_proj_bias.copy_(packed["bias"])
    peer.self_attn.out_proj.load_state_dict(part.out.state_dict())
    peer.linear1.load_state_dict(layer.feedforward.expand.state_dict())
    peer.linear2.load_state_dict(layer.feedforward.contract.state_dict())
    peer.norm1.load_state_dict(layer.attention_norm.state_dict())
    peer.norm2.load_state_dict(layer.feedforward_norm.state_dict())
    x = torch.randn(2, 7, 12)
    torch.testing.assert_close(layer(x), peer(x), atol=1e-5, rtol=1e-5)
    mask = nn.Transformer.generate_square_subsequent_mask(7)
    torch.testing.assert_close(layer(x, causal=True), peer(x, mask), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("causal", [False, True])
def test_picked_positions_have_the_states_that_all_have(causal):
    encoder, x = build(causal=causal), torch.randn(2, 7, 12)
    at = torch.tensor([[0, 6], [3, 3]])
    whole = encoder(x)
    expected = torch.stack([whole[row, positions] for row, positions in enumerate(at)])
    torch.testing.assert_close(encoder(x, at), expected, atol=1e-5, rtol=1e-5)


def test_causal_positions_never_see_later_ones():
    encoder, x = build(causal=True), torch.randn(1, 7, 12)
    later = x.clone()
    later[:, 4:, 0] += 5  # a shift of all values would not pass the norm
    torch.testing.assert_close(encoder(later)[:, :4], encoder(x)[:, :4])
    assert not torch.allclose(build()(later)[:, :4], build()(x)[:, :4])


def test_attention_pooling_does_not_know_the_order():
    torch.manual_seed(0)
    pool = AttentionPool(SIZES, activation="gelu_tanh", eps=1e-6).eval()
    states = torch.randn(2, 5, 12)
    torch.testing.assert_close(pool(states.flip(1)), pool(states), atol=1e-5, rtol=1e-5)
