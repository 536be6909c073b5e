import numpy as np
import pytest

from diptych.explain import draw_orders, exact_shapley, sampled_shapley, shapley, text_share


def game(coalitions):
    """Three players: the first two score together, the third alone; the fourth does nothing."""
    return 2.0 * (coalitions[:, 0] & coalitions[:, 1]) + 3.0 * coalitions[:, 2] + 1.0


def test_partners_share_and_a_dummy_gets_nothing():
    np.testing.assert_allclose(exact_shapley(game, 4).values, [1, 1, 3, 0], atol=1e-12)


def test_antithetic_orders_are_exact_for_pairs():
    found = sampled_shapley(game, draw_orders(4, 2))
    np.testing.assert_allclose(found.values, [1, 1, 3, 0], atol=1e-12)
    np.testing.assert_allclose(found.errors, 0, atol=1e-12)
    assert found.evaluations <= 2 * 2 * 4


def test_estimates_sum_to_the_whole_and_errors_shrink():
    random = np.random.default_rng(0).normal(size=1 << 10)

    def value(coalitions):
        return random[coalitions @ (1 << np.arange(10))]

    few, many = (sampled_shapley(value, draw_orders(10, count)) for count in (10, 160))
    for found in (few, many):
        assert found.values.sum() == pytest.approx(random[-1] - random[0])
    assert many.errors.mean() < few.errors.mean() / 2
    exact = exact_shapley(value, 10).values
    assert np.abs(many.values - exact).mean() < 2 * many.errors.mean()


def test_few_players_are_computed_exactly():
    assert shapley(game, 4).permutations == 0
    assert shapley(game, 4).evaluations == 16
    assert shapley(game, 12).permutations == 10
    assert shapley(lambda coalitions: coalitions.sum(1) * 1.0, 0).values.shape == (0,)


def test_equal_seeds_draw_equal_orders():
    np.testing.assert_array_equal(draw_orders(9, 3, seed=1), draw_orders(9, 3, seed=1))
    assert (draw_orders(9, 3, seed=1) != draw_orders(9, 3, seed=2)).any()


def test_the_share_of_the_text():
    text = np.array([True, True, False])
    assert text_share(np.array([1.0, -1.0, 2.0]), text) == 0.5
    assert text_share(np.zeros(3), text) is None
