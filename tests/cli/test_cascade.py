"""`import-scores`, `ensemble --missing`, and `cascade`, from answers to decisions."""

import csv
import json

import numpy as np
import pytest
from scipy.special import expit

from diptych.calibrate import Cascade
from diptych.cli import main
from diptych.predictions import Predictions

IDS = tuple(f"{number:05d}" for number in range(600))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two labeled splits, scores of a cheap member, and answers of a dear one with prices."""
    folder = tmp_path_factory.mktemp("memes")
    generator = np.random.default_rng(3)
    for split in ("dev_seen", "test_seen"):
        truth = generator.random(600) < 0.4
        lines = [
            {"id": key, "img": "img/a.png", "label": int(label), "text": "a"}
            for key, label in zip(IDS, truth, strict=True)
        ]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        cheap = expit(generator.normal(size=600) + 3 * (truth - 0.5))
        Predictions(
            ids=IDS,
            scores=np.stack((1 - cheap, cheap), 1),
            classes=("benign", "hateful"),
            meta={"made_of": {"bundle": "abc"}, "split": split},
        ).save(folder / f"cheap_{split}.npz")
        dear = expit(2 * generator.normal(size=600) + 12 * (truth - 0.5))
        answers = [
            {"id": int(key), "p": p, "price": 0.01, "seconds": 2.0, "model": "guard"}
            for key, p in zip(IDS, dear.tolist(), strict=True)
        ]
        (folder / f"{split}.answers-of-guard").write_text(
            "".join(json.dumps(line) + "\n" for line in answers)
        )
        assert main(words(folder, split)) == 0
    (folder / "members.yaml").write_text(
        "members:\n"
        "- {name: vlm, predictions: 'vlm_{split}.npz'}\n"
        "- {name: cheap, predictions: 'cheap_{split}.npz', money: 0.0001, milliseconds: 30}\n"
    )
    return folder


def words(folder, split, out=None):
    file = folder / f"{split}.answers-of-guard"
    out = out or folder / f"vlm_{split}.npz"
    more = ("--as", "vlm", "--root", folder, "--data", "hateful_memes", "--split", split, "--out", out)
    return ["import-scores", str(file), *map(str, more)]


def cascade(folder, *more):
    head = (
        "cascade",
        folder / "members.yaml",
        "--root",
        folder,
        "--data",
        "hateful_memes",
        "--samples",
        "20",
    )
    return [str(word) for word in (*head, *more)]


def test_answers_are_imported_and_said_in_short(folder, tmp_path, capsys, refused, monkeypatch):
    assert main(words(folder, "dev_seen", tmp_path / "a.npz")) == 0
    shown = capsys.readouterr().out
    for told in ("600 answers (probability) on 600", "price: 6 in all, 0.01 per example", "1.2e+03 s"):
        assert told.replace("1.2e+03", "1200") in shown
    found = Predictions.load(tmp_path / "a.npz")
    assert (found.ids, found.meta["name"], found.meta["split"]) == (IDS, "vlm", "dev_seen")
    assert str(tmp_path / "a.npz") in refused(words(folder, "dev_seen", tmp_path / "a.npz"))
    assert ".npz" in refused(words(folder, "dev_seen", tmp_path / "a.csv"))
    monkeypatch.chdir(tmp_path)
    assert main(words(folder, "dev_seen")[:-2]) == 0
    assert (tmp_path / "vlm_dev_seen.npz").is_file()


def test_members_that_lack_examples_are_blended_and_named(folder, tmp_path, capsys):
    lines = (folder / "dev_seen.answers-of-guard").read_text().splitlines()
    (tmp_path / "few.jsonl").write_text("\n".join(lines[5:]))
    few = words(folder, "dev_seen", tmp_path / "few_dev_seen.npz")
    assert main([few[0], str(tmp_path / "few.jsonl"), *few[2:]]) == 0
    assert "5 examples of the split have no answer (00000, " in capsys.readouterr().out
    files = ["ensemble", str(folder / "cheap_dev_seen.npz"), str(tmp_path / "few_dev_seen.npz"), "--out"]
    assert main([*files, str(tmp_path / "b.npz")]) == 2
    assert "few_dev_seen.npz lacks 5" in capsys.readouterr().err
    assert main([*files, str(tmp_path / "b.npz"), "--missing", "renormalize"]) == 0
    assert "few_dev_seen.npz lacks 5 of 600 examples (00000, " in capsys.readouterr().out
    assert Predictions.load(tmp_path / "b.npz").meta["missing"]["few_dev_seen.npz"] == [*IDS[:5]]
    fit = ["--method", "stack", "--non-negative", "--missing", "renormalize", "--root", str(folder)]
    assert main([*files, str(tmp_path / "blend"), *fit, "--data", "hateful_memes"]) == 0
    report = json.loads((tmp_path / "blend" / "report.json").read_text())
    assert report["missing"]["dev_seen"] == {"few": [*IDS[:5]]}
    # What a policy or a cascade is fitted on.
    assert Predictions.load(tmp_path / "blend" / "FIN_dev_seen.out_of_fold.npz").ids == IDS


def test_a_cascade_is_found_drawn_and_applied(folder, tmp_path, capsys):
    out, plot = tmp_path / "cascade.yaml", tmp_path / "c.png"
    assert main(cascade(folder, "--out", out, "--plot", plot)) == 0
    shown = capsys.readouterr().out
    for told in ("the cascade saves", "vlm alone", "cheap alone", f"wrote {out}", "with probability 90%"):
        assert told in shown
    assert plot.read_bytes().startswith(b"\x89PNG")
    found = Cascade.load(out)
    # The price of the dear member is the one that was paid for its answers.
    assert [(one.name, one.cost) for one in found.stages] == [("cheap", 0.0001), ("vlm", pytest.approx(0.01))]
    assert (found.stages[0].model, found.unit, found.max_miss) == ("abc", "money", 0.05)
    decisions = tmp_path / "decisions.csv"
    apply = cascade(folder, "--apply", out, "--split", "test_seen", "--out", decisions)
    assert main(apply) == 0
    assert "is asked" in capsys.readouterr().out
    with decisions.open() as file:
        rows = list(csv.DictReader(file))
    assert tuple(row["id"] for row in rows) == IDS
    assert {row["action"] for row in rows} == {"allow", "block"}
    assert main([*apply, "--overwrite", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    asked = np.mean([row["member"] == "vlm" for row in rows])
    assert result["members"][1]["asked"] == pytest.approx(asked)
    assert result["measured"]["cost"]["value"] == pytest.approx(0.0001 + asked * 0.01)


def test_milliseconds_are_another_unit(folder, capsys):
    assert main(cascade(folder, "--unit", "milliseconds", "--json")) == 0
    found = json.loads(capsys.readouterr().out)
    assert [one["cost"] for one in found["cascade"]["members"]] == [30.0, pytest.approx(2000.0)]
    assert 0 < found["saved"]["value"] < 1


def test_what_does_not_fit_is_refused(folder, tmp_path, refused):
    out = tmp_path / "cascade.yaml"
    out.write_text("mine")
    assert str(out) in refused(cascade(folder, "--out", out))
    assert "--split" in refused(cascade(folder, "--apply", out))
    assert "--plot" in refused(
        cascade(folder, "--apply", out, "--split", "test_seen", "--plot", tmp_path / "p")
    )
    assert "cascade.yaml" in refused(cascade(folder, "--apply", out, "--split", "test_seen"))
    (tmp_path / "m.yaml").write_text(
        f"members:\n- {{name: a, predictions: '{folder}/cheap_{{split}}.npz'}}\n"
        f"- {{name: b, predictions: '{folder}/vlm_{{split}}.npz'}}\n"
    )
    line = refused(["cascade", tmp_path / "m.yaml", *cascade(folder)[2:]])
    assert "a has no money" in line


def test_a_cascade_refuses_other_models_and_needs_scores_where_it_asks(folder, tmp_path, refused):
    assert main(cascade(folder, "--out", tmp_path / "c.yaml")) == 0
    apply = ["--apply", tmp_path / "c.yaml", "--split", "test_seen"]
    dear = Predictions.load(folder / "vlm_test_seen.npz")
    cheap = Predictions.load(folder / "cheap_test_seen.npz").column("hateful")
    first = Cascade.load(tmp_path / "c.yaml").stages[0]
    inside = np.flatnonzero((cheap >= (first.allow or 0)) & (cheap <= (first.block or 1)))
    (tmp_path / "m.yaml").write_text(
        f"members:\n- {{name: cheap, predictions: '{folder}/cheap_{{split}}.npz', money: 1}}\n"
        "- {name: vlm, predictions: 'vlm.npz', money: 2}\n"
    )
    words = ["cascade", tmp_path / "m.yaml", *cascade(folder)[2:], *apply]
    dear.select(inside).save(tmp_path / "vlm.npz")
    assert main([str(word) for word in words]) == 0, "the others are never asked about"
    dear.select(inside[1:]).save(tmp_path / "vlm.npz")
    assert dear.ids[inside[0]] in refused(words)
    other = Predictions(ids=dear.ids, scores=dear.scores, classes=dear.classes, meta={"model": "f" * 64})
    other.save(tmp_path / "vlm.npz")
    assert "f" * 12 in refused(words)
