import torch

from diptych.nn import FirstToken


def test_first_token_is_dense_and_tanh_of_the_first_state():
    pool, states = FirstToken(6), torch.randn(2, 3, 6, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(pool(states), torch.tanh(pool.dense(states[:, 0])))
