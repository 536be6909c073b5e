import torch
from torch.nn import functional as F

from diptych.nn import Encoder, FeedForward


def test_feed_forward_is_the_formula():
    layer = FeedForward(6, 10).eval()
    x = torch.randn(2, 3, 6, generator=torch.Generator().manual_seed(0))
    inner = layer.contract(F.gelu(layer.expand(x), approximate="none"))
    torch.testing.assert_close(layer(x), layer.norm(x + inner))


def test_encoder_without_layers_is_the_identity():
    x = torch.randn(2, 3, 6)
    assert torch.equal(Encoder(0, 6, heads=2, hidden=8)(x, torch.ones(2, 3, dtype=torch.bool)), x)


def test_padding_never_changes_real_states():
    torch.manual_seed(0)
    encoder = Encoder(2, 12, heads=3, hidden=24).eval()
    x = torch.randn(2, 6, 12)
    mask = torch.tensor([[1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 0]]).bool()
    noisy = torch.where(mask[..., None], x, 1e3 * torch.randn(2, 6, 12))
    torch.testing.assert_close(encoder(noisy, mask)[mask], encoder(x, mask)[mask])
    alone = encoder(x[:1, :4], torch.ones(1, 4, dtype=torch.bool))
    torch.testing.assert_close(alone[0], encoder(x, mask)[0, :4])
