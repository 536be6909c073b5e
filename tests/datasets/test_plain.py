"""Whole columns and cells one by one make the same table of the same file."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest

from diptych.datasets import Table, columns
from diptych.datasets.table import plain, split
from diptych.errors import FormatError

COLUMNS = {
    "id": "id", "image": "image", "text": "text", "text_b": "more", "label": "label", "group": "group",
    "split": "part", "weight": "weight",
}  # fmt: skip
ROW = {
    "id": "1", "image": "a.png", "text": "one", "more": "two", "label": "x", "group": "g", "part": "train",
    "weight": 1,
}  # fmt: skip
CHANGES: dict[str, list[dict[str, Any]]] = {
    "plain": [{}, {"id": " 2\u3000", "text": "\u00a0caf\u00e9 "}, {"id": "3", "part": "dev"}],
    "numbers": [{"id": 1, "label": 0, "group": 7}, {"id": -2, "label": 1, "group": 8}],
    "truths": [{"label": True}, {"id": "2", "label": False}],
    "nothing": [{"text": None, "more": None, "label": None, "group": None}, {"id": "2", "label": ""}],
    "weights": [{"weight": 0.1}, {"id": "2", "weight": 1e-9}],
    "files": [{"image": "a/b.c.png"}, {"id": "2", "image": "d.png"}, {"id": "3", "image": "./e/.png"}],
    "endings": [{"image": "a.png"}, {"id": "2", "image": "b.jpg"}, {"id": "3", "image": "c"}],
    "mixed": [{"label": "x"}, {"id": 2, "label": 1.0}, {"id": "3", "label": ["a", "b"]}],
    "other split": [{"part": "dev"}],
}


def write(path: Path, rows: list[dict[str, Any]], ends: str = "\n") -> Path:
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(pa.Table.from_pylist(rows), path)
    else:
        path.write_bytes("".join(json.dumps(row) + ends for row in rows).encode())
    return path


# a column of Parquet is of one kind
KINDS = [(name, ".jsonl") for name in CHANGES] + [(name, ".parquet") for name in CHANGES if name != "mixed"]


@pytest.mark.parametrize(("name", "suffix"), KINDS)
@pytest.mark.parametrize("images", ["{}", "img/{}", "pictures/{}.png"])
def test_both_ways_are_equal(
    name: str, suffix: str, images: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{**ROW, **change} for change in CHANGES[name]] + [{**ROW, "id": "9", "part": "dev"}]
    if name == "numbers":
        rows[-1] |= {"id": 9, "label": 1, "group": 9}
    rows[-1]["label"] = rows[0]["label"] if name != "nothing" else "x"
    write(tmp_path / f"all{suffix}", rows)
    settings: dict[str, Any] = {"columns": COLUMNS, "images": images, "labels": ["x", "y"]}
    fast = {part: Table(tmp_path, part, **settings) for part in ("dev", "train") if name != "other split"}
    fast = fast or {"dev": Table(tmp_path, "dev", **settings)}

    def refuse(*args: Any, **settings: Any) -> None:
        raise plain.NotPlain

    monkeypatch.setattr(split, "plain_window", refuse)
    for part, one in fast.items():
        assert list(one) == list(Table(tmp_path, part, **settings))


@pytest.mark.parametrize("ends", ["\n", "\r\n", "\n\n"])
def test_lines_are_read_in_blocks(ends: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(columns, "LINES", 300)
    rows = [{**ROW, "id": str(number)} for number in range(50)]
    write(tmp_path / "train.jsonl", rows, ends)
    dataset = Table(tmp_path, "train", columns={**COLUMNS, "split": None})
    assert dataset.ids == tuple(map(str, range(50)))


@pytest.mark.parametrize(
    "line",
    ['{"id": "b"} {"id": "c"}', "[]", '{"id": "\\ud800"}', "{'id': 1}", '{"id": "b\tc"}', '{"id": ""}'],
)
def test_a_damaged_line_is_named(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(columns, "LINES", 30)
    (tmp_path / "train.jsonl").write_text('{"id": "a1"}\n' * 1 + '{"id": "a2"}\n{"id": "a3"}\n' + line + "\n")
    with pytest.raises(FormatError):
        Table(tmp_path, "train", columns={"id": "id"})


def test_an_error_names_the_line_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(columns, "LINES", 30)
    (tmp_path / "train.jsonl").write_text("".join(f'{{"id": "{row}"}}\n' for row in range(9)) + "{\n")
    with pytest.raises(FormatError, match=r"train\.jsonl:10: "):
        Table(tmp_path, "train", columns={"id": "id"})
