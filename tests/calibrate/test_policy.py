"""Policies: written and read they decide alike; for another model, or damaged, they are refused."""

import csv
from dataclasses import replace

import numpy as np
import pytest
import yaml

from diptych.calibrate import Costs, Map, Policy, Rule, write_decisions
from diptych.errors import ConfigError, FormatError
from diptych.predictions import Predictions

PLATT = Map(method="platt", a=0.8, b=0.8, c=-0.3)
STEPS = Map(method="isotonic", knots=(-2.0, 0.0, 1.5), values=(0.1, 0.1, 0.8))


def rule(mapped=PLATT, allow=0.2, block=0.7):
    return Rule(map=mapped, allow=allow, block=block, positives=40, negatives=60, max_miss=0.05)


def policy(**labels):
    return Policy(
        labels=labels or {"hateful": rule()},
        model="abc",
        dev={"split": "dev", "checksum": "x", "examples": 100, "scores": "as predicted"},
        made="2026-01-02",
        version="0.1.0",
        delta=0.1,
        costs=Costs(miss=2.0, wrong_block=1.0, review=0.1),
    )


def test_scores_at_a_threshold_go_to_people():
    decisions = policy().decide(np.array([0.0, 0.19, 0.2, 0.5, 0.7, 0.71, 1.0]))
    assert decisions.action == ("allow", "allow", "review", "review", "review", "block", "block")
    assert decisions.probability == pytest.approx(PLATT(np.array([0.0, 0.19, 0.2, 0.5, 0.7, 0.71, 1.0])))
    never = policy(hateful=rule(allow=None, block=None)).decide(np.array([0.0, 1.0]))
    assert never.action == ("review", "review")


def test_the_most_severe_action_of_all_labels_counts():
    found = policy(race=rule(), sex=rule(STEPS, allow=0.4, block=None)).decide(
        np.array([[0.1, 0.1], [0.1, 0.5], [0.9, 0.9], [0.5, 0.6]])
    )
    assert found.action == ("allow", "review", "block", "review")
    # The second asks for the review alone; of two that ask, the more probable one is named.
    assert found.label[1:] == ("sex", "race", "race")
    assert found.probability[1] == pytest.approx(0.1)


def test_predictions_are_decided_by_the_names_of_labels():
    scores = np.array([[0.9, 0.1], [0.2, 0.8]])
    predictions = Predictions(ids=("a", "b"), scores=scores, classes=("benign", "hateful"))
    assert policy().decide(predictions).action == ("allow", "block")
    with pytest.raises(FormatError, match="'violent'"):
        policy(violent=rule()).decide(predictions)


@pytest.mark.parametrize("bad", [np.nan, -0.1, 1.5])
def test_other_numbers_than_probabilities_are_refused(bad):
    with pytest.raises(FormatError, match=r"1 example.*row 1"):
        policy().decide(np.array([0.5, bad]))
    with pytest.raises(FormatError, match="2 columns"):
        policy().decide(np.array([[0.5, 0.5]]))


@pytest.mark.parametrize("model", ["other", None])
def test_another_model_is_refused(model):
    policy().require_model("abc")
    with pytest.raises(ConfigError, match="abc"):
        policy().require_model(model)
    with pytest.raises(ConfigError, match="unknown"):
        replace(policy(), model=None).require_model(None)


def test_why_tells_both_thresholds_as_probabilities():
    why = policy().why("hateful", 0.5)
    for score in (0.5, 0.2, 0.7):
        assert f"{PLATT(np.array([score]))[0]:.3f}" in why
    assert "none" in policy(hateful=rule(allow=None)).why("hateful", 0.5)


def test_written_and_read_it_decides_alike(tmp_path):
    made = policy(a=rule(), b=rule(STEPS, block=None))
    made.save(tmp_path / "policy.yaml")
    read = Policy.load(tmp_path / "policy.yaml")
    assert read == made
    scores = np.random.default_rng(0).random((50, 2))
    assert read.decide(scores).action == made.decide(scores).action


DAMAGE = [
    ("labels.h.map.method", "magic"),
    ("labels.h.map.a", -1.0),
    ("labels.h.map.c", float("nan")),
    ("labels.h.map.knots", [1.0, 0.0]),
    ("labels.h.allow", 0.9),
    ("labels.h.allow", float("nan")),
    ("labels.h.positives", 0),
    ("labels", {}),
    ("diptych_policy", 2),
    ("dev.scores", "guessed"),
    ("costs.miss", -1.0),
    ("more", 1),
]


@pytest.mark.parametrize(("key", "value"), DAMAGE)
def test_damaged_policies_name_the_file(key, value, tmp_path):
    tree = policy(h=rule()).as_dict()
    *path, last = key.split(".")
    place = tree
    for name in path:
        place = place[name]
    place[last] = value
    (tmp_path / "policy.yaml").write_text(yaml.safe_dump(tree))
    with pytest.raises(FormatError, match=r"policy\.yaml"):
        Policy.load(tmp_path / "policy.yaml")


@pytest.mark.parametrize(
    "change", [{"knots": ()}, {"values": (0.1, 0.9, 0.2)}, {"values": (0.1, 0.2)}, {"knots": (1.0, 1.0, 2.0)}]
)
def test_steps_that_fall_are_refused(change):
    with pytest.raises(ConfigError, match=r"map\."):
        rule(replace(STEPS, **change))


def test_decisions_are_kept_unless_they_differ(tmp_path):
    path = tmp_path / "out" / "dev.csv"
    decisions = policy().decide(np.array([0.1, 0.9]))
    write_decisions(path, ("=1", "b,c"), decisions)
    rows = list(csv.reader(path.read_text().splitlines()))
    assert rows[0] == ["id", "action", "probability", "label"]
    assert [row[:2] for row in rows[1:]] == [["=1", "allow"], ["b,c", "block"]]
    assert float(rows[1][2]) == pytest.approx(decisions.probability[0])
    before = path.stat().st_mtime_ns
    write_decisions(path, ("=1", "b,c"), decisions)
    assert path.stat().st_mtime_ns == before
    with pytest.raises(ConfigError, match=r"dev\.csv"):
        write_decisions(path, ("1", "2"), decisions)
    write_decisions(path, ("1", "2"), decisions, overwrite=True)
    assert "\n1,allow" in path.read_text()
    path.write_text("mine")
    with pytest.raises(ConfigError, match=r"dev\.csv"):
        write_decisions(path, ("1", "2"), decisions, overwrite=True)
