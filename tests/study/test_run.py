import json

import numpy as np
import pytest

from diptych.cli import main
from diptych.ensemble import read_predictions
from diptych.study import Call, run_study, study_status
from diptych.study.run import Shared

FILES = ("FIN_dev_seen.csv", "FIN_test_seen.csv", "FIN_test_unseen.csv")


def newest(folders):
    return max(folders, key=lambda folder: folder.stat().st_mtime_ns)


def results(out):
    return {name: (out / name).read_bytes() for name in FILES}


def test_a_study_makes_its_files_once_and_says_what_it_did(call, write, tree, done, capsys):
    first = results(done)
    for name, text in first.items():
        memes_of = (done / "data" / f"{name[4:-4]}.jsonl").read_bytes().splitlines()
        assert text.startswith(b"id,proba,label\n")
        assert len(text.splitlines()) == 1 + min(20, len(memes_of))
    card = (done / "README.md").read_text()
    assert "| U2/traindev | `" in card
    assert "Transductive" in card
    assert "features + features" in card
    assert "Out of fold, it" in card
    assert not list(done.glob("**/checkpoints")), "what only a stopped run needs is removed"

    path = write(tree)
    assert call("run", path) == 0
    assert "train:" not in capsys.readouterr().out, "nothing is done twice, also in another place"
    assert call("status", path) == 0
    assert "16 of 16 steps done, 0 failed, 0 left" in capsys.readouterr().out


def test_status_remembers_the_last_call(write, tree, done, memes, capsys):
    path = write(tree)
    assert main(["study", "status", str(path), f"out={done}"]) == 0
    assert "16 of 16 steps done" in capsys.readouterr().out
    assert main(["study", "run", str(path), f"out={done}"]) == 2
    assert "root=FOLDER" in capsys.readouterr().err


def test_the_state_of_a_study_that_was_not_run(call, write, tree, out, capsys):
    assert call("status", write(tree)) == 0
    shown = capsys.readouterr().out
    assert "0 of 16 steps done" in shown
    assert "E1/traindev/predict" in shown


@pytest.mark.journey
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("words", [("jobs=2",), ("engine=ray", "parallel=1", "threads=1")], ids=" ".join)
def test_a_process_of_its_own_ends_in_the_same_bytes(words, call, write, tree, out, finished, capsys):
    if "engine=ray" in words:
        pytest.importorskip("ray")
    assert call("run", write(tree), "members=E1", *words) == 0
    assert "E1/train/predict: " in capsys.readouterr().out
    files = sorted(one.relative_to(out) for one in out.glob("??/predictions-*/*.csv"))
    assert len(files) == 3
    for name in files:
        assert (out / name).read_bytes() == (finished / name).read_bytes(), name


def test_pretrained_weights_reach_the_members(call, write, tree, out):
    tree["families"].pop("E")
    tree["overrides"] = ["trainer.max_steps=1", "optim.lr=1e-12", "data.batch_size=8"]
    assert call("run", write(tree), "members=U1") == 0
    from safetensors.numpy import load_file

    [before] = (load_file(one) for one in out.glob("U-pretrain/*/bundle/weights.safetensors"))
    [after] = (load_file(one) for one in out.glob("U1/train-*/bundle/weights.safetensors"))
    name = "model.text.words.weight"
    np.testing.assert_allclose(before[name], after[name], atol=1e-6)


@pytest.mark.slow
def test_a_member_that_fails_is_missing_and_the_rest_goes_on(call, write, tree, done, capsys):
    before = results(done)
    tree["families"]["U"]["members"]["U2"]["overrides"] = ["optim.lr=-1.0"]
    path = write(tree)
    assert call("run", path) == 1
    said = capsys.readouterr()
    assert "failed: U2/train: optim.lr is -1.0" in said.err
    assert "U1/train:" not in said.out, "members that were done stay done"
    assert "- failed, U2/traindev: optim.lr is -1.0" in (done / "README.md").read_text()
    assert results(done) != before
    call("status", path)
    assert "2 failed" in capsys.readouterr().out

    tree["families"]["U"]["members"]["U2"].pop("overrides")
    assert call("run", write(tree)) == 0
    assert results(done) == before


def test_trained_members_predict_without_training(call, write, tree, finished, tmp_path, capsys):
    path, there, half = write(tree), tmp_path / "there", tmp_path / "half"
    assert call("predict", path, f"bundles={finished}", f"out={there}") == 0
    assert results(there) == results(finished)
    assert "train:" not in capsys.readouterr().out
    assert call("predict", path, f"bundles={finished}", f"out={there}") == 0
    assert "predict:" not in capsys.readouterr().out, "what is predicted stays"
    assert call("predict", path, f"bundles={finished}", f"out={half}", "precision=bf16", "members=U1") == 0
    single = [next(place.glob("U1/predictions-*/test_unseen.npz")) for place in (there, half)]
    one, other = (read_predictions(path).column("hateful") for path in single)
    np.testing.assert_allclose(one, other, atol=0.02)


def test_a_study_is_one_call_in_python(write, tree, finished, memes, tmp_path):
    path, out = str(write(tree)), tmp_path / "there"
    call = Call(root=memes, limit=20, bundles=finished)
    report = run_study(path, call, out=out)
    kept = [FILES[0], "FIN_dev_seen.out_of_fold.npz", *FILES[1:], "members.json"]
    assert [one.name for one in report.files] == kept
    assert results(out) == results(finished)
    assert report.card == out / "README.md"
    assert {"U1/train", "U/average"} <= report.areas.keys()
    assert all(low <= area <= high for area, low, high in report.areas.values())
    assert report.blend is not None
    known = study_status(path, out=out)
    assert known.records == report.records
    assert known.graph.steps.keys() == report.graph.steps.keys()


@pytest.mark.parametrize("words", [["bundles=x"], ["jobs=0"], ["limit=0"], ["members=W"]])
def test_impossible_requests_are_refused(call, write, tree, words, capsys):
    assert call("run", write(tree), *words) == 2
    assert "diptych: error:" in capsys.readouterr().err


def test_a_bundle_that_is_not_there_is_named(call, write, tree, tmp_path, capsys):
    assert call("predict", write(tree), f"bundles={tmp_path / 'none'}") == 2
    assert str(tmp_path / "none") in capsys.readouterr().err


def test_members_read_regions_merged_as_in_training(done, memes):
    [bundle] = done.glob("E1/train-*/bundle")
    settings = {"bundle": bundle, "features": memes / "features", "more_features": memes / "features"}
    shared = Shared()
    first = shared.store(settings, shared.predictor(settings))
    assert first.merge == "vilio"
    assert shared.store(settings, shared.predictor(settings)) is first, "opened once"
    text = (bundle / "bundle.yaml").read_text()
    (bundle / "bundle.yaml").write_text(text.replace("region_merge: vilio", "region_merge: fair"))
    assert shared.store(settings, shared.predictor(settings)).merge == "fair"


def test_compat_averages_what_the_original_writes(call, write, tree, done):
    tree["ensemble"] = {"method": "greedy", "compat": True}
    assert call("run", write(tree)) == 0
    folder = newest(done.glob("U-average-*"))
    average = read_predictions(folder / "dev_seen.npz")
    members = [read_predictions(one) for one in sorted(done.glob("U?/predictions-*/dev_seen.npz"))]
    logs = np.mean([np.log(one.column("hateful")) for one in members], axis=0)
    np.testing.assert_allclose(average.scores[:, 1], logs, rtol=1e-9)
    folder = newest(done.glob("E-average-*"))
    average = read_predictions(folder / "dev_seen.npz")
    [single] = (read_predictions(one) for one in done.glob("E1/predictions-*/dev_seen.npz"))
    p = single.column("hateful")
    np.testing.assert_allclose(average.scores[:, 1], np.log(p) - np.log1p(-p), rtol=1e-6)
    assert set(average.answers) == {"benign"}
    report = newest(done.glob("ensemble-*")) / "report.json"
    assert json.loads(report.read_text())["rows"] == len(single)
