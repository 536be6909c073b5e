"""The search finds what trying everything finds."""

from itertools import combinations, product

import numpy as np
import pytest

from diptych.calibrate.cascade_search import CANDIDATES, cheapest, last_alone


def patterns(row):
    """Every way in which two thresholds divide a row of scores: allowed and blocked, allowed first."""
    ends = [-np.inf, *np.unique(row), np.inf]
    found = {(tuple(row < low), tuple((row > high) & ~(row < low))) for low in ends for high in ends}
    return [(np.array(allowed), np.array(blocked)) for allowed, blocked in sorted(found)]


def brute_force(scores, truth, costs, *, wrong, level):
    """The least cost of any cascade within the limits; None if there is none."""
    best = None
    finals = [scores[-1] < at for at in (-np.inf, *np.unique(scores[-1]), np.inf)]
    for count in range(len(scores)):
        for asked in combinations(range(len(scores) - 1), count):
            for bands in product(*(patterns(scores[one]) for one in asked)):
                rest, allowed, cost = np.ones(len(truth), bool), np.zeros(len(truth), bool), 0.0
                for one, (low, high) in zip(asked, bands, strict=True):
                    cost += costs[one] * rest.sum()
                    allowed |= rest & low
                    rest = rest & ~low & ~high
                cost += costs[-1] * rest.sum()
                for final in finals:
                    every = allowed | (rest & final)
                    within = (every & truth).sum() <= level and (~every & ~truth).sum() <= wrong
                    if within and (best is None or cost < best):
                        best = cost
    return best


def drawn(seed, members, count, *, ties=False):
    generator = np.random.default_rng(seed)
    truth = np.arange(count) % 2 == 0
    scores = generator.normal(size=(members, count)) + np.linspace(0.8, 2, members)[:, None] * truth
    return np.round(scores * 2) / 2 if ties else scores, truth


def spent(bands, scores, truth, costs):
    """Cost, misses and wrong blocks of bands."""
    rest, allowed, cost = np.ones(len(truth), bool), np.zeros(len(truth), bool), 0.0
    for one, (low, high) in zip(bands.asked, bands.bands, strict=True):
        cost += costs[one] * rest.sum()
        below = scores[one] < low
        allowed |= rest & below
        rest &= ~below & ~(scores[one] > high)
    assert not rest.any()
    return cost, (allowed & truth).sum(), (~allowed & ~truth).sum()


@pytest.mark.parametrize(("members", "count"), [(2, 12), (3, 6)])
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(2))
def test_nothing_is_cheaper_within_the_limits(members, count, ties, seed):
    scores, truth = drawn(seed, members, count, ties=ties)
    costs = np.array([1.0, 3.0, 10.0][-members:] if seed else [1.0, 9.5, 10.0][:members])
    for wrong in (0, 2):
        found = cheapest(scores, truth, costs, wrong=wrong, levels=[0, 1])
        for level in (0, 1):
            expected = brute_force(scores, truth, costs, wrong=wrong, level=level)
            assert (level in found) == (expected is not None)
            if expected is not None:
                assert found[level].cost == pytest.approx(expected)
                cost, misses, blocked = spent(found[level], scores, truth, costs)
                assert cost == pytest.approx(expected)
                assert misses <= level
                assert blocked <= wrong


def test_four_members_and_many_scores_stay_within_the_limits():
    scores, truth = drawn(0, 4, 120)
    costs = np.array([1.0, 2.0, 4.0, 10.0])
    assert CANDIDATES[3][0] < 60
    found = cheapest(scores, truth, costs, wrong=3, levels=[1, 3])
    alone = cheapest(scores[2:], truth, costs[2:], wrong=3, levels=[3])
    for level, bands in found.items():
        cost, misses, blocked = spent(bands, scores, truth, costs)
        assert cost == pytest.approx(bands.cost)
        assert misses <= level
        assert blocked <= 3
    # More members to choose from never cost more, up to the coarser grid.
    assert found[3].cost <= alone[3].cost * 1.05


def test_the_strictest_threshold_misses_as_many_as_it_says():
    scores, truth = drawn(1, 1, 40)
    for misses in (0, 3):
        assert (scores[0][truth] < last_alone(scores[0], truth, misses)).sum() == misses
