"""A model under attack: what is measured, and what is left out."""

import json

import numpy as np
import pytest

from diptych.audit import robust
from diptych.audit.robust import CLEAN, MOVED, READ
from diptych.bundle import load_bundle
from diptych.cli import main
from diptych.datasets import HatefulMemes
from diptych.detect.ocr import Line
from diptych.errors import ConfigError
from diptych.images import open_image
from diptych.metrics import auroc
from diptych.predict import Predictor
from diptych.predictions import Predictions

SAMPLES = 20


class Keyword(Predictor):
    """A model that finds a meme hateful if its text has the letter `e`, and reads nothing else."""

    def __init__(self, run):
        super().__init__(load_bundle(run))
        self.texts = []

    def predict_dataset(self, dataset, *, images=None, **settings):
        texts = [dataset[row].pairs[0].text for row in range(len(dataset))]
        self.texts.append(texts)
        hateful = np.array([0.9 if "e" in text else 0.1 for text in texts], np.float32)
        answers = tuple("hateful" if score > 0.5 else "benign" for score in hateful)
        scores = np.stack([1 - hateful, hateful], 1)
        ids = tuple(dataset[row].id for row in range(len(dataset)))
        return Predictions(ids=ids, scores=scores, answers=answers, classes=("benign", "hateful"))


class Reader:
    def identity(self):
        return "reader"

    def read(self, pictures):
        box = (1.0, 1.0, 9.0, 5.0)
        return [[Line(text="no such letter", box=box, score=1.0, height=4.0)] for _ in pictures]


@pytest.fixture(scope="module")
def few(memes):
    dataset = HatefulMemes(memes, "dev_seen")
    dataset.keep(np.arange(6))
    return dataset


def test_flips_and_auroc_are_those_of_the_changed_texts(few, pixel_run):
    model = Keyword(pixel_run)
    steps = []
    found = robust(model, few, reader=Reader(), samples=SAMPLES, progress=lambda *step: steps.append(step))
    assert found.count == 6
    assert not found.skipped
    rows = {one.name: one for one in found.attacks}
    assert next(iter(rows)) == CLEAN
    assert steps[-1] == (len(rows), len(rows)) == (12, 12)
    # words are read, and have an `e`
    before = ["e" in text for text in model.texts[0]]
    assert model.texts[[*rows].index(READ)] == ["no such letter"] * 6
    assert rows[READ].flips == np.mean([not one for one in before])
    truth = np.array([*few.truth().values()], bool)
    expected = auroc(truth, np.array([0.9 if "e" in text else 0.1 for text in model.texts[1]]))
    assert rows["OCR noise"].auroc == pytest.approx(expected)
    assert rows["OCR noise"].change == pytest.approx(expected - rows[CLEAN].auroc)
    assert (rows[CLEAN].change, rows[CLEAN].flips, rows[CLEAN].side) == (0, 0, "")
    assert (rows["JPEG"].flips, rows["JPEG"].side) == (0, "picture")


def test_pictures_are_changed_for_a_model_that_reads_them(few, pixel_run):
    seen = {}

    class Looking(Keyword):
        def predict_dataset(self, dataset, *, images=None, **settings):
            seen[len(seen)] = [open_image(path).size for path in images.values()]
            return super().predict_dataset(dataset)

    found = robust(Looking(pixel_run), few, samples=SAMPLES)
    names = [one.name for one in found.attacks]
    assert found.skipped == {READ: "needs --ocr", MOVED: "needs --ocr"}
    half, whole = seen[names.index("resize")], seen[0]
    assert half == [(width // 2, height // 2) for width, height in whole]


def test_stored_regions_say_nothing_about_changed_pictures(memes, region_run, capsys):
    words = ["audit", str(region_run), "--robust", "--split", "dev_seen", "--limit", "4", "--samples", "20"]
    assert main([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [one["name"] for one in found["attacks"]] == [CLEAN, "OCR noise", "leetspeak", "homoglyphs"]
    assert "weights" in found["skipped"]["blur"]
    assert main([*words, "--weights", "world=random"]) == 2  # no such detector
    assert "world" in capsys.readouterr().err


def test_a_run_is_attacked_from_the_command_line(pixel_run, tmp_path, capsys):
    words = ["audit", pixel_run, "--robust", "--split", "dev_seen", "--limit", "4", "--samples", "20"]
    assert main([*map(str, words), "--plot", str(tmp_path / "robust.png")]) == 0
    shown = capsys.readouterr().out
    assert "leetspeak" in shown
    assert "not tried: words read by OCR, caption moved (needs --ocr)" in shown
    assert (tmp_path / "robust.png").read_bytes().startswith(b"\x89PNG")
    again = ["--plot", str(tmp_path / "robust.png")]
    assert main([*map(str, words), *again]) == 2
    assert "exists" in capsys.readouterr().err


def test_labels_are_needed(spoiled, pixel_run):
    lines = [json.loads(line) for line in (spoiled / "dev_seen.jsonl").read_text().splitlines()]
    del lines[0]["label"]
    (spoiled / "dev_seen.jsonl").write_text("\n".join(map(json.dumps, lines)))
    with pytest.raises(ConfigError, match=r"dev_seen\.jsonl: 1 of"):
        robust(Keyword(pixel_run), HatefulMemes(spoiled, "dev_seen"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "--split"),
        (["--split", "dev_seen", "--batch-size", "0"], "--batch-size is 0"),
        (["--split", "dev_seen", "--seed", "-1"], "--seed is -1"),
        (["--split", "dev_seen", "--weights", "vg=random"], "reads no regions"),
        (["--split", "dev_sen"], "Did you mean 'dev_seen'?"),
    ],
)
def test_what_cannot_work_is_one_line(pixel_run, capsys, words, message):
    assert main(["audit", str(pixel_run), "--robust", *words]) == 2
    assert message in capsys.readouterr().err
