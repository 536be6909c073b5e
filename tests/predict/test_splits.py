import json
import os
import re
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from diptych.errors import ConfigError
from diptych.predict import SplitFiles, load, predict_splits
from diptych.predictions import Predictions

SPLITS = ("dev_seen", "test_seen")


class Killed(BaseException):
    """Stands for a kill: nothing cleans up behind it."""


def contents(folder: Path) -> dict[str, bytes]:
    return {one.name: one.read_bytes() for one in folder.iterdir()}


def refuse_to_score(*_: object, **__: object) -> Predictions:
    raise AssertionError("scored again")


def predict(run: Path, out: Path, **options: object) -> list[SplitFiles]:
    return predict_splits(run, SPLITS, out=out, predictor=load(run, device="cpu"), **options)  # type: ignore[arg-type]


def test_what_is_done_is_kept(pixel_run: Path, tmp_path: Path) -> None:
    first = predict(pixel_run, tmp_path / "p")
    before = contents(tmp_path / "p")
    again = predict(pixel_run, tmp_path / "p", score=refuse_to_score)
    assert [one.kept for one in (*first, *again)] == [False, False, True, True]
    assert contents(tmp_path / "p") == before
    assert (again[0].predictions.scores == first[0].predictions.scores).all()  # type: ignore[union-attr]
    moved = Path(shutil.copytree(pixel_run / "bundle", tmp_path / "moved"))  # the same model elsewhere
    root = json.loads((pixel_run / "places.json").read_text())["root"]
    assert all(one.kept for one in predict(moved, tmp_path / "p", root=root, score=refuse_to_score))
    with pytest.raises(AssertionError, match="scored again"):
        predict(pixel_run, tmp_path / "p", overwrite=True, score=refuse_to_score)


def test_after_a_kill_at_any_change_the_same_call_goes_on(
    pixel_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predict(pixel_run, tmp_path / "whole")
    whole, rename = contents(tmp_path / "whole"), os.replace
    scored = []
    for number in range(4):
        left, out = number, tmp_path / str(number)

        def kill(source: Path, target: Path, out: Path = out) -> None:
            nonlocal left
            left -= 1
            if left < 0:
                shutil.copytree(out, out.with_suffix(".dead"))
                raise Killed
            rename(source, target)

        with monkeypatch.context() as patched, suppress(Killed):
            patched.setattr(os, "replace", kill)
            predict(pixel_run, out)
        dead = out.with_suffix(".dead")
        assert any(name.endswith(".part") for name in contents(dead)), number
        for lock in dead.glob(".*.lock"):
            lock.unlink()  # the system frees it
        scored.append([one.kept for one in predict(pixel_run, dead)])
        assert contents(dead) == whole, number
    assert scored == [[False, False], [False, False], [True, False], [True, False]]


def test_only_the_official_file_is_missing(pixel_run: Path, tmp_path: Path) -> None:
    predict(pixel_run, tmp_path)
    before = contents(tmp_path)
    (tmp_path / "dev_seen.csv").unlink()
    assert [one.kept for one in predict(pixel_run, tmp_path, score=refuse_to_score)] == [False, True]
    assert contents(tmp_path) == before


def flip_a_label(root: Path) -> None:
    path = root / "dev_seen.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    lines[0]["text"] += " more"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def change_a_picture(root: Path) -> None:
    line = json.loads((root / "dev_seen.jsonl").read_text().splitlines()[0])
    Image.new("RGB", (9, 9)).save(root / line["img"])


@pytest.mark.parametrize(
    ("change", "named"), [(flip_a_label, r"\(data "), (change_a_picture, r"\(pictures ")]
)
def test_other_inputs_are_no_reason_to_keep_nor_to_replace(
    pixel_run: Path, spoiled: Path, tmp_path: Path, change: Callable[[Path], None], named: str
) -> None:
    out = tmp_path / "p"
    predict(pixel_run, out, root=spoiled)
    before = contents(out)
    change(spoiled)
    with pytest.raises(ConfigError, match=named):
        predict(pixel_run, out, root=spoiled)
    assert contents(out) == before
    assert not any(one.kept for one in predict(pixel_run, out, root=spoiled, overwrite=True))


def test_other_boxes_are_other_inputs(memes: Path, box_run: Path, tmp_path: Path) -> None:
    def boxes(name: str, right: int) -> Path:
        keys = (path.stem for path in sorted((memes / "img").glob("*.png")))
        lines = (json.dumps({"id": key, "boxes": [[0, 0, right, 20]]}) + "\n" for key in keys)
        (tmp_path / name).write_text("".join(lines))
        return tmp_path / name

    predict(box_run, tmp_path / "p", features=boxes("a.jsonl", 30))
    before = contents(tmp_path / "p")
    assert all(files.kept for files in predict(box_run, tmp_path / "p", features=boxes("b.jsonl", 30)))
    with pytest.raises(ConfigError, match=r"\(features "):
        predict(box_run, tmp_path / "p", features=boxes("a.jsonl", 31))
    assert contents(tmp_path / "p") == before


def test_predictions_of_another_model_stay(pixel_run: Path, region_run: Path, tmp_path: Path) -> None:
    predict(pixel_run, tmp_path)
    with pytest.raises(ConfigError, match=r"dev_seen\.npz .*\(bundle, features, pictures "):
        predict(region_run, tmp_path)


@pytest.mark.parametrize("content", [b"mine", b""])
@pytest.mark.parametrize("name", ["dev_seen.npz", "test_seen.csv"])
def test_files_of_others_stay(pixel_run: Path, tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError, match=rf"{name} .*overwrite=true"):
        predict(pixel_run, tmp_path)
    assert contents(tmp_path) == {name: content}


def test_files_without_inputs_stay(pixel_run: Path, tmp_path: Path) -> None:
    """Blends, and predictions of version 0.1, do not say what they were made of."""
    [first, _] = predict(pixel_run, tmp_path)
    assert isinstance(first.predictions.meta["made_of"], dict)
    old = Predictions.load(tmp_path / "dev_seen.npz")
    replace(old, meta={}).save(tmp_path / "dev_seen.npz")
    with pytest.raises(ConfigError, match=r"dev_seen\.npz .*overwrite=true"):
        predict(pixel_run, tmp_path)


@pytest.mark.parametrize("name", ["../dev_seen", "", ".", "a/b", "\0"])
def test_a_split_is_a_plain_name(pixel_run: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(repr(name))):
        predict_splits(pixel_run, [name], out=tmp_path / "p")
    assert not (tmp_path / "p").exists()
