import numpy as np
import pytest

from diptych.metrics import best_ranks, measure_choices, measure_matches
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
