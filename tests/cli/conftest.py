"""Data sets to spoil."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from diptych.cli import main

Record = dict[str, Any]


@pytest.fixture
def edit(spoiled: Path) -> Callable[..., None]:
    """Change the records of a split in place: `edit(lambda records: ..., split="train")`."""

    def change(function: Callable[[list[Record]], object], split: str = "train") -> None:
        path = spoiled / f"{split}.jsonl"
        records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        function(records)
        path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")

    return change


@pytest.fixture
def pictures(spoiled: Path) -> list[Path]:
    """Picture files of the training split, in its order."""
    lines = (spoiled / "train.jsonl").read_text(encoding="utf-8").splitlines()
    return [spoiled / json.loads(line)["img"] for line in lines]


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[[list[Any]], str]:
    """Run a command that must fail with one line; returns the line."""

    def run(words: list[Any]) -> str:
        capsys.readouterr()
        assert main([str(word) for word in words]) == 2
        [line] = capsys.readouterr().err.splitlines()
        assert line.startswith("diptych: error: ")
        return line

    return run


@pytest.fixture
def boxes(memes: Path, tmp_path: Path) -> Path:
    """A file of boxes for every picture, the same corner."""
    names = sorted(path.stem for path in (memes / "img").glob("*.png"))
    path = tmp_path / "boxes.jsonl"
    lines = [json.dumps({"id": name, "boxes": [[0, 0, 30, 20]]}) + "\n" for name in names]
    path.write_text("".join(lines), encoding="utf-8")
    return path
