"""A miniature world as a table, in the format that the settings of the data set describe."""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from diptych.datasets.miniature import Meme, Miniature
from diptych.types import Progress

COLUMNS = {
    "id": "id",
    "image": "image",
    "text": "text",
    "label": "label",
    "split": "split",
    "group": "country",
}
CLASSES = ("benign", "against warm", "against cool")
GROUPS = ("here", "there", "elsewhere")


def write_table_world(
    folder: Path,
    *,
    size: int,
    seed: int,
    names: Sequence[str],
    settings: Mapping[str, Any],
    progress: Progress | None,
) -> dict[str, int]:
    """Write one table, or one for each split, with pictures, regions and a vocabulary.

    Args:
        names: names of the training and the development split.
        settings: arguments of `Table`; without columns, the table has three classes and a group column.

    Returns:
        Number of rows of each split.
    """
    columns = {role: name for role, name in (settings.get("columns") or {}).items() if name is not None}
    columns = columns or COLUMNS
    images, cell = settings.get("images") or "{}", "{}"
    if images == "{}" and columns.get("id") != columns.get("image"):
        images = cell = "img/{}"
    world = Miniature(size, seed, images=images)
    parts = world.splits()
    splits = dict.fromkeys(names, parts["train"])  # both names are equal if a data set has one split only
    # If both names are equal, the later entry counts: the single split is small.
    splits = {**splits, names[1]: parts["dev_seen"], "test": parts["test_seen"]}
    labels = tuple(settings.get("labels") or CLASSES)
    rows = {
        split: [_row(meme, columns, labels, {**settings, "cell": cell}, split) for meme in memes]
        for split, memes in splits.items()
    }
    file: str | None = settings.get("file")
    # One column of lists; several columns of 0 and 1 fit into a CSV.
    several = isinstance(columns.get("label"), str) and _listed(labels, settings)
    if file is None and "split" not in columns:
        # A cell of a CSV file cannot be a list.
        ending = ".jsonl" if several else ".csv"
        files = {f"{split}{ending}": split_rows for split, split_rows in rows.items()}
    elif "split" in columns:
        files = {file or "table.csv": [row for split_rows in rows.values() for row in split_rows]}
    else:
        assert file is not None, "without file and split column, there is a file per split"
        files = {file: rows[names[1]]}
        rows = {names[1]: rows[names[1]]}
    for name, file_rows in files.items():
        _write(folder / name, file_rows)
    world.write_pictures(folder, progress)
    world.write_vocabulary(folder / "vocabulary.txt")
    return {split: len(split_rows) for split, split_rows in rows.items()}


def _listed(labels: Sequence[str], settings: Mapping[str, Any]) -> bool:
    """Whether a cell is a list of labels."""
    return bool(settings.get("first_label")) or (len(labels) > 3 and not settings.get("separator"))


def _row(
    meme: Meme, columns: Mapping[str, Any], labels: Sequence[str], settings: Mapping[str, Any], split: str
) -> dict[str, Any]:
    name = f"{meme.key}.png"
    cells: dict[str, Any] = {
        "id": str(meme.number) if columns.get("id") != columns.get("image") else name,
        "image": settings["cell"].replace("{}", name),
        "text": meme.remark.text,
        "text_b": meme.remark.bottom,
        "split": _raw(split, settings),
        "group": GROUPS[meme.number % len(GROUPS)],
        # Weights that differ, so that tests would notice if they were ignored.
        "weight": "1" if meme.number % 2 else "0.5",
    }
    row = {columns[role]: cell for role, cell in cells.items() if role in columns}
    label = columns.get("label")
    if isinstance(label, str):
        row[label] = _label(meme, labels, settings)
    elif label is not None:
        true = _true(meme, labels)
        row |= {column: str(int(name in true)) for column, name in zip(label, labels, strict=True)}
    return row


def _label(meme: Meme, labels: Sequence[str], settings: Mapping[str, Any]) -> Any:
    separator = settings.get("separator")
    if settings.get("soft"):
        return "0.9" if meme.hateful else "0.1"
    if separator:
        return separator.join(_true(meme, labels))
    if _listed(labels, settings) and not settings.get("first_label"):
        return [_raw(name, settings) for name in _true(meme, labels)]
    # 0 is benign, 1 against warm, 2 against cool colors.
    kind = (
        (1 + (meme.remark.about == "cool")) * meme.hateful % len(labels) if len(labels) > 2 else meme.hateful
    )
    # `first_label` tables have a second label in each cell, which the reader must ignore.
    raw = _raw(labels[int(kind)], settings)
    return [raw, "individual"] if settings.get("first_label") else raw


def _true(meme: Meme, labels: Sequence[str]) -> list[str]:
    """Labels that are true of a meme; each label stands for one fact of the scene or the text."""
    warm = meme.remark.about == "warm"
    facts = (not meme.hateful, meme.hateful, meme.hateful and warm, meme.hateful and not warm, warm)
    return [name for place, name in enumerate(labels) if facts[place % len(facts)]]


def _raw(name: str, settings: Mapping[str, Any]) -> str:
    """Spelling of a label or split in the file, before `values` replaces it."""
    return next(
        (raw for raw, meaning in (settings.get("values") or {}).items() if meaning == name and raw), name
    )


def _write(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        if path.suffix in (".json", ".jsonl"):
            lines = [json.dumps(row, ensure_ascii=False) for row in rows]
            file.write("\n".join(lines) + "\n" if path.suffix == ".jsonl" else f"[{','.join(lines)}]\n")
            return
        table = csv.DictWriter(
            file, [*rows[0]], delimiter="\t" if path.suffix == ".tsv" else ",", lineterminator="\n"
        )
        table.writeheader()
        table.writerows(rows)
