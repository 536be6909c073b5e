"""Cascades: what they promise, what they cost, their file, and what is refused."""

import json
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from scipy.special import expit

from diptych.calibrate import Cascade, Member, Stage, fit_cascade, measured, read_members_file, write_routed
from diptych.errors import ConfigError, FormatError

DEV = {"split": "dev", "checksum": "x", "examples": 0, "scores": "as predicted"}


def world(count, seed=0, distances=(2.0, 4.0), costs=(1.0, 10.0)):
    """Members whose log-odds are normal, `distances` apart between the classes."""
    generator = np.random.default_rng(seed)
    truth = generator.random(count) < 0.4
    members = [
        Member(name="abcd"[n], scores=expit(generator.normal(size=count) + d * (truth - 0.5)), cost=c)
        for n, (d, c) in enumerate(zip(distances, costs, strict=True))
    ]
    return members, truth


def fitted(members, truth, **more):
    return fit_cascade(
        members, truth, **{"unit": "money", "positive": "hateful", "dev": DEV, "samples": 20} | more
    )


@pytest.fixture(scope="module")
def found():
    return fitted(*world(1200, seed=8))


def decided(cascade, members):
    by_name = {one.name: one.scores for one in members}
    rows = np.stack([by_name[one.name] for one in cascade.stages])
    return cascade.decide(rows, [str(n) for n in range(rows.shape[1])])


def test_the_cascade_saves_and_keeps_its_promise_where_the_truth_is_known(found):
    members, truth = world(200_000, seed=1)
    routed = decided(found.cascade, members)
    assert routed.allowed[truth].mean() <= 0.05
    # What it costs and does on other examples is what the report says, within its intervals.
    assert found.result.cost.low * 0.95 < routed.cost.mean() < found.result.cost.high * 1.05
    assert found.result.missed.low < routed.allowed[truth].mean() < found.result.missed.high
    assert found.saved.value == pytest.approx(1 - found.result.cost.value / 10)
    assert found.saved.low > 0.1
    assert found.alone["b"].cost.value == 10
    assert json.loads(json.dumps(found.as_dict(), allow_nan=False))["cascade"]["positive"] == "hateful"


def test_candidates_are_tried_from_few_misses_to_many_until_one_fails(found):
    levels = [one.level for one in found.candidates]
    assert levels == sorted(levels)
    assert all(one.kept for one in found.candidates[:-1])
    assert found.candidates[-1].bound > 0.05 or found.candidates[-1].kept
    kept = [one for one in found.candidates if one.kept][1:]  # without the dear member alone
    assert [one.cost for one in kept][-1] == pytest.approx(found.result.cost.value)
    assert all(one.bound <= 0.05 for one in kept)


def test_promises_break_no_more_often_than_delta():
    members, truth = world(50_000, seed=99)
    broken = []
    for seed in range(10):
        drawn, labels = world(400, seed=seed)
        try:
            found = fitted(drawn, labels, max_miss=0.1, max_wrong_block=0.2, seed=seed, samples=2)
        except ConfigError:
            continue  # nothing was promised
        routed = decided(found.cascade, members)
        missed, wrong = routed.allowed[truth].mean(), (~routed.allowed[~truth]).mean()
        broken.append(missed > 0.1 or wrong > 0.2)
    assert len(broken) >= 7
    # With delta 10 %, more than 3 of 10 would happen once in 78 sets of draws.
    assert sum(broken) <= 3


def test_shares_costs_and_decisions_agree(found):
    members, truth = world(500, seed=3)
    routed = decided(found.cascade, members)
    first, last = found.cascade.stages
    asked = (members[0].scores >= (first.allow or -1)) & (members[0].scores <= (first.block or 2))
    assert (routed.stage == np.where(asked, 1, 0)).all()
    assert routed.cost == pytest.approx(np.where(asked, 11.0, 1.0))
    assert (routed.allowed[asked] == (members[1].scores[asked] < last.allow)).all()
    result = measured(routed, truth, samples=20)
    assert result.cost.value == pytest.approx(routed.cost.mean())
    assert result.wrongly_blocked.value == pytest.approx((~routed.allowed[~truth]).mean())
    shares = found.shares
    assert shares[0].asked == 1
    for one, after in pairwise(shares):
        assert after.asked == pytest.approx(one.asked - one.allowed - one.blocked)


def test_a_dear_member_needs_scores_only_where_it_is_asked(found):
    members, _ = world(50, seed=4)
    routed = decided(found.cascade, members)
    gaps = np.where(routed.stage == 1, members[1].scores, np.nan)
    ids = [f"meme{n}" for n in range(50)]
    again = found.cascade.decide(np.stack((members[0].scores, gaps)), ids)
    assert again.action == routed.action
    gone = int(np.flatnonzero(routed.stage == 1)[0])
    gaps[gone] = np.nan
    with pytest.raises(FormatError, match=rf"b: .* 1 example.*meme{gone}"):
        found.cascade.decide(np.stack((members[0].scores, gaps)), ids)


def test_members_that_save_nothing_are_named():
    members, truth = world(1000)
    equal = [replace(members[0], name="twin", cost=10.0), *members]
    assert "twin" in fitted(equal, truth).notes[0]
    with pytest.raises(ConfigError, match=r"twin .* b"):
        fitted([equal[0], members[1]], truth)
    noise = replace(members[0], scores=np.random.default_rng(0).random(1000), cost=9.0)
    found = fitted([noise, members[1]], truth)
    assert "b alone" in found.notes[0]
    assert [one.name for one in found.cascade.stages] == ["b"]
    assert found.saved.value == 0
    better = [replace(members[1], name="cheap", cost=1.0), members[0], members[1]]
    better = [better[0], replace(better[1], cost=5.0), better[2]]
    assert any(note.startswith("a is never asked") for note in fitted(better, truth).notes)


def test_a_perfect_cheap_member_decides_alone():
    members, truth = world(600, distances=(40.0, 4.0))
    found = fitted(members, truth)
    assert [one.name for one in found.cascade.stages] == ["a"]
    assert (found.result.missed.value, found.result.wrongly_blocked.value) == (0, 0)
    assert found.saved.value == pytest.approx(0.9)


def test_what_cannot_be_fitted_is_refused():
    members, truth = world(600)
    flat = replace(members[0], scores=np.full(600, 0.25))
    with pytest.raises(ConfigError, match=r"a: .*0\.25"):
        fitted([flat, members[1]], truth)
    with pytest.raises(ConfigError, match="0 of 600"):
        fitted(members, np.zeros(600, dtype=bool))
    with pytest.raises(ConfigError, match="1 members"):
        fitted(members[:1], truth)
    with pytest.raises(ConfigError, match="cost 0"):
        fitted([replace(one, cost=0.0) for one in members], truth)
    with pytest.raises(ConfigError, match=r"max_miss is 1\.5"):
        fitted(members, truth, max_miss=1.5)
    with pytest.raises(ConfigError, match=r"0\.5%.*Label \d+ more"):
        fitted(members, truth, max_miss=0.005)
    with pytest.raises(ConfigError, match=r"0\.1%"):
        fitted(members, truth, max_wrong_block=0.001)


def test_a_cascade_is_written_and_read(found, tmp_path):
    path = tmp_path / "cascade.yaml"
    found.cascade.save(path)
    assert Cascade.load(path) == found.cascade
    text = path.read_text()
    for old, new, said in (
        ("diptych_cascade: 1", "diptych_cascade: 2", "format 1"),
        ("unit: money", "unit: minutes", "unit"),
        ("cost: 1.0", "cost: -1.0", "costs"),
        ("cost: 1.0", "cost: .nan", "costs"),
        ("name: a", "name: b", "different names"),
    ):
        path.write_text(text.replace(old, new))
        with pytest.raises(FormatError, match=f"cascade.yaml.*{said}"):
            Cascade.load(path)


def test_the_models_must_be_those_of_the_cascade(found):
    known = replace(found.cascade, stages=tuple(replace(one, model="x" * 64) for one in found.cascade.stages))
    known.require_models({"a": "x" * 64, "b": "x" * 64, "other": None})
    with pytest.raises(ConfigError, match=r"b: .*x{12}.*unknown"):
        known.require_models({"a": "x" * 64, "b": None})
    with pytest.raises(ConfigError, match="'b'"):
        known.require_models({"a": "x" * 64})


def test_only_the_last_member_decides_everything():
    last = Stage(name="b", model=None, cost=1.0, allow=0.5, block=0.4)
    about = {"unit": "money", "positive": "x", "dev": DEV, "max_miss": 0.1, "max_wrong_block": None}
    about |= {"delta": 0.1, "made": "2026-01-02", "version": "0.1.0"}
    Cascade(stages=(last,), **about)
    for stages in ((), (replace(last, block=0.6),), (replace(last, name="a"), last)):
        with pytest.raises(ConfigError):
            Cascade(stages=stages, **about)


def test_decisions_are_a_table(found, tmp_path):
    members, _ = world(5, seed=7)
    routed = decided(found.cascade, members)
    write_routed(tmp_path / "d.csv", list("vwxyz"), routed, ["a", "b"])
    head, *rows = (tmp_path / "d.csv").read_text().splitlines()
    assert head == "id,action,member,score"
    for row, action, stage, score in zip(rows, routed.action, routed.stage, routed.score, strict=True):
        assert row.split(",")[1:3] == [action, "ab"[stage]]
        assert float(row.split(",")[3]) == pytest.approx(score)


@pytest.mark.parametrize(
    ("text", "error", "said"),
    [
        ("members: []", ConfigError, "two"),
        ("members:\n- {name: a, predictions: p}\n- {name: a, predictions: q}", ConfigError, "a"),
        ("members:\n- {name: a}", FormatError, "predictions"),
        ("members:\n- {name: a, predictions: p, cost: 1}", FormatError, "cost"),
        ("members:\n- {name: a, predictions: p, money: -2}\n- {name: b, predictions: q}", FormatError, "-2"),
        (
            "members:\n- {name: a, predictions: p, money: .nan}\n- {name: b, predictions: q}",
            FormatError,
            "nan",
        ),
    ],
)
def test_a_file_of_members_is_checked(text, error, said, tmp_path):
    (tmp_path / "m.yaml").write_text(text)
    with pytest.raises(error, match=rf"m\.yaml.*{said}"):
        read_members_file(tmp_path / "m.yaml")
