import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from diptych.nn import WeightNormHead, WeightNormLinear


def test_it_is_a_plain_linear_at_first():
    torch.manual_seed(0)
    layer, x = WeightNormLinear(6, 4), torch.randn(3, 6)
    assert layer.scale.shape == ()
    assert not layer.bias.any()
    torch.testing.assert_close(layer(x), x @ layer.direction.T)


def test_it_equals_torchs_own_over_the_whole_matrix():
    torch.manual_seed(0)
    layer, peer, x = WeightNormLinear(6, 4), weight_norm(nn.Linear(6, 4), dim=None), torch.randn(3, 6)
    with torch.no_grad():
        layer.scale.fill_(2.5)
        peer.parametrizations.weight.original0.fill_(2.5)
        peer.parametrizations.weight.original1.copy_(3 * layer.direction)  # the length is the scale's alone
        layer.bias.copy_(peer.bias)
    torch.testing.assert_close(layer(x), peer(x))
    layer(x).square().sum().backward()
    peer(x).square().sum().backward()
    torch.testing.assert_close(layer.scale.grad, peer.parametrizations.weight.original0.grad)


def test_head_is_two_of_them():
    torch.manual_seed(0)
    head, x = WeightNormHead(6, 3, width=4), torch.randn(5, 6)
    assert head.layers[0].direction.shape == (24, 6)
    assert not torch.equal(head(x), head(x))
    head.eval()
    torch.testing.assert_close(head(x), head.layers[3](head.layers[0](x).relu()))
