import pytest
import torch
from torch import nn

from diptych.errors import ConfigError
from diptych.nn import ClassifierHead


def test_one_layer_is_a_linear():
    head, x = ClassifierHead(6, 3), torch.randn(4, 6)
    assert [type(layer) for layer in head.layers] == [nn.Linear]
    torch.testing.assert_close(head(x), nn.functional.linear(x, head.layers[0].weight, head.layers[0].bias))


@pytest.mark.parametrize(("activation", "kind"), [("gelu", nn.GELU), ("relu", nn.ReLU)])
def test_two_layers_widen_and_normalize(activation, kind):
    head = ClassifierHead(6, 3, layers=2, width=4, activation=activation)
    assert [type(layer) for layer in head.layers] == [nn.Linear, kind, nn.LayerNorm, nn.Linear]
    assert head.layers[0].weight.shape == (24, 6)
    assert head(torch.randn(2, 5, 6)).shape == (2, 5, 3)


def test_the_hidden_layer_of_oscar():
    head = ClassifierHead(6, 3, layers=2, width=1.5, activation="relu", norm=False)
    assert [type(layer) for layer in head.layers] == [nn.Linear, nn.ReLU, nn.Linear]
    assert head.layers[0].weight.shape == (9, 6)


def test_dropout_comes_first():
    head, x = ClassifierHead(6, 3, dropout=1.0), torch.randn(4, 6)
    torch.testing.assert_close(head.train()(x), head.layers[0].bias.expand(4, 3))
    assert not torch.equal(head.eval()(x), head.layers[0].bias.expand(4, 3))


def test_three_layers_are_refused():
    with pytest.raises(ConfigError, match="layers=3"):
        ClassifierHead(6, 3, layers=3)


def test_hidden_dropout_comes_before_the_last_layer():
    head, x = ClassifierHead(6, 3, layers=2, hidden_dropout=1.0), torch.randn(4, 6)
    torch.testing.assert_close(head.train()(x), head.layers[-1].bias.expand(4, 3))
    torch.testing.assert_close(head.eval()(x), head.layers(x))


def test_samples_are_the_mean_of_passes_in_training_only():
    torch.manual_seed(0)
    head, x = ClassifierHead(6, 3, dropout=0.5, samples=5), torch.randn(4, 6)
    torch.manual_seed(1)
    got = head.train()(x)
    torch.manual_seed(1)
    passes = [head.layers(nn.functional.dropout(x, 0.5)) for _ in range(5)]
    torch.testing.assert_close(got, torch.stack(passes).mean(0))
    torch.testing.assert_close(head.eval()(x), head.layers(x))
    with pytest.raises(ConfigError, match="samples=0"):
        ClassifierHead(6, 3, samples=0)


def test_a_hidden_layer_of_no_channels_is_refused():
    with pytest.raises(ConfigError, match="width is 0"):
        ClassifierHead(6, 3, layers=2, width=0.05)
