"""From pixels and boxes to a scored submission, without features of any detector."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from diptych import load
from diptych.cli import main
from diptych.data import bare_regions
from diptych.datasets import HatefulMemes
from diptych.features import FeatureStore

pytestmark = pytest.mark.journey


@pytest.fixture(scope="module")
def memes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A world whose store has become a file of boxes."""
    folder = tmp_path_factory.mktemp("journey") / "memes"
    assert main(["world", str(folder), "--size", "600", "--seed", "1"]) == 0
    store = FeatureStore(folder / "features")
    lines = (json.dumps({"id": key, "boxes": store[key].boxes.tolist()}) + "\n" for key in store)
    (folder / "boxes.jsonl").write_text("".join(lines), encoding="utf-8")
    return folder


def train(memes: Path, out: Path, *words: str) -> list[str]:
    given = [f"root={memes}", f"out={out}", f"features={memes / 'boxes.jsonl'}", "progress=false"]
    return ["train", "experiment=hateful_memes/end_to_end_tiny", *given, *words]


@pytest.mark.timeout(300)
def test_a_model_learns_from_pixels_and_boxes(
    memes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(train(memes, tmp_path / "run")) == 0
    assert main(["predict", str(tmp_path / "run"), "--splits", "test_seen,test_unseen"]) == 0
    capsys.readouterr()
    for split in ("test_seen", "test_unseen"):
        file = str(tmp_path / f"run/predictions/{split}.csv")
        assert main(["evaluate", file, "--root", str(memes), "--split", split, "--json"]) == 0
        report = json.loads(capsys.readouterr().out)
        assert report["results"][file]["metrics"]["auroc"]["value"] > 0.95, split

    example = HatefulMemes(memes, "test_seen")[0]
    regions = FeatureStore(memes / "features")[example.pairs[0].image]
    verdict = load(tmp_path / "run").predict(
        text=example.pairs[0].text,
        image=memes / example.pairs[0].files[0],
        regions=bare_regions(regions.boxes, regions.size),
    )
    first = (tmp_path / "run/predictions/test_seen.csv").read_text(encoding="utf-8").splitlines()[1]
    assert verdict.scores["hateful"] == pytest.approx(float(first.split(",")[1]), abs=1e-5)


@pytest.mark.timeout(300)
def test_a_killed_run_ends_in_the_same_weights(memes: Path, tmp_path: Path) -> None:
    words = ["trainer.max_steps=30", "trainer.checkpoint_every=3", "processor.prepare.least=32"]
    assert main(train(memes, tmp_path / "whole", *words)) == 0
    command = [sys.executable, "-m", "diptych.cli", *train(memes, tmp_path / "killed", *words)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not (tmp_path / "killed/checkpoints/last.ckpt").exists() and process.poll() is None:
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "killed/bundle").exists()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    whole, killed = (tmp_path / out / "bundle/weights.safetensors" for out in ("whole", "killed"))
    assert whole.read_bytes() == killed.read_bytes()
