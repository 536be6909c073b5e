"""Bands: against brute force, and costs that cannot be."""

import itertools

import numpy as np
import pytest

from diptych.calibrate import Costs, capacity_band
from diptych.calibrate.bands import actions
from diptych.errors import ConfigError, FormatError

CHEAP = Costs(miss=10.0, wrong_block=4.0, review=0.5, reviewer_misses=0.1, reviewer_blocks=0.05)


def expected_costs(costs, p):
    """Of allowing, reviewing and blocking at probability p."""
    wrong = (1 - p) * costs.wrong_block
    people = costs.review + p * costs.reviewer_misses * costs.miss + costs.reviewer_blocks * wrong
    return p * costs.miss, people, wrong


@pytest.mark.parametrize(
    "costs",
    [CHEAP, Costs(miss=1.0, wrong_block=9.0, review=0.2), Costs(miss=5.0, wrong_block=5.0, review=0.0)],
)
def test_the_band_takes_the_cheapest_action_everywhere(costs):
    assert costs.review_pays
    low, high = costs.band
    for p in np.linspace(0.001, 0.999, 400):
        best = int(np.argmin(expected_costs(costs, p)))
        assert best == (0 if p < low else 2 if p > high else 1)


def test_reviews_that_never_pay_leave_one_threshold():
    costs = Costs(miss=3.0, wrong_block=1.0, review=5.0)
    assert not costs.review_pays
    assert costs.band == (0.25, 0.25)
    assert expected_costs(costs, 0.25)[0] == expected_costs(costs, 0.25)[2]


def test_costs_are_those_of_the_actions():
    truth = np.array([True, False] * 3)
    allowed, blocked = np.array([1, 1, 0, 0, 0, 0], bool), np.array([0, 0, 1, 1, 0, 0], bool)
    assert CHEAP.of(truth, allowed, blocked).tolist() == [10, 0, 0, 4, 1.5, 0.7]


@pytest.mark.parametrize("share", [0.0, 0.1, 0.35, 1.0])
def test_the_band_of_a_capacity_is_the_best_of_all(share):
    generator = np.random.default_rng(0)
    for seed in range(6):
        scores = generator.random(40).round(1 if seed % 2 else 5)  # with and without equal scores
        truth = generator.random(40) < scores
        band = capacity_band(scores, truth, share=share, costs=CHEAP)

        def cost(allowed, blocked, truth=truth):
            return 10 * (allowed & truth).sum() + 4 * (blocked & ~truth).sum()

        allowed, blocked = actions(scores, band)
        assert (~allowed & ~blocked).mean() <= share
        edges = [-1.0, *(np.unique(scores) + 1e-9)]
        every = [
            cost(scores <= low, scores > high)
            for low, high in itertools.combinations_with_replacement(edges, 2)
            if ((scores > low) & (scores <= high)).mean() <= share
        ]
        assert cost(allowed, blocked) == min(every)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("miss", 0.0),
        ("wrong_block", -1.0),
        ("review", float("nan")),
        ("reviewer_misses", 1.0),
        ("miss", float("inf")),
    ],
)
def test_impossible_costs_name_the_key(key, value, tmp_path):
    good = {"miss": 1.0, "wrong_block": 1.0, "review": 0.1}
    with pytest.raises(ConfigError, match=key):
        Costs(**good | {key: value})
    path = tmp_path / "costs.yaml"
    written = {float("inf"): ".inf"}.get(value, value) if value == value else ".nan"
    path.write_text("".join(f"{name}: {one}\n" for name, one in (good | {key: written}).items()))
    with pytest.raises(ConfigError, match=rf"costs\.yaml: .*{key}"):
        Costs.load(path)


@pytest.mark.parametrize(
    "text", ["miss: 1\n", "miss: 1\nwrong_block: 1\nreview: 1\nmore: 2\n", "[1]", "miss: x\n"]
)
def test_files_of_other_content_are_refused(text, tmp_path):
    (tmp_path / "costs.yaml").write_text(text)
    with pytest.raises(FormatError, match=r"costs\.yaml"):
        Costs.load(tmp_path / "costs.yaml")
