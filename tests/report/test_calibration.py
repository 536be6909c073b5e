import numpy as np
from PIL import Image
from scipy.special import expit

from diptych.calibrate import Costs, Settings, calibrate, policy_tables
from diptych.files import require_new
from diptych.predictions import Predictions
from diptych.report import policy_page, reliability_curves


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


def test_the_page_has_every_table_and_no_markup_of_strangers(tmp_path):
    generator = np.random.default_rng(0)
    truth = generator.random(200) < 0.4
    scores = expit(generator.normal(size=200) + 2 * truth)
    ids = tuple(map(str, range(200)))
    evil = "</td><script>alert(1)</script>"
    predictions = Predictions(ids=ids, scores=np.stack((1 - scores, scores), 1), classes=("benign", evil))
    about = {"split": "<b>dev", "checksum": "0123456789abcdef", "examples": 200, "scores": "as predicted"}
    settings = Settings(samples=5, max_miss=0.1, costs=Costs(miss=10.0, wrong_block=4.0, review=1.0))
    groups = {"country": {key: evil if int(key) % 2 else "x" for key in ids}}
    found = calibrate(
        predictions, truth.astype(int).tolist(), dev=about, settings=settings, model="abcdef", groups=groups
    )
    policy_page(found, tmp_path / "policy.html")
    page = (tmp_path / "policy.html").read_text(encoding="utf-8")
    assert "<script" not in page
    assert "<b>dev" not in page
    tables = [part for part in policy_tables(found) if not isinstance(part, str)]
    # One more: whose policy it is.
    assert page.count("<table>") == len(tables) + 1
    assert page.count("<tr>") == sum(1 + len(one.rows) for one in tables) + 1 + 5
    for fact in ("abcdef", "0123456789abcdef", found.policy.made, "data:image/png;base64,"):
        assert fact in page
    require_new(tmp_path / "policy.html", overwrite=True, kind="a page of diptych")
