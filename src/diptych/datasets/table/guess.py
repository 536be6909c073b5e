"""Guesses the roles of a table's columns from their names and contents."""

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diptych.datasets.columns import SUFFIXES, column_names, find_tables, read_cells
from diptych.errors import FormatError

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp")
SPLITS = ("train", "dev", "val", "test")  # prefixes of split names, in this order
FEW = 50  # largest number of different values in a label column
# Prefixes of words in column names, by role.
NAMES = {
    "split": ("split", "part", "set", "fold", "partition", "subset"),
    "image": ("image", "img", "picture", "file", "photo", "path"),
    "id": ("id", "key", "identifier", "name", "number"),
    "text": ("text", "caption", "sentence", "transcript", "words", "ocr", "title"),
    "label": ("label", "verdict", "class", "target", "answer", "hate", "gold", "category"),
    "weight": ("weight",),
    "group": ("group", "country", "language", "source", "topic"),
}
Column = Sequence[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Guess:
    """Guessed settings of a table.

    Args:
        columns: name of the column by role; for several label columns, a list.
        images: path of a picture below the folder; `{}` stands for the cell.
        splits: names of the splits, in the order training, development, test.
        only: whether the folder has no other table.
        several: whether an example has several labels.
    """

    path: Path
    columns: Mapping[str, Any]
    images: str
    splits: tuple[str, ...]
    only: bool
    several: bool

    @property
    def settings(self) -> dict[str, Any]:
        """Arguments of `Table`."""
        file = {} if self.only or "split" not in self.columns else {"file": self.path.name}
        return {"columns": dict(self.columns), "images": self.images, **file}

    def words(self, out: str = "r") -> str:
        """Write the command that trains on the table."""
        train, validate = self.splits[0], next(iter(self.splits[1:]), self.splits[0])
        given = [
            "model=concat_bert_tiny" if "image" in self.columns else "model=text_bert_tiny",
            "data=table",
            *(["task=multi_label"] if self.several else []),
            f"root={self.path.parent}",
            *(f"data.columns.{role}={_quoted(name)}" for role, name in self.columns.items()),
            *([f"data.file={_quoted(name)}"] if (name := self.settings.get("file")) else []),
            *([f"data.images={_quoted(self.images)}"] if self.images != "{}" else []),
            f"data.train.split={_quoted(train)}",
            f"data.validate.split={_quoted(validate)}",
            f"out={out}",
        ]
        return "diptych train " + shlex.join(given)


def guess_table(path: Path) -> Guess:
    """Guess the settings of a table from its first rows.

    Raises:
        FormatError: the file is not a table, or has no rows.
    """
    if path.suffix not in SUFFIXES:
        raise FormatError(f"{path}: expected a table with the suffix {', '.join(SUFFIXES)}.")
    names = column_names(path)
    cells = next(read_cells(path, names), None) if names else None
    if not cells or not len(cells[names[0]]):
        raise FormatError(f"{path}: there are no rows; expected a line of column names and rows below.")
    # Each role takes the best remaining column, in the order of NAMES: roles that can be recognized
    # reliably come first, so that a later, vaguer role cannot take their column.
    chosen: dict[str, str] = {}
    for role in NAMES:
        left = [name for name in names if name not in chosen.values()]
        best = max(left, key=lambda name: _points(role, name, cells[name]), default=None)
        # Below 1 there is neither a fitting name nor telling content.
        if best is not None and _points(role, best, cells[best]) >= 1:
            chosen[role] = best
    if "id" not in chosen and "image" in chosen and _unique(cells[chosen["image"]]):
        chosen["id"] = chosen["image"]
    # Without a label column: several columns of 0 and 1 are labels, else the first column of few values.
    columns_of_bits = [name for name in names if name not in chosen.values() and _bits(cells[name])]
    likely = (name for name in names if name not in chosen.values() and _label_points(cells[name]) > 0)
    # One column of bits may be anything, such as "edited"; several beside each other are labels.
    labels = chosen.get("label") or (columns_of_bits if len(columns_of_bits) > 1 else next(likely, None))
    listed = labels is not None and (isinstance(labels, list) or isinstance(cells[labels][0], list))
    order = ("id", "image", "text", "label", "split", "group", "weight")
    known: dict[str, Any] = {**chosen, **({} if labels is None else {"label": labels})}
    columns = {role: known[role] for role in order if role in known}
    return Guess(
        path=path,
        columns=columns,
        images=_place(path.parent, cells[chosen["image"]]) if "image" in chosen else "{}",
        splits=_splits(path, cells, columns.get("split")),
        only=len(find_tables(path.parent, chosen.values())) == 1,
        several=listed,
    )


def _points(role: str, name: str, column: Column) -> int | float:
    """Score of a column for a role: up to 2 points for its name plus those of its content; 0 excludes it."""
    words = name.lower().replace("_", " ").replace("-", " ").split()
    named = 2 * any(word.startswith(key) for word in words for key in NAMES[role])
    if role == "id" and "name" in words:
        named = 1  # "name" may also be the name of a person
    content = CONTENT[role](column)
    return 0 if content < 0 else named + content


def _split_points(column: Column) -> int | float:
    values = {str(cell).lower() for cell in column}
    # Names of splits are so particular that the content alone decides.
    return 1 if len(values) <= FEW and all(value.startswith(SPLITS) for value in values) else -1


def _image_points(column: Column) -> int | float:
    pictures = sum(str(cell).lower().endswith(PICTURES) for cell in column)
    return 1 if pictures > len(column) / 2 else -1


def _id_points(column: Column) -> int | float:
    return 0 if _unique(column) and all(len(str(cell).split()) == 1 for cell in column) else -1


def _text_points(column: Column) -> int | float:
    """Up to 1 point for length, so that the longest of several texts wins, and 1 for more than two words."""
    if not all(cell is None or isinstance(cell, str) for cell in column):
        return -1
    words = sum(len(cell.split()) for cell in column if cell) / len(column)
    return min(words / 100, 1) + (words > 2)


def _label_points(column: Column) -> int | float:
    values = {str(cell) for cell in column}
    # Half a point: only a fitting name makes it a label in the first pass; see `likely` above.
    return 0.5 if 2 <= len(values) <= FEW and len(values) < len(column) else -1


def _weight_points(column: Column) -> int | float:
    return 0 if all(_is_number(cell) for cell in column) else -1


def _group_points(column: Column) -> int | float:
    # Measures are reported per group, so a column of unique values is none.
    return 0 if len({str(cell) for cell in column}) <= 10 * FEW else -1


CONTENT: Mapping[str, Callable[[Column], float]] = {
    "split": _split_points,
    "image": _image_points,
    "id": _id_points,
    "text": _text_points,
    "label": _label_points,
    "weight": _weight_points,
    "group": _group_points,
}


def _bits(column: Column) -> bool:
    """Whether a column has only 0 and 1, or false and true: a label of its own."""
    # pandas writes 0 and 1 as 0.0 and 1.0 if a cell of the column is empty.
    return {str(cell).removesuffix(".0").lower() for cell in column} in ({"0", "1"}, {"false", "true"})


def _unique(column: Column) -> bool:
    return len({str(cell) for cell in column if cell not in (None, "")}) == len(column)


def _is_number(cell: Any) -> bool:
    try:
        float(cell)
    except (TypeError, ValueError):
        return False
    return True


def _place(root: Path, column: Column) -> str:
    """Find the folder of the first pictures: that of the table, or one beside it."""
    for folder in (root, *sorted(path for path in root.iterdir() if path.is_dir())):
        if any((folder / str(cell)).is_file() for cell in column[:5]):
            return "{}" if folder == root else f"{folder.name}/{{}}"
    return "{}"


def _splits(path: Path, cells: Mapping[str, Column], column: str | None) -> tuple[str, ...]:
    if column is not None:
        names = {str(cell) for cell in cells[column]}
    else:
        names = {table.stem for table in find_tables(path.parent, ()) if table.suffix == path.suffix}
    return tuple(sorted(names, key=split_order))


def split_order(name: str) -> tuple[int, str]:
    """Sort key for split names: training, development, test, others."""
    place = next((place for place, start in enumerate(SPLITS) if name.lower().startswith(start)), len(SPLITS))
    return place, name


def _quoted(text: str | list[str]) -> str:
    """Quote text, or a list of texts, for Hydra's override parser."""
    if isinstance(text, list):
        return f"[{','.join(map(_quoted, text))}]"
    plain = all(sign.isalnum() or sign in "_-./" for sign in text)
    # Quotes for Hydra's grammar here, those for the shell come from `shlex` around it.
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return text if plain and text else f'"{escaped}"'
