"""Slices: rates by hand, tests by enumeration, files of groups that do not fit."""

import itertools

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from diptych.calibrate import largest_gap, read_groups
from diptych.calibrate.slices import _p_values, permuted_rates, slices_of
from diptych.errors import FormatError

IDS = tuple(f"{number:04d}" for number in range(400))


@pytest.fixture(scope="module")
def world():
    generator = np.random.default_rng(0)
    truth = generator.random(400) < 0.4
    scores = np.clip(0.3 + 0.3 * truth + 0.2 * generator.normal(size=400), 0, 1)
    groups = np.where(np.arange(400) < 30, "", np.where(np.arange(400) < 60, "small", "xyz"))
    groups = np.where(np.arange(400) >= 200, "big", groups)
    return truth, scores, groups


def test_rates_are_those_of_the_rows(world):
    truth, scores, of = world
    groups = {"topic": {key: name for key, name in zip(IDS, of.tolist(), strict=True) if name}}
    found = slices_of(scores, truth, scores, band=(0.35, 0.7), ids=IDS, groups=groups, samples=20)
    assert [one.group for one in found] == ["big", "small", "xyz"]
    big = found[0]
    rows = of == "big"
    assert (big.column, big.count, big.positives) == ("topic", 200, truth[rows].sum())
    assert big.missed.value == (scores < 0.35)[rows & truth].mean()
    assert big.wrongly_blocked.value == (scores > 0.7)[rows & ~truth].mean()
    assert big.reviewed.value == ((scores >= 0.35) & (scores <= 0.7))[rows].mean()
    assert big.auroc.low <= big.auroc.value == roc_auc_score(truth[rows], scores[rows]) <= big.auroc.high
    kept = (rows & ~truth) | (~rows & truth)
    assert big.below == pytest.approx(roc_auc_score(truth[kept], scores[kept]))
    kept = (rows & truth) | (~rows & ~truth)
    assert big.above == pytest.approx(roc_auc_score(truth[kept], scores[kept]))
    # A small slice is shown and not judged.
    assert np.isnan(found[1].missed_p)
    assert 0 < big.missed_p <= 1


def test_p_values_are_those_of_all_assignments():
    hits = np.array([1, 1, 1, 0, 0, 1, 0, 0])
    gaps = [
        abs(hits[list(rows)].mean() - np.delete(hits, rows).mean())
        for rows in itertools.combinations(range(8), 3)
    ]
    assert permuted_rates(3, 3, 4, 8) == pytest.approx(np.mean(np.array(gaps) >= 1 - 0.2 - 1e-9))
    assert permuted_rates(2, 4, 4, 8) == pytest.approx(1.0)
    assert np.isnan(permuted_rates(3, 8, 3, 8))


def test_holm_multiplies_the_smallest_most():
    truth = np.tile([True, False], 300)
    hits = np.zeros(600, bool)
    hits[:100] = True
    members = {name: np.arange(600) // 200 == number for number, name in enumerate("abc")}
    found = _p_values(members, hits, among=truth, truth=truth)
    raw = {
        name: permuted_rates((hits & truth & rows).sum().item(), 100, 50, 300)
        for name, rows in members.items()
    }
    smallest = min(raw, key=raw.__getitem__)
    assert found[smallest] == pytest.approx(min(1, 3 * raw[smallest]))
    assert all(found[name] >= raw[name] for name in raw)


def test_chance_differences_are_rarely_called_real():
    generator, called = np.random.default_rng(3), 0
    for _ in range(150):
        truth, hits = generator.random(300) < 0.5, generator.random(300) < 0.2
        members = {str(number): np.arange(300) % 3 == number for number in range(3)}
        called += min(_p_values(members, hits, among=truth, truth=truth).values()) < 0.05
    assert called <= 15


def test_gaps_are_between_slices_that_are_judged(world):
    truth, scores, of = world
    groups = {"topic": dict(zip(IDS, of.tolist(), strict=True))}
    found = slices_of(scores, truth, scores, band=(0.35, 0.7), ids=IDS, groups=groups, samples=5)
    rates = [(min(one.positives, one.count - one.positives), one.missed) for one in found]
    judged = [rate.value for smaller, rate in rates if smaller >= 30]
    assert largest_gap(rates) == max(judged) - min(judged)
    assert np.isnan(largest_gap(rates[:1]))


def test_groups_are_read_by_column_and_spelled_as_the_ids(tmp_path):
    path = tmp_path / "tags.csv"
    path.write_text("id,language,topic\n1,en,\n0002, de ,cats\n")
    assert read_groups(path, IDS) == {"language": {"0001": "en", "0002": "de"}, "topic": {"0002": "cats"}}


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("id,tag\n9999,a\n0001,b\n", "9999"),
        ("id,tag\n0001,a\n0001,b\n", ":3"),
        ("id\n0001\n", "column"),
        ("key,tag\n0001,a\n", "id"),
        ("id,tag\n0001\n", ":2"),
    ],
)
def test_files_of_groups_that_do_not_fit_are_refused(text, named, tmp_path):
    (tmp_path / "tags.csv").write_text(text)
    with pytest.raises(FormatError, match=rf"tags\.csv.*{named}"):
        read_groups(tmp_path / "tags.csv", IDS)
