from types import SimpleNamespace

import pytest
import torch
from torch import nn

from diptych.errors import ConfigError
from diptych.nn import FirstToken, LayerAverage, PairAttention, Pooled, before_end
from diptych.types import Batch, Encoding, Inputs, PaddedRegions, PaddedText


class Widths(nn.Module):
    needs = frozenset({"text", "regions"})

    def __init__(self, dim=8, text_dim=8, region_dim=8):
        super().__init__()
        self.dim, self.text_dim, self.region_dim = dim, text_dim, region_dim

    def word_embedding(self):
        return None


def states(lengths, counts, *, extra=0):
    """Rows of random states; positions that are not real hold noise."""
    generator = torch.Generator().manual_seed(0)
    rows, tokens, regions = len(lengths), max(lengths), max(counts)
    text, seen = (torch.randn(rows, size, 8, generator=generator) for size in (tokens, regions))
    noise = torch.full((rows, extra, 8), 7.0)
    text, seen = torch.cat([text, noise], 1), torch.cat([seen, noise], 1)
    mask = torch.arange(tokens + extra) < torch.tensor(lengths)[:, None]
    there = torch.arange(regions + extra) < torch.tensor(counts)[:, None]
    zeros = torch.zeros(mask.shape, dtype=torch.int64)
    inputs = Inputs(
        text=PaddedText(ids=zeros, mask=mask, segments=zeros),
        regions=PaddedRegions(
            features=seen,
            boxes=torch.zeros(*there.shape, 4),
            mask=there,
            image_index=torch.zeros(there.shape, dtype=torch.int64),
            sizes=torch.ones(rows, 2),
        ),
    )
    return SimpleNamespace(
        encoding=Encoding(pooled=text[:, 0], text=text, regions=seen),
        batch=Batch(ids=("a", "b"), inputs=inputs, pairs=rows // 2),
    )


def test_first_token_is_dense_and_tanh_of_the_first_state():
    pool, states = FirstToken(6), torch.randn(2, 3, 6, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(pool(states), torch.tanh(pool.dense(states[:, 0])))


def test_before_end_is_the_token_before_the_last_real_one():
    states = torch.arange(4 * 5, dtype=torch.float32).reshape(4, 5, 1)
    mask = torch.arange(5) < torch.tensor([5, 3, 2, 1])[:, None]
    assert before_end(states, mask).squeeze(-1).tolist() == [3, 6, 10, 15]


def test_layer_average_starts_near_the_last_layer():
    average, layers = LayerAverage(2).eval(), [torch.full((1, 3, 4), float(n)) for n in range(3)]
    last = 1 / (1 + 2 * torch.tensor(-3.0).exp())
    torch.testing.assert_close(average(layers), torch.full((1, 4), 1.0) * (last * 2 + (1 - last) / 2))
    torch.manual_seed(0)
    ones = [torch.ones(1, 3, 4)] * 3
    assert average.train()(ones).unique().numel() > 1  # every state has a dropout of its own


def test_pooled_puts_pairs_side_by_side():
    given, readout = states((4, 2, 3, 4), (2, 2, 2, 2)), Pooled(Widths(), 2)
    assert readout.dim == 16
    joint = readout(given.encoding, given.batch)
    assert torch.equal(joint[1], given.encoding.pooled[2:].flatten())


def test_pair_attention_never_sees_padding_and_tells_sides_apart():
    torch.manual_seed(0)
    readout = PairAttention(Widths(), 2, heads=2).eval()
    given, padded = (states((4, 2, 3, 4), (2, 1, 2, 2), extra=extra) for extra in (0, 3))
    vectors = readout(given.encoding, given.batch)
    assert vectors.shape == (2, readout.dim)
    torch.testing.assert_close(readout(padded.encoding, padded.batch), vectors)
    swapped = readout(given.encoding.map(lambda one: one.flip(0)), given.batch.map(lambda one: one.flip(0)))
    assert not torch.allclose(swapped.flip(0), vectors.roll(8, 1), atol=1e-3)


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        (Widths(), {"pairs": 1}, "PairAttention .* 2 .* 1 .* 8 .* 8 .*Widths"),
        (Widths(region_dim=4), {}, " 8 and 4 "),
        (Widths(text_dim=0, region_dim=0), {}, " 0 and 0 "),
        (Widths(), {"heads": 3}, r"\(=8\).*heads \(=3\)"),
    ],
)
def test_what_pair_attention_refuses(model, options, message):
    with pytest.raises(ConfigError, match=message):
        PairAttention(model, **options)
