"""A study is explained as a whole: what is hidden is hidden from all members, and the blend answers."""

import csv
import json
import re

import pytest

from diptych.cli import main
from diptych.study import model_of


def explain(*words):
    return main(["explain", *map(str, words), "--permutations", "2", "--groups", "3"])


@pytest.fixture
def documents(finished, memes, tmp_path):
    """What is written about two memes, and the page of the first."""
    lines = (memes / "test_unseen.jsonl").read_text().splitlines()[:2]
    ids = ",".join(str(json.loads(line)["id"]) for line in lines)
    out, document = tmp_path / "why.html", tmp_path / "why.json"
    words = ["--ids", ids, "--split", "test_unseen", "--out", out, "--json", document]
    assert explain(finished, *words) == 0
    return json.loads(document.read_text()), (tmp_path / "why-1.html").read_text()


def test_the_blend_of_a_study_is_explained(finished, documents):
    whys, page = documents
    with (finished / "FIN_test_unseen.csv").open() as file:
        final = {row["id"]: float(row["proba"]) for row in csv.DictReader(file)}
    for why in whys:
        assert why["scores"]["hateful"] == pytest.approx(final[why["id"]], abs=1e-5)
        assert why["members"].keys() == {"U1", "U2", "E1"}
        gained = sum(part["contribution"] for part in why["parts"])
        assert gained == pytest.approx(why["sides"]["both"] - why["sides"]["none"], abs=1e-4)
        assert why["model"]["weights"] == f"sha256 {model_of(finished)}"
    assert all(f"{score:.2f}" in page for score in whys[0]["members"].values())
    limit = float(re.search(r"answers hateful from a probability of ([\d.]+)", page)[1])
    assert all((why["answer"] == "hateful") == (why["scores"]["hateful"] >= limit) for why in whys)


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--attention"], "out"),
        (["--features", "every=x"], "every"),
        (["--detector", "grid"], "--features"),
        (["--memory", "x"], "--memory"),
    ],
)
def test_what_a_study_does_not_have_is_refused(finished, words, named, capsys):
    assert explain(finished, "--ids", "1", "--split", "dev_seen", *words) == 2
    assert named in capsys.readouterr().err
