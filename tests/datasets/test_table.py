"""Tables in every format and form, and what is wrong with the others."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest

from diptych.datasets import Table, guess_table
from diptych.errors import ConfigError, DiptychError, FormatError

ROWS = [
    {"key": "a", "file": "a.png", "words": "one, two", "is": "bad", "part": "train", "where": "US"},
    {"key": "b", "file": "b.png", "words": 'say "no"\nnow', "is": "good", "part": "train", "where": "DE"},
    {
        "key": "c",
        "file": "c.png",
        "words": "\u05e9\u05dc\u05d5\u05dd",
        "is": "bad",
        "part": "dev",
        "where": "DE",
    },
]
COLUMNS = {"id": "key", "image": "file", "text": "words", "label": "is", "split": "part", "group": "where"}


def written(path: Path, rows: list[dict[str, Any]]) -> Path:
    names = list(rows[0])
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(pa.table({name: [row[name] for row in rows] for name in names}), path)
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows), encoding="utf-8")
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    else:
        sign = "\t" if path.suffix == ".tsv" else ","
        quoted = [['"' + str(row[name]).replace('"', '""') + '"' for name in names] for row in rows]
        path.write_text("\n".join(map(sign.join, [names, *quoted])) + "\n", encoding="utf-8-sig")
    return path


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".json", ".jsonl", ".parquet"])
def test_every_format_holds_the_same_examples(tmp_path: Path, suffix: str) -> None:
    written(tmp_path / f"all{suffix}", ROWS)
    train, dev = (Table(tmp_path, split, columns=COLUMNS) for split in ("train", "dev"))
    assert Table.splits(tmp_path, columns=COLUMNS) == ("train", "dev")
    assert [(one.id, one.target, one.group) for one in train] == [("a", "bad", "US"), ("b", "good", "DE")]
    assert [one.pairs[0].text for one in (*train, *dev)] == [row["words"] for row in ROWS]
    assert dev.images == {"c": tmp_path / "c.png"}
    assert (train.labels, train.positive) == (("bad", "good"), "good")


def test_a_file_per_split_and_rows_without_ids(tmp_path: Path) -> None:
    for split in ("train", "val"):
        written(tmp_path / f"{split}.csv", [{"text": f"{split} words", "label": 1}] * 2)
    (tmp_path / "features.tsv").write_text("1\t2\n")  # lies there too, and is no split
    columns = {"text": "text", "label": "label"}
    assert Table.splits(tmp_path, columns=columns) == ("train", "val")
    assert Table(tmp_path, "val", columns=columns).ids == ("val/1", "val/2")


@pytest.mark.parametrize(
    ("cell", "settings", "target"),
    [
        (1, {"values": {"1": "yes"}}, "yes"),
        (1.0, {}, "1"),
        (True, {}, "1"),
        ("", {}, None),
        (0.25, {"soft": True, "labels": ["no", "yes"]}, {"no": 0.75, "yes": 0.25}),
        ("a; b", {"separator": ";"}, {"a": 1.0, "b": 1.0}),
        (["a", "b"], {}, {"a": 1.0, "b": 1.0}),
        (["a", "b"], {"first_label": True}, "a"),
        ([], {}, {}),
    ],
)
def test_labels_of_every_form(tmp_path: Path, cell: Any, settings: dict[str, Any], target: Any) -> None:
    written(tmp_path / "train.jsonl", [{"id": 7, "label": cell}])
    [example] = Table(tmp_path, "train", columns={"id": "id", "label": "label"}, **settings)
    assert (example.id, example.target) == ("7", target)


def test_a_column_for_each_label_and_a_weight(tmp_path: Path) -> None:
    written(tmp_path / "train.csv", [{"id": 1, "b": 1, "a": 0, "w": 0.5}, {"id": 2, "b": 0, "a": 1, "w": 2}])
    columns = {"id": "id", "label": ["b", "a"], "weight": "w"}
    dataset = Table(tmp_path, "train", columns=columns)
    assert (dataset.labels, dataset.several) == (("b", "a"), True)
    assert [(one.target, one.weight) for one in dataset] == [({"b": 1, "a": 0}, 0.5), ({"b": 0, "a": 1}, 2)]
    assert dataset.node["columns"] == columns


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"key": "b"}, " 'b' "),
        ({"key": ""}, " 3 .* train "),
        ({"file": "../c.png"}, r" 'c' .* '\.\./c\.png'"),
        ({"file": ""}, " 'c' .* ''"),
        ({"weight": "heavy"}, "weight .* 'c' .* 'heavy'; "),
        ({"weight": "-1"}, "weight .* 'c' "),
    ],
)
def test_a_wrong_row_is_one_error(tmp_path: Path, changes: dict[str, str], message: str) -> None:
    rows = [{**row, "part": "train", "weight": "1"} for row in ROWS]
    written(tmp_path / "all.csv", [*rows[:2], {**rows[2], **changes}])
    with pytest.raises(FormatError, match=message):
        Table(tmp_path, "train", columns={**COLUMNS, "weight": "weight"})


def test_a_column_that_is_not_there_is_named(tmp_path: Path) -> None:
    written(tmp_path / "train.csv", ROWS)
    with pytest.raises(ConfigError, match=r"'iss' .*data\.columns\.label.* 'is'\?"):
        Table(tmp_path, "train", columns={"id": "key", "label": "iss"})
    with pytest.raises(ConfigError, match=r"data\.columns .*'labels'; .* 'label'\?"):
        Table(tmp_path, "train", columns={"labels": "is"})
    with pytest.raises(ConfigError, match=r"data\.labels"):
        Table(tmp_path, "train", columns={"label": "is"}, soft=True)


def test_labels_of_a_test_split_may_be_kept_back(tmp_path: Path) -> None:
    written(tmp_path / "train.csv", [{"id": 1, "is": "x"}])
    written(tmp_path / "test.csv", [{"id": 2}])
    assert Table(tmp_path, "test", columns={"id": "id", "label": "is"})[0].target is None


def test_columns_are_guessed_by_name_and_by_content(tmp_path: Path) -> None:
    path = written(tmp_path / "t.csv", ROWS)
    guess = guess_table(path)
    assert dict(guess.columns) == {role: name for role, name in COLUMNS.items() if role != "group"}
    assert (guess.images, guess.splits) == ("{}", ("train", "dev"))
    assert Table(tmp_path, "train").ids == ("a", "b")  # no columns given


def test_the_words_of_a_guess_are_those_of_training(tmp_path: Path) -> None:
    rows = [
        {"Meme ID": n, "my file": f"{n}.png", "caption": "a b c", "x": n % 2, "y": n // 2 % 2}
        for n in range(4)
    ]
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "0.png").touch()
    guess = guess_table(written(tmp_path / "train.csv", rows))
    assert guess.several
    words = guess.words()
    assert "'data.columns.id=\"Meme ID\"'" in words
    assert "task=multi_label" in words
    assert "'data.columns.label=[x,y]'" in words
    assert 'data.images="pictures/{}"' in words


@pytest.mark.parametrize("content", ["", "a,b\n", "\x00\x00", '"a'])
@pytest.mark.parametrize("suffix", [".csv", ".json", ".jsonl", ".parquet", ".txt"])
def test_a_file_that_is_no_table_cannot_be_guessed(tmp_path: Path, content: str, suffix: str) -> None:
    path = tmp_path / f"t{suffix}"
    path.write_text(content)
    with pytest.raises(DiptychError):
        guess_table(path)
