"""Commands whose result is named like an input, the working folder or something of the user's."""

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from diptych.cli import main

GRID = "--detector grid --backbone resnet_tiny --size 32 --weights random"
FIT = "--method greedy --root w --steps 5"
TRAIN = "train experiment=hateful_memes/text_bert_tiny root=w trainer.max_steps=1 loggers=[] progress=false"
LINES = f"""
ensemble p/dev_seen.csv p/b.csv --out p/dev_seen.csv
ensemble p/dev_seen.csv p/b.csv --out home/notes.csv
ensemble p/dev_seen.csv p/b.csv --out home
ensemble p/dev_seen.csv --out home {FIT}
ensemble p/dev_seen.csv --out p {FIT}
ensemble p/dev_seen.csv --out . {FIT}
ensemble p/dev_seen.csv --out w {FIT}
import w/features.tsv w/features.tsv
import w/features.tsv w
import w/features.tsv .
import w/features.tsv home
import w/features.tsv shards
export w/features w/features
export w/features w/features --format uniter-npz
export w/features w/train.jsonl
export w/features w/img --format uniter-npz
export w/features home --format mmf-lmdb
export w/features photo.png --format volta-hdf5
export w/features photo.png --format tsv
convert b w
convert b home
convert b .
convert b ..
convert b b
convert --back b b/weights.safetensors
convert --back b photo.png
convert --back b home
clean w w
clean w w/img
clean w .
clean w home
clean w out --cache w/train.jsonl
vocabulary w w/train.jsonl
vocabulary home/notes.csv home/notes.csv
fasttext w photo.png --dim 3
fasttext home/notes.csv home/notes.csv --dim 3
world w2
world home
world .
extract w/img x {GRID}
extract w/img y {GRID}
extract w/img z {GRID} --show 1
predict b --root w --splits dev_seen --out home
evaluate p/dev_seen.csv --root w --split dev_seen --samples 9 --curves p/dev_seen.csv
evaluate p/dev_seen.csv --root w --split dev_seen --samples 9 --curves home/thesis.txt
{TRAIN} out=w
{TRAIN} out=home
{TRAIN} out=.
{TRAIN} out=theirs
cp hateful_memes/uniter_tiny conf
study run vilio_tiny root=w out=w
study run vilio_tiny root=w out=home
study run vilio_tiny root=w out=.
study status vilio_tiny root=w out=home
"""


def fingerprint(folder: Path) -> dict[str, str]:
    """Every entry below a folder, and what it holds."""
    found = {}
    for base, folders, files in os.walk(folder):
        for path in (Path(base) / name for name in (*folders, *files)):
            key = path.relative_to(folder).as_posix()
            if path.is_symlink() or path.is_dir():
                found[key] = str(path.readlink()) if path.is_symlink() else "folder"
            else:
                found[key] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


@pytest.fixture(scope="module")
def desk(memes: Path, pixel_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with data, predictions, a bundle and things of the user's."""
    desk = tmp_path_factory.mktemp("desk") / "inner"
    shutil.copytree(memes, desk / "w", ignore=lambda _, names: [name for name in names if name == ".diptych"])
    shutil.copytree(memes, desk / "w2")
    shutil.copytree(pixel_run / "bundle", desk / "b")
    assert main(["predict", str(pixel_run), "--splits", "dev_seen", "--out", str(desk / "p")]) == 0
    shutil.copy(desk / "p" / "dev_seen.csv", desk / "p" / "b.csv")
    precious = [
        "home/thesis.txt", "home/files/photo.txt", "home/notes.csv", "home/dev_seen.csv", "photo.png",
        "shards/part-00000.arrow", "w2/mine.txt", "b/mine.txt", "theirs/config.yaml",
        "theirs/checkpoints/model.pt", "theirs/metrics.csv", "conf/experiment/my/uniter_tiny.yaml", 
        "x/resnet_tiny-stage4-random-grid/mine",
        "y/resnet_tiny-stage4-random-grid.json", "z/resnet_tiny-stage4-random-grid.png",
    ]  # fmt: skip
    for name in precious:
        (desk / name).parent.mkdir(parents=True, exist_ok=True)
        (desk / name).write_text("precious: true\n")
    return desk


@pytest.fixture
def at_desk(desk: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    before = fingerprint(desk)
    monkeypatch.chdir(desk)
    yield desk
    assert fingerprint(desk) == before


@pytest.mark.parametrize("more", [[], ["overwrite=true"]], ids=["", "overwrite"])
@pytest.mark.parametrize("line", LINES.strip().splitlines())
def test_nothing_of_the_users_is_replaced(
    line: str, more: list[str], at_desk: Path, refused: Callable[[list[Any]], str]
) -> None:
    has_no_such_flag = line.startswith(("clean", "cp", "study"))
    refused([*line.split(), *([] if has_no_such_flag else more)])


@pytest.mark.slow
def test_what_a_command_wrote_it_replaces_on_request(
    memes: Path, desk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    csv, features = desk / "p" / "dev_seen.csv", memes / "features"
    for line in (
        f"ensemble {csv} {csv} --out e.csv",
        f"ensemble {csv} {csv} --out e.npz",
        f"ensemble {csv} --out blend --method greedy --root {memes} --steps 5",
        f"import {memes / 'features.tsv'} store",
        f"export {features} f.tsv",
        f"export {features} f.h5 --format volta-hdf5",
        f"export {features} npz --format uniter-npz",
        f"export {features} f --format mmf-lmdb",
        f"vocabulary {memes} vocabulary.txt --size 300",
        f"fasttext {memes} v.bin --dim 3 --min-count 1 --bucket 100",
        "world w --size 40",
        f"extract {memes / 'img'} x {GRID} --show 1",
        f"evaluate {csv} --root {memes} --split dev_seen --samples 9 --curves c.png",
    ):
        before = set(tmp_path.rglob("*"))
        assert main(line.split()) == 0, line
        after = fingerprint(tmp_path)
        assert set(tmp_path.rglob("*")) > before
        assert main([*line.split(), "overwrite=true"]) == 0, line
        assert fingerprint(tmp_path).keys() == after.keys(), line
