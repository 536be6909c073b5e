"""Captions in two languages: what small models learn of pictures, above what chance or words alone give."""

import json
from collections import Counter, defaultdict
from math import comb
from pathlib import Path

import pytest

from diptych.cli import main
from diptych.datasets import Mlt

pytestmark = pytest.mark.journey
QUIET = ["progress=false", "loggers=[]"]


def by_chance(candidates: int, right: int, k: int) -> float:
    """Probability that one of the right candidates is among the first k of a random order."""
    return 1 - comb(candidates - right, k) / comb(candidates, k)


@pytest.mark.timeout(1800)
def test_german_captions_and_pictures_are_found_above_chance(tmp_path: Path) -> None:
    root, run = tmp_path / "captions", tmp_path / "run"
    assert main(["world", str(root), "--data", "multi30k", "--size", "480", "--seed", "1"]) == 0
    words = ["lang=de", f"root={root}", f"out={run}", "trainer.max_epochs=16", *QUIET]
    assert main(["train", "experiment=multi30k/retrieval_tiny", *words]) == 0
    assert main(["retrieve", str(run), "--split", "test_2016_flickr", "--queries", "0"]) == 0
    found = json.loads((run / "retrieval/test_2016_flickr/retrieval.json").read_text())
    images, texts = len(found["rows"]), len(found["columns"])
    chance = {
        "image_to_text": by_chance(texts, texts // images, 5),
        "text_to_image": by_chance(images, 1, 5),
    }
    for direction, value in chance.items():
        _, low, _ = found["measures"][direction]["recall@5"]
        assert low > value, direction  # the whole interval, which is wide with 40 pictures


@pytest.mark.timeout(1800)
def test_pictures_decide_between_two_translations(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, run = tmp_path / "words", tmp_path / "run"
    assert main(["world", str(root), "--data", "mlt", "--size", "600", "--seed", "1"]) == 0
    assert main(["train", "experiment=mlt/en_de_tiny", f"root={root}", f"out={run}", *QUIET]) == 0
    assert main(["predict", str(run), "--splits", "test_2016_flickr"]) == 0
    file = str(run / "predictions/test_2016_flickr.npz")
    capsys.readouterr()
    given = ["--root", str(root), "--data", "mlt", "--split", "test_2016_flickr"]
    assert main(["evaluate", file, *given, "--json"]) == 0
    accuracy = json.loads(capsys.readouterr().out)["results"][file]["metrics"]["accuracy"]
    assert accuracy["low"] > commonest_translations(root), "what the word alone gives"


def commonest_translations(root: Path) -> float:
    """Accuracy of whoever gives every English word its commonest translation in the training split."""
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for one in Mlt(root, "train"):
        counts[one.pairs[0].text].update(one.target)
    test = [*Mlt(root, "test_2016_flickr")]
    answers = [counts[one.pairs[0].text].most_common(1)[0][0] for one in test]
    return sum(answer in one.target for answer, one in zip(answers, test, strict=True)) / len(test)
