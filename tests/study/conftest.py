"""A small study that a test may change."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from diptych.cli import main

SMALL = {
    "name": "small",
    "runs": {"train": ["dev_seen"], "traindev": ["test_seen", "test_unseen"]},
    "dev": "dev_seen",
    "clean": {},
    "features": {"all": "features"},
    "vocabularies": {"own": "auto"},
    "ensemble": {"method": "greedy"},
    "overrides": ["trainer.max_steps=2", "data.batch_size=8"],
    "families": {
        "U": {
            "experiment": "hateful_memes/uniter_tiny",
            "vocabulary": "own",
            "scores": "log_probability",
            "pretrain": {
                "experiment": "pretrain/vilio_O_tiny",
                "features": "all",
                "overrides": ["model=uniter_tiny", "trainer.max_steps=1"],
            },
            "members": {"U1": {"seed": 1, "features": "all"}, "U2": {"seed": 2, "features": "all"}},
        },
        "E": {
            "experiment": "hateful_memes/ernievil_tiny",
            "scores": "logit",
            "overrides": ["model.whole_image=false", "task.loss=bce"],
            "members": {"E1": {"features": "all", "more_features": "all"}},
        },
    },
}


@pytest.fixture
def tree() -> dict[str, Any]:
    """Its keys, to be changed before `write`."""
    return yaml.safe_load(yaml.safe_dump(SMALL))


@pytest.fixture
def write(tmp_path: Path) -> Callable[[dict[str, Any]], Path]:
    def put(tree: dict[str, Any], name: str = "small") -> Path:
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump(tree))
        return path

    return put


def study(action: str, path: Path, root: Path, out: Path, *words: object) -> int:
    """`diptych study ACTION FILE` on 20 memes of every split."""
    given = [f"root={root}", f"out={out}", "limit=20"]
    kept = [word for word in given if not any(str(one).startswith(word[:4]) for one in words)]
    return main(["study", action, str(path), *kept, *map(str, words)])


@pytest.fixture
def call(memes: Path, out: Path) -> Callable[..., int]:
    """`study` into `out`."""
    return lambda action, path, *words: study(action, path, memes, out, *words)


@pytest.fixture(scope="session")
def finished(memes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the small study, run; to be read only."""
    folder = tmp_path_factory.mktemp("study")
    (folder / "small.yaml").write_text(yaml.safe_dump(SMALL))
    assert study("run", folder / "small.yaml", memes, folder / "out") == 0
    return folder / "out"


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.fixture
def done(finished: Path, out: Path) -> Path:
    """A copy of it, where `call` works."""
    return Path(shutil.copytree(finished, out, symlinks=True))
