"""Logistic stacking, and members that lack examples."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from diptych.ensemble import Members, agreement, blend, completed, fit_blend, read_members
from diptych.ensemble.stacking import INTERCEPT, stack
from diptych.errors import ConfigError, FormatError
from diptych.metrics import auroc, log_odds
from diptych.predictions import Predictions


def predictions(scores, *, prefix="m", rows=None, **meta):
    rows = range(len(scores)) if rows is None else rows
    return Predictions(
        ids=tuple(f"{prefix}{row}" for row in rows),
        scores=np.stack((1 - scores, scores), 1)[[*rows]],
        classes=("benign", "hateful"),
        meta=meta,
    )


def drawn(rows=200, *, seed=0, gains=(1.0, 2.0, -1.0)):
    generator = np.random.default_rng(seed)
    truth = np.arange(rows) % 2 == 1
    return np.stack([expit(generator.normal(size=rows) + gain * truth) for gain in gains]), truth


def test_stacking_is_scikit_learns_regression_of_standardized_log_odds():
    columns, truth = drawn()
    odds = log_odds(columns)
    rows = ((odds - odds.mean(1, keepdims=True)) / odds.std(1, keepdims=True)).T
    theirs = LogisticRegression(C=1.0, tol=1e-10, max_iter=1000).fit(rows, truth)
    scores, [found] = stack({"dev": columns, "test": columns[:, :9]}, truth, dev="dev", names="abc")
    assert scores["dev"] == pytest.approx(theirs.predict_proba(rows)[:, 1], abs=1e-5)
    assert scores["test"] == pytest.approx(scores["dev"][:9])
    assert [found.weights[name] for name in "abc"] == pytest.approx(theirs.coef_[0] / odds.std(1), abs=1e-5)
    # The weights are what one computes with by hand.
    plain = found.weights[INTERCEPT] + sum(
        found.weights[name] * row for name, row in zip("abc", odds, strict=True)
    )
    assert expit(plain) == pytest.approx(scores["dev"])


def test_no_member_counts_against_itself_if_so_wished():
    columns, truth = drawn()
    _, [free] = stack({"dev": columns}, truth, dev="dev", names="abc")
    scores, [bound] = stack({"dev": columns}, truth, dev="dev", names="abc", non_negative=True)
    assert free.weights["c"] < -0.1
    assert bound.weights["c"] == 0
    alone, _ = stack({"dev": columns[:2]}, truth, dev="dev", names="ab")
    assert scores["dev"] == pytest.approx(alone["dev"], abs=1e-5)


def members(columns, *, lost=()):
    found, gaps = completed(
        [predictions(row, rows=[r for r in range(row.size) if not (n == 0 and r in lost)])
         for n, row in enumerate(columns)]
    )  # fmt: skip
    # The first member lacks rows, so the others decide the order.
    found = [one.align([f"m{r}" for r in range(columns.shape[1])]) for one in found]
    missing = {"dev": dict(zip("abc", gaps.values(), strict=False))} if gaps else {}
    return Members(
        names=tuple("abc"[: len(columns)]), predictions={"dev": tuple(found)}, dropped={}, missing=missing
    )


def labels(count):
    return {f"m{row}": row % 2 for row in range(count)}


def test_held_out_scores_are_calibrated_and_do_not_know_their_label():
    columns, _ = drawn(400, gains=(0.0,) * 8)
    many = Members(
        names=tuple("abcdefgh"), predictions={"dev": tuple(predictions(row) for row in columns)}, dropped={}
    )
    blends, report = fit_blend(many, labels(400), dev="dev", method="stack")
    assert report.in_sample[0] > 0.55
    assert report.out_of_fold[0] < 0.55
    assert report.held_out.ids == blends["dev"].ids
    assert abs(report.held_out.column("hateful").mean() - 0.5) < 0.05
    again, _ = fit_blend(many, labels(400), dev="dev", method="stack", non_negative=True, folds=1)
    assert again["dev"].meta["non_negative"]


def test_other_coefficients_are_another_model():
    columns, _ = drawn()
    known = Members(
        names=tuple("abc"), dropped={},
        predictions={"dev": tuple(predictions(row, model=f"{n}" * 64) for n, row in enumerate(columns))},
    )  # fmt: skip
    two = [
        fit_blend(known, labels(200), dev="dev", method="stack", non_negative=flag, folds=1)[0]["dev"].model
        for flag in (False, True)
    ]
    assert None not in two
    assert two[0] != two[1]
    with pytest.raises(ConfigError, match="simplex"):
        fit_blend(known, labels(200), dev="dev", method="simplex", non_negative=True)


def test_missing_rows_get_an_indicator_when_stacked():
    columns, truth = drawn()
    lost = [row for row in range(200) if row % 4 in (0, 1) and row < 100]
    several = members(columns, lost=lost)
    blends, report = fit_blend(several, labels(200), dev="dev", method="stack", folds=2)
    assert report.missing["dev"]["a"] == tuple(f"m{row}" for row in lost)
    assert "a is missing" in report.rounds[0].weights
    assert np.isfinite(blends["dev"].scores).all()
    assert report.held_out.finite
    # It may mean something: here only positives are missing.
    wholly = members(columns, lost=[row for row in range(200) if row % 4 == 1])
    hinted, said = fit_blend(wholly, labels(200), dev="dev", method="stack", folds=1)
    assert said.rounds[0].weights["a is missing"] > 1
    assert auroc(truth, hinted["dev"].column("hateful")) > auroc(truth, blends["dev"].column("hateful"))
    with pytest.raises(ConfigError, match=r"a lacks.*greedy"):
        fit_blend(several, labels(200), dev="dev", method="greedy")


@pytest.mark.parametrize("method", ["mean", "power", "geometric", "logit", "rank"])
def test_missing_weights_go_to_the_others(method):
    columns, _ = drawn(40, gains=(1.0, 2.0, 0.0))
    full = [predictions(row) for row in columns]
    cut = [full[0], replace(full[1].select(range(10, 40)), meta={"path": "b.npz"}), full[2]]
    weights = [1.0, 2.0, 3.0]
    found = blend(cut, method=method, weights=weights, missing="renormalize")
    assert found.ids == full[0].ids
    assert found.meta["missing"] == {"b.npz": [f"m{row}" for row in range(10)]}
    if method == "rank":
        assert found.finite
        return
    without = blend([full[0], full[2]], method=method, weights=[1.0, 3.0])
    assert found.scores[:10] == pytest.approx(without.scores[:10])
    assert found.scores[10:] == pytest.approx(blend(full, method=method, weights=weights).scores[10:])
    assert "missing" not in blend(full, method=method, missing="renormalize").meta


def test_gaps_stop_a_blend_unless_allowed_and_weights_must_be_left():
    columns, _ = drawn(40)
    full = [predictions(row) for row in columns]
    cut = [full[0], full[1].select(range(10, 40))]
    with pytest.raises(FormatError, match=r"lacks 10 \(m0, .*--missing renormalize"):
        blend(cut)
    with pytest.raises(ConfigError, match="'m0'"):
        blend(cut, weights=[0.0, 1.0], missing="renormalize")
    assert agreement(cut, missing="renormalize") == pytest.approx(
        agreement([one.select(range(10, 40)) for one in full[:2]])
    )
    unsound = replace(full[1], scores=np.where(full[1].scores > 0.9, np.nan, full[1].scores))
    with pytest.raises(FormatError, match="not finite"):
        blend([full[0], unsound], missing="renormalize")
    with pytest.raises(FormatError, match="no rows"):
        completed([full[0], full[1].select([])])


def test_files_of_members_may_lack_rows(tmp_path):
    columns, _ = drawn(40)
    predictions(columns[0]).save(tmp_path / "a_dev.npz")
    predictions(columns[1], rows=range(30)).save(tmp_path / "b_dev.npz")
    with pytest.raises(FormatError, match="b_dev"):
        read_members([tmp_path])
    found = read_members([tmp_path], missing="renormalize")
    assert found.missing == {"dev": {"b": tuple(f"m{row}" for row in range(30, 40))}}
    assert [len(one) for one in found.predictions["dev"]] == [40, 40]
