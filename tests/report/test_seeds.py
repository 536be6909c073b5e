"""Tables of seeds: which pairs are tested, and what is left out."""

import re

import numpy as np
import pytest

from diptych.evaluate import repeated
from diptych.predictions import Predictions
from diptych.report.seeds import PAIRED, paired_tables, seed_tables

IDS = tuple(f"{number:03d}" for number in range(90))
TRUTH = {key: "hateful" if number % 3 == 0 else "benign" for number, key in enumerate(IDS)}


def run(strength, seed):
    known = np.array([TRUTH[key] == "hateful" for key in IDS])
    scores = 1 / (1 + np.exp(-(strength * known + np.random.default_rng(seed).normal(size=len(IDS)))))
    return Predictions(ids=IDS, scores=np.stack((1 - scores, scores), 1), classes=("benign", "hateful"))


def cells(html):
    cell = r"<t[dh][^>]*>(?:<bdi[^>]*>)?(.*?)(?:</bdi>)?</t[dh]>"
    return [re.findall(cell, row) for row in re.findall("<tr>(.*?)</tr>", html)]


def test_seeds_of_a_recipe_are_tested_in_pairs():
    recipes = {"good": {"g1": run(3.0, 1), "g2": run(3.0, 1), "g3": run(0.0, 3)}, "one": {"o1": run(1.0, 4)}}
    table, note = paired_tables(recipes, TRUTH, positive="hateful", samples=200)
    rows = {row[0]: row[1:] for row in cells(table)[1:]}
    minus = " \N{MINUS SIGN} "
    assert [*rows] == [f"g1{minus}g2", f"g1{minus}g3", f"g2{minus}g3"]
    assert float(rows[f"g1{minus}g2"][0]) == 0
    assert float(rows[f"g1{minus}g2"][2]) == 1
    # A run that has learned nothing is worse than one that has, whatever the examples.
    assert float(rows[f"g1{minus}g3"][0]) > 0.3
    assert float(rows[f"g1{minus}g3"][2].removeprefix("&lt; ")) < 0.02
    assert "examples" in note


def test_one_run_has_no_pair_and_many_are_cut():
    assert not [*paired_tables({"one": {"o1": run(1.0, 4)}}, TRUTH, positive="hateful", samples=10)]
    many = {f"m{number}": run(1.0, number) for number in range(PAIRED + 2)}
    table, cut, _ = paired_tables({"many": many}, TRUTH, positive="hateful", samples=10)
    assert len(cells(table)) == 1 + PAIRED * (PAIRED - 1) // 2
    assert str(len(many)) in cut


def test_mean_and_spread_are_those_of_the_runs():
    runs = [run(strength, 5) for strength in (0.5, 1.0, 2.0)]
    found = repeated({"a": runs}, TRUTH, positive="hateful", samples=50)
    table, _ = seed_tables(found)
    name, count, mean, spread, among = cells(table)[1]
    assert (name, count) == ("a", "3")
    assert float(mean.split()[0]) == pytest.approx(np.mean(found.recipes["a"].values), abs=1e-4)
    assert float(spread) == pytest.approx(np.std(found.recipes["a"].values, ddof=1), abs=1e-4)
    assert [float(one) for one in among.split(" to ")] == pytest.approx(
        [min(found.recipes["a"].values), max(found.recipes["a"].values)], abs=1e-4
    )
