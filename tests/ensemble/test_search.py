"""Vilio's search to the bit, exact areas, and selection by hand."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from diptych.ensemble.search import area_under, greedy_search, simplex_search
from diptych.ensemble.vilio import rounded_area_under

ROWS = np.arange(24)
TRUTH = (7 * ROWS + 3) % 5 < 2
COLUMNS = np.stack(
    [
        ((step * ROWS + start) % 23) / 23 + gain * TRUTH
        for step, start, gain in ((5, 1, 0.25), (9, 4, 0.35), (13, 7, 0.15))
    ]
)


@pytest.mark.parametrize("area", [area_under, rounded_area_under])
@pytest.mark.parametrize("steps", [14, 50, 200, 3000])
def test_the_search_of_the_original(steps: int, area) -> None:
    found = simplex_search(COLUMNS, TRUTH, steps=steps, area=area)
    assert found.weights == pytest.approx([0.07538661, 0.72496506, 0.16506027], abs=1e-7)
    assert found.auroc == pytest.approx(0.9037037)
    assert found.evaluation == 14


@pytest.mark.parametrize(
    ("steps", "weights", "value", "evaluation"),
    [
        (1, (0, 0, 0), 0.5, 1),
        (2, (1, 0, 0), 0.577778, 2),
        (3, (0, 1, 0), 0.888889, 3),
        (13, (0, 1, 0), 0.888889, 3),
    ],
)
def test_the_first_evaluations(steps: int, weights: tuple[float, ...], value: float, evaluation: int) -> None:
    found = simplex_search(COLUMNS, TRUTH, steps=steps)
    assert found.weights == pytest.approx(weights)
    assert (found.auroc, found.evaluation) == (pytest.approx(value, abs=1e-6), evaluation)


@pytest.mark.parametrize("seed", range(40))
def test_areas_equal_those_of_scikit_learn(seed: int) -> None:
    generator = np.random.default_rng(seed)
    truth = generator.random(int(generator.integers(2, 300))) < 0.4
    truth[:2] = True, False
    scores = generator.normal(size=len(truth)).round(int(generator.integers(0, 4))) + 0.5 * truth
    expected = roc_auc_score(truth, scores)
    assert rounded_area_under(truth)(scores) == expected
    assert area_under(truth)(scores) == pytest.approx(expected, abs=1e-14)


def test_equal_areas_are_equal_numbers() -> None:
    truth = np.array([True, False, True, True, False, False, True])
    area = area_under(truth)
    assert area(np.zeros(7)) == 0.5
    assert area(np.array([1.0, 0, 1, 1, 0, 0, 1])) == 1
    assert area(np.array([3.0, 1, 2, 5, 4, 0, 7])) == area(np.array([30.0, 10, 20, 50, 40, 0, 70])) == 10 / 12


def test_members_that_say_nothing_get_nothing() -> None:
    truth = np.arange(20) % 2 == 0
    nothing, wrong = np.full(20, 0.3), np.where(truth, 0.2, 0.8)
    for columns in (nothing[None], np.stack((nothing, nothing, wrong))):
        found = simplex_search(columns, truth)
        assert (found.auroc, found.evaluation) == (0.5, 1)
        assert not found.weights.any()
    assert simplex_search(np.stack((nothing, -wrong)), truth).auroc == 1


def test_a_member_alone_keeps_its_place() -> None:
    for search in (simplex_search, greedy_search):
        found = search(COLUMNS[:1], TRUTH)
        assert found.weights == pytest.approx([1])
        assert found.auroc == pytest.approx(0.577778, abs=1e-6)


def test_greedy_selection_by_hand() -> None:
    found = greedy_search(COLUMNS, TRUTH)
    area, counts = area_under(TRUTH), (found.weights * (found.evaluation / 3)).round().astype(int)
    assert found.weights.sum() == pytest.approx(1)
    assert area(counts @ COLUMNS) == found.auroc >= area(COLUMNS[1])
    second = max(area(COLUMNS[1] + column) for column in COLUMNS)
    assert greedy_search(COLUMNS, TRUTH, rounds=1).weights.tolist() == [0, 1, 0]
    assert greedy_search(COLUMNS, TRUTH, rounds=2).auroc == max(second, area(COLUMNS[1]))


def test_fifteen_columns_blend_better_than_the_best() -> None:
    generator = np.random.default_rng(0)
    truth = generator.random(500) < 0.5
    columns = truth + generator.normal(size=(15, 500)) * 2
    found = simplex_search(columns, truth)
    area = area_under(truth)
    assert found.auroc == area((found.weights[:, None] * columns).sum(axis=0))
    assert found.auroc > max(area(column) for column in columns)
