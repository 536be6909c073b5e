import pytest
import torch

from diptych.errors import ConfigError
from diptych.nn import TextEmbedding
from diptych.types import PaddedText


def padded(ids, segments=None):
    ids = torch.tensor(ids)
    segments = torch.zeros_like(ids) if segments is None else torch.tensor(segments)
    return PaddedText(ids=ids, mask=ids > 0, segments=segments)


def test_embedding_is_the_sum_of_three_tables():
    layer = TextEmbedding(9, 6, max_positions=5, segments=3).eval()
    got = layer(padded([[4, 7, 8]], [[0, 2, 1]]))[0]
    tables = layer.words.weight[[4, 7, 8]] + layer.positions.weight[:3] + layer.segments.weight[[0, 2, 1]]
    torch.testing.assert_close(got, layer.norm(tables))


def test_each_table_has_its_own_padding_row():
    layer = TextEmbedding(9, 6, word_padding=3, position_padding=0, segment_padding=None).eval()
    layer(padded([[3, 4]]))[..., 0].sum().backward()
    assert not layer.words.weight.grad[3].any()
    assert not layer.positions.weight.grad[0].any()
    assert layer.words.weight.grad[4].any()
    assert layer.positions.weight.grad[1].any()
    assert layer.segments.weight.grad[0].any()


def test_too_long_a_text_says_what_to_do():
    layer = TextEmbedding(9, 6, max_positions=2)
    with pytest.raises(ConfigError, match=r" 3 .* 2 .*processor\.max_tokens"):
        layer(padded([[4, 7, 8]]))
