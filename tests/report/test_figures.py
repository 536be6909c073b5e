"""Figures are drawn from whatever evaluation and training write."""

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from diptych.errors import ConfigError, FormatError
from diptych.predictions import Predictions
from diptych.report import curves, figures, history


def judged(seed, *, scale=1.0):
    truth = np.random.default_rng(0).random(80) < 0.4
    logits = scale * (np.random.default_rng(seed).normal(size=80) + truth)
    positive = 1 / (1 + np.exp(-logits))
    ids = tuple(str(n) for n in range(80))
    gold = {key: int(label) for key, label in zip(ids, truth, strict=True)}
    scores = np.stack((1 - positive, positive), axis=1)
    return Predictions(ids=ids, scores=scores, classes=("benign", "hateful")), gold


def size(path):
    with Image.open(path) as image:
        assert image.format == "PNG"
        return image.size


def test_curves_of_many_classifiers_share_one_picture(tmp_path):
    predictions, gold = judged(1)
    logits = Predictions(ids=predictions.ids, scores=predictions.scores * 8 - 4, classes=predictions.classes)
    named = {f"model {n} $x$ {'long ' * n}": judged(n)[0] for n in range(8)} | {"logits": logits}
    curves(named, gold, tmp_path / "many.png", samples=20)
    curves({"one": predictions}, gold, tmp_path / "one.png", samples=20)
    wide, narrow = size(tmp_path / "many.png"), size(tmp_path / "one.png")
    assert wide[0] == narrow[0]
    assert wide[1] > narrow[1]  # the legend has a line per classifier


def test_the_legend_says_auroc_and_interval():
    predictions, gold = judged(1)
    result = figures.evaluate(predictions, gold, samples=20)
    auroc = result.metrics["auroc"]
    legend = figures._legend("uniter", result)
    assert f"uniter:  AUROC {auroc.value:.3f} ({auroc.low:.3f} to {auroc.high:.3f})" in legend


def test_curves_need_predictions_and_both_classes(tmp_path):
    predictions, gold = judged(1)
    with pytest.raises(ConfigError):
        curves({}, gold, tmp_path / "a.png")
    with pytest.raises(FormatError, match=r"^uniter: .* 80 "):
        curves({"uniter": predictions}, dict.fromkeys(gold, 0), tmp_path / "a.png", samples=5)
    assert not list(tmp_path.iterdir())


CSV = """step,epoch,train/loss,train/lr,train/examples_per_second,val/auroc,val/loss,average/auroc
1,0,0.7,1e-4,300,,,
2,0,0.6,1e-4,301,0.61,0.65,
3,0,0.5,1e-4,299,,,
4,1,0.4,1e-4,300,0.83,0.5,
6,1,nan,1e-4,300,0.79,0.6,
6,,,,,,,0.84
"""


def test_history_reads_what_training_writes(tmp_path, monkeypatch):
    marked = []
    monkeypatch.setattr(figures, "_plot_metric", lambda axes, *args: marked.append(args))
    (tmp_path / "metrics.csv").write_text(CSV)
    history(tmp_path / "metrics.csv", tmp_path / "a.png")
    history(tmp_path / "metrics.csv", tmp_path / "a.png", metric="val/loss", best="min")
    assert marked == [
        ("val/auroc", [(2, 0.61), (4, 0.83), (6, 0.79)], None),
        ("val/loss", [(2, 0.65), (4, 0.5), (6, 0.6)], "min"),
    ]


@pytest.mark.parametrize(
    ("best", "name", "title"),
    [
        ("max", "m", "m: best 0.9 at step 3"),
        ("min", "m", "m: best 0.1 at step 5"),
        (None, "m", "m: best 0.9 at step 3"),
        (None, "val/loss", "val/loss: best 0.1 at step 5"),
        (None, "val/brier", "val/brier: best 0.1 at step 5"),
    ],
)
def test_the_best_value_is_named(best, name, title):
    from matplotlib.figure import Figure

    axes = Figure().add_subplot()
    figures._plot_metric(axes, name, [(1.0, 0.5), (3.0, 0.9), (5.0, 0.1)], best)
    assert axes.get_title(loc="center") == title


def test_history_draws_rows_of_losses_only_metrics_only_or_both(tmp_path):
    rows = [{"step": n, "train/loss": 1 / (n + 1), "val/auroc": 0.5 + n / 100} for n in range(5)]
    history(rows, tmp_path / "both.png", title="run 1")
    history([{"loss": row["train/loss"]} for row in rows], tmp_path / "loss.png")
    history([{"step": row["step"], "auroc": row["val/auroc"]} for row in rows], tmp_path / "metric.png")
    assert size(tmp_path / "both.png")[0] > size(tmp_path / "loss.png")[0] == size(tmp_path / "metric.png")[0]


def test_history_without_content_or_with_a_wrong_name_is_refused(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text("step,epoch\n1,0\n")
    with pytest.raises(FormatError, match=r"metrics\.csv: "):
        history(path, tmp_path / "a.png")
    path.write_text(CSV)
    with pytest.raises(ConfigError, match=r"'val/aurok'; .* 'val/auroc'\?"):
        history(path, tmp_path / "a.png", metric="val/aurok")


def test_a_failed_drawing_keeps_the_old_picture(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    path.write_bytes(b"old")
    monkeypatch.setattr(figures, "_plot_metric", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        history([{"step": 1, "auroc": 0.5}], path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_without_matplotlib_the_error_says_what_to_install():
    code = (
        "import sys; sys.modules['matplotlib'] = None\n"
        "from diptych.errors import ConfigError\n"
        "try: import diptych.report\n"
        "except ConfigError as error: print(error)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 'pip install "diptych[report]"' in result.stdout
