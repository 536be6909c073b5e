import csv
import json

import pytest

from diptych.calibrate import Map, Policy, Rule
from diptych.cli import main
from diptych.datasets import HatefulMemes
from diptych.ensemble import Members, fit_blend, read_predictions
from diptych.errors import ConfigError, FormatError, MissingFeatures
from diptych.features import FeatureStore
from diptych.predict import load
from diptych.study import model_of, score_meme


def final(out, split="test_unseen"):
    with (out / f"FIN_{split}.csv").open() as file:
        return {row["id"]: (float(row["proba"]), row["label"]) for row in csv.DictReader(file)}


@pytest.fixture
def meme(memes):
    """Picture, text and id of a meme that the blend was not fitted on."""
    example = HatefulMemes(memes, "test_unseen")[3]
    return memes / example.pairs[0].files[0], example.pairs[0].text, example.id


def test_a_meme_scores_as_in_the_final_file(done, meme):
    image, text, key = meme
    verdict = score_meme(done, image=image, text=text)
    probability, label = final(done)[key]
    assert verdict.probability == pytest.approx(probability, abs=1e-5)
    assert verdict.answer == ("benign", "hateful")[int(label)]
    assert (verdict.answer == "hateful") == (verdict.probability >= verdict.threshold)
    assert verdict.members.keys() == {"U1", "U2", "E1"}
    assert verdict.families["E"] == verdict.members["E1"]
    assert verdict.families["U"] == pytest.approx((verdict.members["U1"] + verdict.members["U2"]) / 2)


def test_a_meme_alone_scores_as_among_others_in_the_loop(done, memes, meme):
    tree = json.loads((done / "members.json").read_text())
    (done / "members.json").write_text(json.dumps(tree | {"method": "loop"}))
    found = {
        split: tuple(
            read_predictions(next(done.glob(f"{family}-average-*")) / f"{split}.npz") for family in ("E", "U")
        )
        for split in ("dev_seen", "test_unseen")
    }
    members = Members(names=("E", "U"), predictions=found, dropped={})
    blends, _ = fit_blend(members, tree["labels"], dev="dev_seen", method="loop", folds=0)
    image, text, key = meme
    row = blends["test_unseen"].ids.index(key)
    expected = blends["test_unseen"].column("hateful")[row]
    assert score_meme(done, image=image, text=text).probability == pytest.approx(expected, abs=1e-5)


def test_one_model_scores_as_it_predicts(done, memes, meme, capsys):
    image, text, _ = meme
    [run] = done.glob("U1/traindev-*")
    single = load(run).predict(image=image, text=text, regions=FeatureStore(memes / "features"))
    verdict = score_meme(run, image=image, text=text)
    assert verdict.probability == pytest.approx(single.scores["hateful"])
    assert (verdict.answer, verdict.members, verdict.families) == (single.answer, {}, {})
    assert verdict.threshold is None
    words = ["score", str(image), "--text", text, "--model", str(run), "--json"]
    assert main([*words, "--features", str(memes / "features")]) == 0
    assert json.loads(capsys.readouterr().out)["probability"] == pytest.approx(verdict.probability)


@pytest.mark.slow
def test_regions_are_found_in_the_picture_as_for_the_store(memes, meme, tmp_path, capsys):
    image, text, _ = meme
    store, run = tmp_path / "features", tmp_path / "run"
    words = ["detector=tiny", "boxes=3,2:5", "threads=1"]
    assert main(["extract", str(memes / "img"), str(store), *words]) == 0
    words = ["experiment=hateful_memes/ernievil_tiny", f"root={memes}", f"out={run}", "progress=false"]
    stores = [f"features={store}/tiny-random3", f"more_features={store}/tiny-random2-5"]
    assert main(["train", *words, *stores, "loggers=[]", "trainer.max_steps=1"]) == 0
    written = score_meme(run, image=image, text=text)
    elsewhere = tmp_path / "new.png"
    elsewhere.write_bytes(image.read_bytes())
    capsys.readouterr()
    words = ["score", str(elsewhere), "--text", text, "--model", str(run), "--json"]
    assert main([*words, "--weights", "tiny=random"]) == 0
    assert json.loads(capsys.readouterr().out)["probability"] == pytest.approx(written.probability, abs=1e-6)
    assert main([*words, "--weights", "vgattr=random"]) == 2
    shown = capsys.readouterr().err
    assert "'tiny-random'" in shown
    assert "vgattr" in shown
    assert main([*words, "--weights", "tiny=random", "--features", "x"]) == 2


def test_a_study_decides_by_a_policy_of_its_own(done, meme, tmp_path, capsys):
    held_out = read_predictions(done / "FIN_dev_seen.out_of_fold.npz")
    assert set(held_out.ids) == set(final(done, "dev_seen"))
    policy = Policy(
        labels={"hateful": Rule(map=Map(method="identity"), allow=0.0, block=1.0, positives=9, negatives=9)},
        model=model_of(done),
        dev={"split": "dev_seen", "checksum": "x", "examples": 18, "scores": "out of fold"},
        made="2026-01-02",
        version="0.1.0",
    )
    policy.save(tmp_path / "policy.yaml")
    image, text, _ = meme
    words = [
        "score",
        str(image),
        "--text",
        text,
        "--model",
        str(done),
        "--policy",
        str(tmp_path / "policy.yaml"),
    ]
    capsys.readouterr()
    assert main(words) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("review ")
    members = json.loads((done / "members.json").read_text())
    (done / "members.json").write_text(json.dumps(members | {"method": "simplex"}))
    assert main(words) == 2
    assert model_of(done)[:12] in capsys.readouterr().err


def test_what_cannot_be_scored_is_refused(done, memes, meme, tmp_path):
    image, text, _ = meme
    with pytest.raises(ConfigError, match=r"'al'.*'all'"):
        score_meme(done, image=image, text=text, features={"al": memes / "features"})
    with pytest.raises(MissingFeatures, match="unseen"):
        score_meme(done, image=tmp_path / "unseen.png", text=text)
    path = done / "members.json"
    path.write_text(path.read_text().replace('"compat": false', '"compat": true'))
    with pytest.raises(ConfigError, match=r"ensemble\.compat"):
        score_meme(done, image=image, text=text)
    assert main(["score", str(tmp_path / "none.png"), "--text", text, "--model", str(done)]) == 2


def test_odd_members_are_named(done, meme):
    path = done / "members.json"
    before = json.loads(path.read_text())
    for key in ("study", "method", "compat", "features", "members", "dev", "labels"):
        for value in (None, 5, [], {"x": {}}, {"x": 1.5}):
            path.write_text(json.dumps(before | {key: value}))
            with pytest.raises(FormatError, match=r"members\.json: "):
                score_meme(done, image=meme[0], text=meme[1])
