import numpy as np
from PIL import Image
from scipy.special import expit

from diptych.calibrate import Settings, calibrate
from diptych.predictions import Predictions
from diptych.report import reliability_curves


def test_every_label_has_a_panel(tmp_path):
    generator = np.random.default_rng(0)
    truth = generator.random((150, 2)) < 0.4
    scores = expit(generator.normal(size=(150, 2)) + 2 * truth)
    gold = [{"race": float(one), "sex": float(two)} for one, two in truth]
    ids = tuple(map(str, range(150)))
    predictions = Predictions(ids=ids, scores=scores, classes=("race", "sex"), form="labels")
    about = {"split": "dev", "checksum": "", "examples": 150, "scores": "as predicted"}
    widths = []
    for labels in (["race"], ["race", "sex"]):
        found = calibrate(predictions, gold, dev=about, settings=Settings(samples=5), positive=labels)
        reliability_curves(found, tmp_path / "curves.png")
        with Image.open(tmp_path / "curves.png") as image:
            widths.append(image.width)
    assert widths[1] > 1.8 * widths[0]
