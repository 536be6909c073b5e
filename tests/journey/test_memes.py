"""From memes on disk to a scored submission, as a person types it."""

import csv
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
from diptych.datasets import HatefulMemes
from diptych.features import FeatureStore

pytestmark = pytest.mark.journey


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("journey")
    assert main(["world", str(folder / "memes"), "--size", "600", "--seed", "1"]) == 0
    return folder


def train(folder: Path, experiment: str, out: str, *words: str) -> list[str]:
    return [
        "train",
        f"experiment=hateful_memes/{experiment}",
        f"root={folder / 'memes'}",
        f"out={folder / out}",
        "progress=false",
        *words,
    ]


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.timeout(600)
def test_regions_to_a_scored_submission(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    memes = folder / "memes"
    assert main(["check", str(memes)]) == 0
    # somebody else's features: out as a TSV, in again, and train on those
    assert main(["import", str(memes / "features.tsv"), str(folder / "store"), "detector=world"]) == 0
    store = f"features={folder / 'store'}"
    for seed in (1, 2):
        words = ["trainer.max_epochs=20", store, f"seed={seed}", "task.threshold=accuracy"]
        assert main(train(folder, "uniter_tiny", f"u{seed}", *words)) == 0
        assert main(["predict", str(folder / f"u{seed}"), "--splits", "dev_seen,test_seen"]) == 0
    for split in ("dev_seen", "test_seen"):
        members = [str(folder / f"u{seed}/predictions/{split}.npz") for seed in (1, 2)]
        assert main(["ensemble", *members, "--out", str(folder / f"average/{split}.csv")]) == 0

    submission = rows(folder / "average/test_seen.csv")
    assert [row["id"] for row in submission] == list(HatefulMemes(memes, "test_seen").ids)
    assert list(submission[0]) == ["id", "proba", "label"]
    assert all(0 <= float(row["proba"]) <= 1 and row["label"] in "01" for row in submission)

    capsys.readouterr()
    files = [str(folder / "average/test_seen.csv"), str(folder / "u1/predictions/test_seen.csv")]
    words = ["--root", str(memes), "--split", "test_seen", "--json", "--curves", str(folder / "curves.png")]
    assert main(["evaluate", *files, *words]) == 0
    report = json.loads(capsys.readouterr().out)
    auroc = report["results"][files[0]]["metrics"]["auroc"]
    assert auroc["value"] > 0.95, "two small models of regions and text solve the miniature world"
    assert auroc["low"] <= auroc["value"] <= auroc["high"]
    assert (folder / "curves.png").read_bytes().startswith(b"\x89PNG")

    predictor = load(folder / "u1")
    example = HatefulMemes(memes, "dev_seen")[0]
    verdict = predictor.predict(
        text=example.pairs[0].text, regions=FeatureStore(folder / "store")[example.pairs[0].image]
    )
    written = rows(folder / "u1/predictions/dev_seen.csv")[0]
    assert verdict.scores["hateful"] == pytest.approx(float(written["proba"]), abs=1e-5)


def test_one_seed_gives_one_csv(folder: Path) -> None:
    for out in ("same-a", "same-b"):
        assert main(train(folder, "concat_fasttext_tiny", out, "trainer.max_steps=6", "data.workers=0")) == 0
        assert main(["predict", str(folder / out), "--splits", "dev_seen"]) == 0
    first, second = ((folder / out / "predictions/dev_seen.csv").read_bytes() for out in ("same-a", "same-b"))
    assert first == second
    assert main(train(folder, "concat_fasttext_tiny", "other", "trainer.max_steps=6", "seed=2")) == 0
    assert main(["predict", str(folder / "other"), "--splits", "dev_seen"]) == 0
    assert (folder / "other/predictions/dev_seen.csv").read_bytes() != first


@pytest.mark.timeout(300)
def test_a_killed_run_ends_in_the_same_weights(folder: Path) -> None:
    words = ["trainer.max_steps=60", "trainer.checkpoint_every=5", "processor.max_tokens=16"]
    # dropout is on: its randomness must survive the kill too
    assert main(train(folder, "text_bert_tiny", "whole", *words)) == 0
    command = [sys.executable, "-m", "diptych.cli", *train(folder, "text_bert_tiny", "killed", *words)]
    kills = 0
    while not (folder / "killed/bundle").exists():
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        last = folder / "killed/checkpoints/last.ckpt"
        before = last.stat().st_mtime_ns if last.exists() else 0
        while process.poll() is None and kills < 2:
            if last.exists() and last.stat().st_mtime_ns != before:  # a new checkpoint: some steps were done
                os.kill(process.pid, signal.SIGKILL)
                kills += 1
                break
            time.sleep(0.002)
        process.wait()
    assert kills == 2
    whole, killed = (folder / out / "bundle/weights.safetensors" for out in ("whole", "killed"))
    assert whole.read_bytes() == killed.read_bytes()


@pytest.mark.timeout(300)
def test_ctrl_c_keeps_a_checkpoint_and_the_same_command_continues(folder: Path) -> None:
    words = train(folder, "text_bert_tiny", "stopped", "trainer.max_steps=400", "trainer.checkpoint_every=5")
    process = subprocess.Popen(
        [sys.executable, "-m", "diptych.cli", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    last = folder / "stopped/checkpoints/last.ckpt"
    while not last.exists() and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "The same command continues" in error
    assert "Traceback" not in error
    assert last.exists()
    assert not (folder / "stopped/bundle").exists()
    assert main(words) == 0
    assert (folder / "stopped/bundle/bundle.yaml").exists()
