import torch

from diptych.nn import FirstToken, before_end


def test_first_token_is_dense_and_tanh_of_the_first_state():
    pool, states = FirstToken(6), torch.randn(2, 3, 6, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(pool(states), torch.tanh(pool.dense(states[:, 0])))


def test_before_end_is_the_token_before_the_last_real_one():
    states = torch.arange(4 * 5, dtype=torch.float32).reshape(4, 5, 1)
    mask = torch.arange(5) < torch.tensor([5, 3, 2, 1])[:, None]
    assert before_end(states, mask).squeeze(-1).tolist() == [3, 6, 10, 15]
