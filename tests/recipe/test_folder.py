"""Whose a run folder is, with runs of a few small files."""

import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from diptych.data.inputs import checksums
from diptych.errors import ConfigError, DiptychError
from diptych.recipe.folder import held, write_settings

SHARED: dict[str, Any] = {}
CONFIG = {"model": SHARED, "processor": SHARED, "task": {}, "data": {}, "optim": {}, "seed": 1}


def put(path: Path, text: str = "mine") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def contents(folder: Path) -> dict[str, str]:
    return {str(one): one.read_text() for one in sorted(folder.rglob("*")) if one.is_file()}


def config(folder: Path, **changes: Any) -> dict[str, Any]:
    return {**CONFIG, "out": str(folder), **changes}


@pytest.fixture
def annotations(tmp_path: Path) -> Path:
    return put(tmp_path / "train.jsonl", '{"label": 0}')


@pytest.fixture(params=["complete", "stopped"])
def run(request: pytest.FixtureRequest, tmp_path: Path, annotations: Path) -> Path:
    folder = tmp_path / "run"
    with held(folder, config(folder)):
        write_settings(folder, config(folder), checksums([annotations]))
        put(folder / "checkpoints" / "last.ckpt", "weights")
        put(folder / "metrics.csv", "step\n")
        if request.param == "complete":
            put(folder / "bundle" / "bundle.yaml", "a: 1")
    return folder


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize(
    "name",
    [
        "files/photo.txt", "files/vocabulary.txt", "checkpoints/model.pt", "checkpoints/last.ckpt",
        "config.yaml", "tensorboard/events", "metrics.csv", "bundle/bundle.yaml", "thesis.txt",
        "inputs.json", ".hidden",
    ],
)  # fmt: skip
def test_a_folder_of_other_things_is_left_alone(tmp_path: Path, name: str, overwrite: bool) -> None:
    folder = tmp_path / "theirs"
    put(folder / name, "precious: true")
    before = contents(folder)
    message = rf"{re.escape(str(folder))}(/config\.yaml: | .*'{name.partition('/')[0]}')"
    with pytest.raises(DiptychError, match=message), held(folder, config(folder, overwrite=overwrite)):
        pass
    assert contents(folder) == before


@pytest.mark.parametrize(
    "name", ["files/photo.txt", "checkpoints/model.pt", "tensorboard/x", "bundle/thesis.txt"]
)
def test_what_others_put_into_a_run_is_never_removed(run: Path, name: str) -> None:
    put(run / name)
    before = contents(run)
    message = re.escape(f"{run} contains {name}")
    with pytest.raises(ConfigError, match=message), held(run, config(run, seed=2, overwrite=True)):
        pass
    assert contents(run) == before


def test_the_same_run_goes_on_and_another_is_refused(run: Path) -> None:
    before = contents(run)
    with held(run, config(run)):
        assert contents(run).items() >= before.items()
    with pytest.raises(ConfigError, match="seed was 1, now 2"), held(run, config(run, seed=2)):
        pass
    assert contents(run) == before


def begin_and_stop(run: Path, *, overwrite: bool) -> None:
    with held(run, config(run, seed=2, overwrite=overwrite)):
        assert not (run / "config.yaml").exists()
        put(run / "files" / "vocabulary.txt", "new")
        raise KeyboardInterrupt


def test_a_run_that_is_replaced_comes_back_if_the_new_one_cannot_begin(run: Path) -> None:
    before = contents(run)
    with pytest.raises(KeyboardInterrupt):
        begin_and_stop(run, overwrite=True)
    assert contents(run) == before


def test_a_run_that_is_replaced_comes_back_after_a_kill_at_any_change(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, rename = contents(run), os.replace
    left = 0

    def kill(source: Path, target: Path) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise SystemExit
        rename(source, target)

    for number in range(9):
        with monkeypatch.context() as patched, suppress(SystemExit, KeyboardInterrupt):
            left = number
            patched.setattr(os, "replace", kill)
            begin_and_stop(run, overwrite=True)  # is killed while it sets aside, or puts back
        with held(run, config(run)):
            pass
        assert contents(run) == before, number


def test_a_run_that_is_replaced_goes_when_the_new_one_begins(run: Path) -> None:
    with held(run, config(run, seed=2, overwrite=True)):
        write_settings(run, config(run, seed=2), {})
    assert sorted(one.name for one in run.iterdir()) == ["config.yaml", "inputs.json"]


def test_a_folder_that_a_killed_run_left_without_settings_is_taken_again(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    put(folder / ".run.lock", "")
    put(folder / "files" / ".vocabulary.txt.part", "[PA")
    with held(folder, config(folder)):
        assert [one.name for one in folder.iterdir()] == [".run.lock"]


def test_what_never_began_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        begin_and_stop(tmp_path / "a" / "run", overwrite=False)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("new", ['{"label": 1}', "", '{"label": 0}\n'])
def test_an_input_that_has_changed_is_named(run: Path, annotations: Path, new: str) -> None:
    before, old = contents(run), annotations.read_text()
    annotations.write_text(new)
    message = r"train\.jsonl.* overwrite=true"
    with pytest.raises(ConfigError, match=message), held(run, config(run)):
        pass
    assert contents(run) == before
    annotations.write_text(old)
    with held(run, config(run)):
        assert (run / "checkpoints" / "last.ckpt").exists()
    annotations.write_text(new)
    with held(run, config(run, overwrite=True)):
        assert not (run / "checkpoints").exists()
        write_settings(run, config(run), checksums([annotations]))


def test_runs_of_the_first_version_still_open(run: Path, annotations: Path) -> None:
    (run / "inputs.json").unlink()
    annotations.write_text("changed")
    with held(run, config(run)):
        assert (run / "checkpoints" / "last.ckpt").exists()


def test_of_two_calls_at_once_one_is_refused(run: Path) -> None:
    busy = pytest.raises(ConfigError, match=re.escape(str(run)))
    with held(run, config(run)), busy, held(run, config(run)):
        pass
