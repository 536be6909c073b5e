import numpy as np
import pytest

from diptych.metrics import (
    best_ranks,
    grid_ranks,
    measure_choices,
    measure_matches,
    measure_ranks,
    ranking,
)
from diptych.predictions import Predictions


def test_rank_of_the_best_right_candidate():
    scores = np.array([[3.0, 2, 1], [1, 2, 3], [1, 1, 1], [1, 2, 3]])
    right = np.array([[1, 0, 0], [1, 0, 0], [0, 1, 0], [0, 1, 1]], bool)
    assert best_ranks(scores, right).tolist() == [1, 3, 3, 1]
    assert best_ranks(scores[:1], right[:1] & False).tolist() == [4]


def test_choices():
    given = Predictions(ids=("a", "b"), scores=np.array([[0.1, 0.2, 0.7], [0.5, 0.3, 0.2]]))
    assert measure_choices(given, {"a": 2, "b": 2}) == {
        "accuracy": 0.5,
        "mean_reciprocal_rank": pytest.approx((1 + 1 / 3) / 2),
    }


def grid(scores):
    """Predictions of every image with every text, in another order than that of the grid."""
    cells = [(f"i{row}|t{column}", score) for (row, column), score in np.ndenumerate(scores)][::-1]
    ids, values = zip(*cells, strict=True)
    return Predictions(ids=ids, scores=np.array(values)[:, None], classes=("matches",))


def test_recall_in_both_directions():
    scores = np.array([[0.9, 0.1, 0.2, 0.3], [0.8, 0.1, 0.7, 0.6]])  # two texts per image: 0 and 1, 2 and 3
    right = {"i0|t0", "i0|t1", "i1|t2", "i1|t3"}
    given = grid(scores)
    gold = {key: int(key in right) for key in given.ids}
    measured = measure_matches(given, gold, at=(1, 2))
    assert measured["text_recall@1"] == 0.5  # image 1 likes text 0 best
    assert measured["text_recall@2"] == 1.0
    assert measured["image_recall@1"] == 0.75  # text 1 likes both images alike, which counts against it
    assert measured["image_recall@2"] == 1.0
    assert next(iter(measured)) == "text_recall@1"
    assert measured["accuracy"] == 6 / 8


def test_a_pair_that_was_not_scored_is_the_worst():
    given = grid(np.array([[0.3, 0.2], [0.4, 0.1]])).select([0, 1, 3])  # without i0|t1
    gold = {"i0|t0": 1, "i1|t0": 0, "i1|t1": 1}
    measured = measure_matches(given, gold, at=(1,))
    assert (measured["text_recall@1"], measured["image_recall@1"]) == (0.5, 0.5)


def test_pairs_whose_ids_are_no_grid_are_classified_only():
    given = Predictions(ids=("a", "b"), scores=np.array([[0.9], [0.2]]), classes=("matches",))
    assert measure_matches(given, {"a": 1, "b": 0}) == {"auroc": 1.0, "accuracy": 1.0}
    assert measure_matches(given, {"a": None, "b": None}) == {}


TABLE = np.array([[0.9, 0.1, 0.2, 0.3], [0.8, 0.1, 0.7, 0.8], [0.5, 0.1, 0.1, 0.1]])
OWNERS = np.array([0, 0, 1, 2])  # two texts of image 0, one of each other image


def test_ranks_by_hand_and_who_wins_a_tie():
    rows, columns = grid_ranks(TABLE, OWNERS)
    assert rows.tolist() == [1, 3, 4]  # of equal scores in the last row, the right one counts as last
    assert columns.tolist() == [1, 3, 1, 3]
    rows, columns = grid_ranks(TABLE, OWNERS, ties="order")
    assert rows.tolist() == [1, 3, 4]  # 0.5, and two equal ones with smaller numbers
    assert columns.tolist() == [1, 1, 1, 3]


def test_a_large_table_is_ranked_in_parts(monkeypatch):
    whole = grid_ranks(TABLE, OWNERS)
    monkeypatch.setattr(ranking, "LINES", 2)
    for part, expected in zip(grid_ranks(TABLE, OWNERS), whole, strict=True):
        assert part.tolist() == expected.tolist()


def test_pairs_that_were_not_scored_rank_behind_all_others():
    table = np.array([[0.1, np.nan], [np.nan, 0.1]])  # two folds of one image each
    for ranks in grid_ranks(table, np.array([0, 1])):
        assert ranks.tolist() == [1, 1]
    rows, _ = grid_ranks(np.array([[np.nan, 0.3], [0.1, 0.2]]), np.array([0, 1]))
    assert rows.tolist() == [2, 1]


def test_measures_of_ranks_and_their_intervals():
    found = measure_ranks(np.array([1, 7, 11]), np.arange(3), samples=200)
    values = {name: one.value for name, one in found.items()}
    third = pytest.approx(1 / 3)
    assert values == {
        "recall@1": third, "recall@5": third, "recall@10": pytest.approx(2 / 3), "median_rank": 7,
        "mean_rank": pytest.approx(19 / 3),
    }  # fmt: skip
    assert all(one.low <= one.value <= one.high for one in found.values())
    assert (found["mean_rank"].low, found["mean_rank"].high) == (1, 11)
    assert measure_ranks(np.array([3]), np.array([0]), samples=9)["recall@5"] == (1, 1, 1)


def test_captions_of_one_image_are_resampled_together():
    ranks, units = np.array([1, 9, 1, 9, 1]), np.array([0, 1, 0, 1, 0])  # of unequal number, out of order
    together = measure_ranks(ranks, units, samples=400)
    apart = measure_ranks(ranks, np.arange(5), samples=400)
    assert {name: one.value for name, one in together.items()} == {
        name: pytest.approx(one.value) for name, one in apart.items()
    }
    assert (together["recall@1"].low, together["recall@1"].high) == (0, 1)
    values = {measure_ranks(ranks, units, samples=1, seed=seed)["recall@1"].low for seed in range(20)}
    assert values <= {0, 0.6, 1}  # whole images: none, one or both of them are good
