"""Votes of cases: they add up, they end where similarity ends, and each policy has its own."""

from dataclasses import replace

import numpy as np
import pytest
from tests.memory.toy import case, memory_of

from diptych.errors import ConfigError
from diptych.memory import Learned, recall_all

LEARNED = Learned(least=0.5, weight=3.0, split="dev", checksum="x", examples=40)
NEAR, FAR = np.array([[1.0, 0.0]], np.float32), np.array([[0.0, -1.0]], np.float32)
SCORES = np.array([[0.9, 0.1]])


def odds(scores):
    return np.log(scores["hateful"] / scores["benign"])


def test_a_vote_moves_the_log_odds_by_its_contribution():
    memory = replace(memory_of([1, 0.2], [1, -1], labels=["hateful", "benign"]), learned=LEARNED)
    (recall,) = recall_all(memory, NEAR, SCORES)
    assert recall.before == {"benign": 0.9, "hateful": 0.1}
    signed = {"hateful": 1, "benign": -1}
    moved = sum(signed[one.case.label] * one.contribution for one in recall.cases)
    assert odds(recall.scores) - odds(recall.before) == pytest.approx(moved, abs=1e-6)
    assert [one.case.id for one in recall.cases] == ["0", "1"]
    assert recall.cases[0].similarity == pytest.approx(1 / np.hypot(1, 0.2))
    # The first of two has twice the weight of the second.
    expected = 3.0 * 2 / 3 * recall.cases[0].similarity
    assert recall.cases[0].contribution == pytest.approx(expected)


def test_what_no_case_is_near_to_keeps_its_score_to_the_bit():
    memory = replace(memory_of([1, 0]), learned=LEARNED)
    scores = np.array([[0.3, 0.7]])
    (recall,) = recall_all(memory, FAR, scores)
    assert (recall.scores["benign"], recall.scores["hateful"]) == (0.3, 0.7)
    assert [one.contribution for one in recall.cases] == [0.0]


def test_a_new_case_counts_at_once_and_a_removed_one_no_more():
    memory = replace(memory_of([0, 1]), learned=LEARNED)
    before = recall_all(memory, NEAR, SCORES)[0].scores
    taught = memory.with_cases([case("new")], NEAR)
    assert recall_all(taught, NEAR, SCORES)[0].scores["hateful"] > 0.6
    assert recall_all(taught.without(["new"]), NEAR, SCORES)[0].scores == before


def test_before_a_fit_cases_are_shown_and_change_nothing():
    (recall,) = recall_all(memory_of([1, 0]), NEAR, SCORES)
    assert recall.scores == recall.before
    assert recall.cases[0].case.id == "0"


def test_policies_vote_on_their_own():
    memory = replace(memory_of([1, 0]), learned=LEARNED)
    both = memory.with_cases([case("s", policy="spam")], np.array([[1, 0.1]], np.float32))
    one, other, together = (
        odds(recall_all(both, NEAR, SCORES, policies=names)[0].scores) - odds({"benign": 0.9, "hateful": 0.1})
        for names in (["main"], ["spam"], None)
    )
    assert one > 0
    assert together == pytest.approx(one + other, abs=1e-6)
    with pytest.raises(ConfigError, match="'spam'"):
        recall_all(both, NEAR, SCORES, policies=["span"])
    with pytest.raises(ConfigError, match="3 numbers"):
        recall_all(both, np.zeros((1, 3), np.float32), SCORES)


def test_three_classes_share_what_a_vote_moves():
    memory = replace(
        memory_of([1, 0]),
        classes=("a", "hateful", "c"),
        cases=(replace(case("0"), scores=(0.2, 0.3, 0.5)),),
        learned=LEARNED,
    )
    (recall,) = recall_all(memory, NEAR, np.array([[0.5, 0.2, 0.3]]))
    assert sum(recall.scores.values()) == pytest.approx(1)
    assert recall.scores["hateful"] > 0.6
    assert recall.scores["a"] / recall.scores["c"] == pytest.approx(0.5 / 0.3)
