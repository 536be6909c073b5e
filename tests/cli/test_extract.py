"""`diptych extract` as a person types it."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import save_file

from diptych.cli import main
from diptych.detect import build_detector
from diptych.features import FeatureStore
from diptych.nn.resnet import resnet_tiny


@pytest.fixture
def few(memes, tmp_path):
    """Four pictures in a folder of their own."""
    folder = tmp_path / "few"
    folder.mkdir()
    for path in sorted((memes / "img").iterdir())[:4]:
        shutil.copy(path, folder)
    return folder


@pytest.fixture
def weights(tmp_path):
    """A file of a detector of the preset `tiny`, under the names of detectron2."""
    from diptych.convert.detector import DETECTOR
    from diptych.convert.rules import restore

    path = tmp_path / "tiny.safetensors"
    save_file(restore(build_detector("tiny").state_dict(), DETECTOR), path)
    return path


def test_six_stores_of_vilio_in_one_command(few, tmp_path, capsys, monkeypatch):
    from diptych.detect.faster_rcnn import PRESETS

    for name in ("vgattr", "vg"):
        small = PRESETS["tiny"] if name == "vgattr" else {**PRESETS["tiny"], "attributes": None}
        monkeypatch.setitem(PRESETS, name, small)
    assert main(["extract", str(few), str(tmp_path / "f"), "--preset", "vilio", "--weights", "random"]) == 0
    assert {path.name for path in (tmp_path / "f").iterdir() if path.is_dir()} == {
        *(f"vgattr-random{rule}" for rule in ("36", "50", "72", "10-100")),
        *(f"vg-random{rule}" for rule in ("50", "10-100")),
    }
    assert "vg-random: the weights are random" in capsys.readouterr().out


def test_names_and_weights_come_from_files(few, tmp_path, weights, refused, capsys):
    (tmp_path / "objects.txt").write_text("\n".join(f"object {number}" for number in range(20)))
    words = ["extract", few, tmp_path / "f", "--detector", "tiny", "--weights", f"tiny={weights}"]
    assert (
        main([*map(str, words), "--classes", str(tmp_path / "objects.txt"), "boxes=5", "--shard", "3"]) == 0
    )
    store = FeatureStore(tmp_path / "f/tiny5")
    assert (store.meta.detector, len(store.meta.classes), len(store)) == ("tiny", 20, 4)
    assert "4 pictures processed" in capsys.readouterr().out
    assert "tiny5" in refused([*words, "--boxes", "5"])
    assert "--weights vgattr=FILE" in refused(["extract", few, tmp_path / "g"])
    assert "absent.pkl" in refused(["extract", few, tmp_path / "g", "--weights", "absent.pkl"])
    grid = ["extract", few, tmp_path / "g", "--detector", "grid", "--backbone", "resnet_tiny"]
    assert "tiny.safetensors" in refused([*grid, "--weights", weights])
    assert "--grid is '7'" in refused([*grid, "--grid", "7"])


def test_a_grid_of_given_weights(few, tmp_path):
    torch.manual_seed(0)
    torch.save(resnet_tiny().state_dict(), tmp_path / "net.pth")
    words = [
        "extract",
        few,
        tmp_path / "f",
        "--detector",
        "grid",
        "--backbone",
        "resnet_tiny",
        "--size",
        "64",
    ]
    assert main([*map(str, words), "--weights", str(tmp_path / "net.pth"), "--grid", "2x3"]) == 0
    store = FeatureStore(tmp_path / "f/resnet_tiny-stage4-grid2x3")
    assert set(store.counts().tolist()) == {6}
    assert store.meta.detector == "resnet_tiny-stage4"


def test_a_page_shows_what_was_found(few, tmp_path, capsys):
    words = ["extract", few, tmp_path / "f", "detector=tiny", "boxes=4,9", "threads=1"]
    assert main([*map(str, words), "show=3"]) == 0
    assert f"wrote {tmp_path / 'f/tiny-random4.png'}: 3 pictures" in capsys.readouterr().out
    before = (tmp_path / "f/tiny-random4.png").read_bytes()
    assert main([*map(str, words), "show=2", "resume=true"]) == 0, "also later, without computing anything"
    assert "0 pictures processed" in capsys.readouterr().out
    assert (tmp_path / "f/tiny-random4.png").read_bytes() != before


def test_numbers_below_one_are_refused(few, tmp_path, refused):
    words = ["extract", few, tmp_path / "f", "detector=tiny"]
    assert "--threads is 0" in refused([*words, "threads=0"])
    assert "--workers is -1" in refused([*words, "--workers", "-1"])


def test_bad_pictures_are_counted_on_the_screen(few, tmp_path, capsys, refused):
    (few / "bad.png").write_text("no picture")
    words = ["extract", few, tmp_path / "f", "--detector", "tiny", "--boxes", "4"]
    assert "image 'bad'" in refused(words)
    assert main([*map(str, words), "--bad", "skip", "--resume"]) == 0
    out = capsys.readouterr().out
    assert "1 picture(s) skipped" in out
    assert "image 'bad': " in out


@pytest.mark.slow
def test_killed_in_the_middle_it_repeats_nothing_that_is_finished(memes, tmp_path, capsys):
    (tmp_path / "list.txt").write_text("\n".join(map(str, sorted((memes / "img").iterdir())[:40])))
    words = [
        "extract",
        tmp_path / "list.txt",
        tmp_path / "f",
        "detector=tiny",
        "boxes=4,9",
        "shard=4",
        "device=cpu",
    ]
    command = [sys.executable, "-m", "diptych.cli", *map(str, words)]
    run = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=os.environ | {"OMP_NUM_THREADS": "1"})
    folder = tmp_path / "f/tiny-random.extract"
    deadline = time.monotonic() + 60
    while len(finished := [*folder.glob("part-*.json")]) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    run.send_signal(signal.SIGKILL)
    run.wait()
    finished = sorted(folder.glob("part-*.json"))
    assert len(finished) >= 3
    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "f").rglob("part-*.arrow")}
    assert main([*map(str, words), "resume=true"]) == 0
    images = len(FeatureStore(tmp_path / "f/tiny-random4"))
    assert f"{images - 4 * len(finished):,} pictures processed" in capsys.readouterr().out
    kept = {path.name: stamp for path, stamp in stamps.items() if "random4" in path.parent.name}
    for path in finished:
        arrow = (tmp_path / "f/tiny-random4" / path.name).with_suffix(".arrow")
        assert arrow.stat().st_mtime_ns == kept[arrow.name], "a finished shard was written again"
    whole = [tmp_path / "w" if word == tmp_path / "f" else word for word in words]
    assert main([*map(str, whole)]) == 0
    for store in ("tiny-random4", "tiny-random9"):
        for path in (tmp_path / "w" / store).iterdir():
            assert path.read_bytes() == (tmp_path / "f" / store / path.name).read_bytes()
    assert json.loads((tmp_path / "f/tiny-random4.json").read_text())["images"] == images
