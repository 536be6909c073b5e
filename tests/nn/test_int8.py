import copy

import pytest
import torch
from torch import nn

from diptych.errors import ConfigError
from diptych.nn import Encoder, Int8Linear, to_int8


@pytest.fixture(scope="module")
def both() -> tuple[nn.Linear, Int8Linear]:
    torch.manual_seed(0)
    plain = nn.Linear(96, 40).requires_grad_(False)
    return plain, Int8Linear(plain)


def test_it_is_close_to_the_layer_in_single_precision(both) -> None:
    plain, rounded = both
    x = torch.randn(2, 5, 96)
    expected, got = plain(x), rounded(x)
    assert got.shape == expected.shape
    assert 0 < (got - expected).abs().max() < 0.02 * expected.abs().max()


def test_it_computes_what_its_rounding_says(both) -> None:
    plain, rounded = both
    x = torch.randn(7, 96).double()
    scale = plain.weight.abs().amax(1, keepdim=True) / 127
    weight = ((plain.weight / scale).round() * scale).double()
    low, high = x.aminmax(dim=1, keepdim=True)
    step = (high - low) / 127
    expected = (low + step * ((x - low) / step).round()) @ weight.T + plain.bias
    torch.testing.assert_close(rounded(x.float()).double(), expected, atol=1e-5, rtol=1e-4)


def test_large_values_of_one_sign_do_not_overflow() -> None:
    # pairs of products are added in 16 bits on processors without VNNI
    plain = nn.Linear(64, 4).requires_grad_(False)
    plain.weight.fill_(1.0)
    x = torch.full((1, 64), 3.0)
    x[0, 0] = -3.0
    torch.testing.assert_close(Int8Linear(plain)(x), plain(x), atol=1e-3, rtol=1e-3)


def test_a_row_does_not_depend_on_the_rows_beside_it(both) -> None:
    x = torch.randn(6, 96)
    x[3] *= 1000  # would take the whole range of a scale that all share
    together = both[1](x)
    for row in range(6):
        assert torch.equal(both[1](x[row : row + 1])[0], together[row])


@pytest.mark.parametrize("value", [0.0, 2.5])
def test_constant_rows_are_exact_up_to_the_weights(both, value: float) -> None:
    x = torch.full((1, 96), value)
    torch.testing.assert_close(both[1](x), both[0](x), atol=0.02, rtol=0.02)


def test_no_rows_and_no_numbers(both) -> None:
    assert both[1](torch.zeros(3, 0, 96)).shape == (3, 0, 40)
    for odd in (float("nan"), float("inf")):
        x = torch.randn(2, 96)
        x[1, 7] = odd
        got = both[1](x)
        assert got[0].isfinite().all()
        assert not got[1].isfinite().any()


def test_gradients_are_refused(both) -> None:
    with pytest.raises(ConfigError, match="int8"):
        both[1](torch.randn(2, 96, requires_grad=True))


def test_layers_are_replaced_wherever_they_stand() -> None:
    torch.manual_seed(0)
    shared = nn.Linear(32, 32)
    model = nn.ModuleDict(
        {"first": shared, "again": shared, "narrow": nn.Linear(7, 32), "heads": nn.MultiheadAttention(32, 4)}
    )
    assert to_int8(model) == 1
    assert model["first"] is model["again"]
    assert isinstance(model["first"], Int8Linear)
    assert type(model["narrow"]) is nn.Linear
    assert not any(isinstance(part, Int8Linear) for part in model["heads"].modules())


def test_padding_changes_nothing() -> None:
    torch.manual_seed(0)
    encoder = Encoder(2, 32, heads=4, hidden=64).eval().requires_grad_(False)
    rounded = copy.deepcopy(encoder)
    assert to_int8(rounded) == 12
    x, mask = torch.randn(2, 9, 32), torch.arange(9) < torch.tensor([[9], [5]])
    expected, full = encoder(x, mask), rounded(x, mask)
    torch.testing.assert_close(rounded(x[1:, :5], mask[1:, :5])[0], full[1, :5], atol=1e-5, rtol=1e-5)
    assert (full - expected)[mask].abs().max() < 0.1
