"""Fitting a policy: what it promises, what it costs, and what is refused."""

import json

import numpy as np
import pytest
from scipy.special import expit

from diptych.calibrate import Costs, Settings, calibrate
from diptych.errors import ConfigError, FormatError
from diptych.predictions import Predictions

DEV = {"split": "dev", "checksum": "x", "examples": 0, "scores": "as predicted"}
COSTS = Costs(miss=10.0, wrong_block=4.0, review=1.0)


def judged(count=600, *, seed=0, distance=1.5):
    """Predictions of two classes, and targets."""
    generator = np.random.default_rng(seed)
    truth = generator.random(count) < 0.4
    scores = expit(2 * (generator.normal(size=count) + distance * truth) - 1)
    return two(scores), truth.astype(int).tolist()


def two(scores, **more):
    ids = tuple(str(number) for number in range(len(scores)))
    return Predictions(
        ids=ids, scores=np.stack((1 - scores, scores), axis=1), classes=("benign", "hateful"), **more
    )


def fitted(predictions, gold, *, positive=(), **settings):
    return calibrate(predictions, gold, dev=DEV, positive=positive, settings=Settings(samples=50, **settings))


def test_the_policy_keeps_its_promises_here_and_the_report_says_so():
    predictions, gold = judged()
    found = fitted(predictions, gold)
    truth, action = np.array(gold) == 1, np.array(found.policy.decide(predictions).action)
    report = found.reports["hateful"]
    assert (action[truth] == "allow").mean() == report.rates["missed"].value == report.allow.share <= 0.05
    assert (action[~truth] == "block").mean() == report.rates["wrongly_blocked"].value == report.block.share
    assert report.rates["reviewed"].value == pytest.approx((action == "review").mean())
    # Two promises share delta.
    assert report.allow.delta == report.block.delta == 0.05
    assert report.after["log_loss"].value < report.before["log_loss"].value
    assert report.before["slope"].low < report.before["slope"].value < report.before["slope"].high
    assert json.loads(json.dumps(found.as_dict(), allow_nan=False))["policy"]["delta"] == 0.1


def test_costs_alone_take_the_cheapest_action():
    predictions, gold = judged()
    found = fitted(predictions, gold, costs=COSTS)
    action = np.array(found.policy.decide(predictions).action)
    low, high = COSTS.band
    p = found.policy.labels["hateful"].map(predictions.column("hateful"))
    assert ((p < low) == (action == "allow")).all()
    assert ((p > high) == (action == "block")).all()
    costs = found.reports["hateful"].costs
    assert costs["this policy"].value < min(
        each.value for name, each in costs.items() if name != "this policy"
    )
    truth = np.array(gold) == 1
    paid = COSTS.of(truth, action == "allow", action == "block")
    assert costs["this policy"].value == pytest.approx(1000 * paid.mean())


def test_costs_stay_inside_of_what_is_promised():
    predictions, gold = judged()
    cheap, promised, both = (
        fitted(predictions, gold, **one).policy.labels["hateful"]
        for one in ({"costs": COSTS}, {"max_miss": 0.05}, {"costs": COSTS, "max_miss": 0.05})
    )
    assert both.allow == min(cheap.allow, promised.allow)
    assert (both.block, promised.block) == (cheap.block, None)


def test_reviews_that_never_pay_are_said():
    found = fitted(*judged(), costs=Costs(miss=1.0, wrong_block=1.0, review=3.0))
    rule = found.policy.labels["hateful"]
    assert rule.allow == rule.block
    assert "0.500" in found.reports["hateful"].notes[0]


def test_a_capacity_bounds_the_reviews_and_promises_that_need_more_are_refused():
    predictions, gold = judged()
    found = fitted(predictions, gold, review_capacity=0.1)
    assert found.reports["hateful"].rates["reviewed"].value <= 0.1
    wrong = [each.misses + each.wrong_blocks for each in found.reports["hateful"].capacities]
    assert wrong == sorted(wrong, reverse=True)
    with pytest.raises(ConfigError, match=r"review_capacity is 1\.0%"):
        fitted(predictions, gold, review_capacity=0.01, max_miss=0.05, max_wrong_block=0.02)


def test_scores_that_keep_both_promises_at_once_need_no_people():
    found = fitted(*judged(distance=9.0))
    report, rule = found.reports["hateful"], found.policy.labels["hateful"]
    assert rule.allow == rule.block
    assert "one threshold" in report.notes[0]
    assert (report.rates["reviewed"].value, report.rates["missed"].value) == (0.0, 0.0)


def test_a_promise_that_cannot_be_kept_allows_nothing():
    found = fitted(*judged(90))
    report, rule = found.reports["hateful"], found.policy.labels["hateful"]
    assert (rule.allow, rule.max_miss) == (None, None)
    assert report.allow.missing == 59 - report.allow.count


def test_each_label_gets_a_rule():
    generator = np.random.default_rng(1)
    truth = generator.random((300, 2)) < 0.4
    scores = expit(2 * generator.normal(size=(300, 2)) + 2 * truth - 1)
    names = ("race", "sex")
    gold = [dict(zip(names, map(float, row), strict=True)) for row in truth]
    ids = tuple(map(str, range(300)))
    predictions = Predictions(ids=ids, scores=scores, classes=names, form="labels")
    found = fitted(predictions, gold)
    assert list(found.policy.labels) == list(found.reports) == list(names)
    assert found.policy.labels["sex"].positives == truth[:, 1].sum()
    assert list(fitted(predictions, gold, positive=["sex"]).policy.labels) == ["sex"]


def test_of_several_classes_one_is_named():
    generator = np.random.default_rng(2)
    gold = generator.integers(3, size=300).tolist()
    scores = generator.dirichlet((1, 1, 1), size=300)
    scores[np.arange(300), gold] += 1
    predictions = Predictions(
        ids=tuple(map(str, range(300))), scores=scores / 2, classes=("a", "b", "c"), form="classes"
    )
    with pytest.raises(ConfigError, match="--positive"):
        fitted(predictions, gold)
    assert fitted(predictions, gold, positive=["b"]).policy.labels["b"].positives == gold.count(1)


def test_what_cannot_be_calibrated_is_refused():
    predictions, gold = judged(100)
    few = [1] * 29 + [0] * 71
    with pytest.raises(ConfigError, match="29 of 100"):
        fitted(predictions, few)
    with pytest.raises(ConfigError, match="100 of 100"):
        fitted(predictions, [1] * 100)
    with pytest.raises(ConfigError, match=r"0\.3"):
        fitted(two(np.full(100, 0.3)), gold)
    for bad in (np.nan, 1.2):
        scores = predictions.column("hateful").copy()
        scores[7] = bad
        with pytest.raises(FormatError, match="row 7"):
            fitted(two(scores), gold)
    with pytest.raises(ConfigError, match="ranks"):
        fitted(two(predictions.column("hateful"), meta={"method": "rank"}), gold)
    with pytest.raises(FormatError, match="no scores"):
        fitted(Predictions(ids=("a",)), [1])


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("method", "plat"),
        ("max_miss", 0.0),
        ("delta", 1.0),
        ("review_capacity", float("nan")),
        ("samples", 0),
    ],
)
def test_impossible_settings_name_the_key(key, value):
    with pytest.raises(ConfigError, match=key):
        Settings(**{key: value})


def test_scores_no_better_than_chance_are_said():
    predictions, gold = judged(300)
    found = fitted(predictions, [1 - one for one in gold])
    assert "chance" in found.reports["hateful"].notes[-1]
