"""What the columns of a table mean, guessed by their names and by what is in them."""

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diptych.datasets.columns import SUFFIXES, column_names, find_tables, read_cells
from diptych.errors import FormatError

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp")
SPLITS = ("train", "dev", "val", "test")  # how names of splits begin
FEW = 50  # different cells of a label
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
    """A mapping of columns.

    Args:
        columns: by role.
        images: where a picture lies below the folder; `{}` is the cell.
        splits: names of those found, in the order training, development, test.
        only: whether the folder holds no other table.
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
        """Those of `Table`."""
        file = {} if self.only or "split" not in self.columns else {"file": self.path.name}
        return {"columns": dict(self.columns), "images": self.images, **file}

    def words(self, out: str = "r") -> str:
        """The command that trains on the table."""
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
    """Look at the first rows of a table.

    Raises:
        FormatError: it is no table, or has no rows.
    """
    if path.suffix not in SUFFIXES:
        raise FormatError(f"{path}: expected a table with the ending {', '.join(SUFFIXES)}.")
    names = column_names(path)
    cells = next(read_cells(path, names), None) if names else None
    if not cells or not len(cells[names[0]]):
        raise FormatError(f"{path}: there are no rows; expected a line of column names and rows below.")
    found: dict[str, str] = {}
    for role in NAMES:
        left = [name for name in names if name not in found.values()]
        best = max(left, key=lambda name: _points(role, name, cells[name]), default=None)
        if best is not None and _points(role, best, cells[best]) >= 1:
            found[role] = best
    if "id" not in found and "image" in found and _unique(cells[found["image"]]):
        found["id"] = found["image"]
    columns_of_bits = [name for name in names if name not in found.values() and _bits(cells[name])]
    likely = (name for name in names if name not in found.values() and _label_points(cells[name]) > 0)
    labels = found.get("label") or (columns_of_bits if len(columns_of_bits) > 1 else next(likely, None))
    listed = labels is not None and (isinstance(labels, list) or isinstance(cells[labels][0], list))
    order = ("id", "image", "text", "label", "split", "group", "weight")
    known: dict[str, Any] = {**found, **({} if labels is None else {"label": labels})}
    columns = {role: known[role] for role in order if role in known}
    return Guess(
        path=path,
        columns=columns,
        images=_place(path.parent, cells[found["image"]]) if "image" in found else "{}",
        splits=_splits(path, cells, columns.get("split")),
        only=len(find_tables(path.parent, found.values())) == 1,
        several=listed,
    )


def _points(role: str, name: str, column: Column) -> int | float:
    """How well a column suits a role: 2 for its name, 1 for its content; 0 where the content cannot be it."""
    words = name.lower().replace("_", " ").replace("-", " ").split()
    named = 2 * any(word.startswith(key) for word in words for key in NAMES[role])
    if role == "id" and "name" in words:
        named = 1  # may be that of a person
    content = CONTENT[role](column)
    return 0 if content < 0 else named + content


def _split_points(column: Column) -> int | float:
    values = {str(cell).lower() for cell in column}
    return 1 if len(values) <= FEW and all(value.startswith(SPLITS) for value in values) else -1


def _image_points(column: Column) -> int | float:
    pictures = sum(str(cell).lower().endswith(PICTURES) for cell in column)
    return 1 if pictures > len(column) / 2 else -1


def _id_points(column: Column) -> int | float:
    return 0 if _unique(column) and all(len(str(cell).split()) == 1 for cell in column) else -1


def _text_points(column: Column) -> int | float:
    """Up to 1, so that of several texts the longest is taken."""
    if not all(cell is None or isinstance(cell, str) for cell in column):
        return -1
    words = sum(len(cell.split()) for cell in column if cell) / len(column)
    return min(words / 100, 1) + (words > 2)


def _label_points(column: Column) -> int | float:
    values = {str(cell) for cell in column}
    return 0.5 if 2 <= len(values) <= FEW and len(values) < len(column) else -1


def _weight_points(column: Column) -> int | float:
    return 0 if all(_is_number(cell) for cell in column) else -1


def _group_points(column: Column) -> int | float:
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
    """Whether a column says yes or no of one label."""
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
    """Where the first pictures lie: beside the table, or in a folder beside it."""
    for folder in (root, *sorted(one for one in root.iterdir() if one.is_dir())):
        if any((folder / str(cell)).is_file() for cell in column[:5]):
            return "{}" if folder == root else f"{folder.name}/{{}}"
    return "{}"


def _splits(path: Path, cells: Mapping[str, Column], column: str | None) -> tuple[str, ...]:
    if column is not None:
        names = {str(cell) for cell in cells[column]}
    else:
        names = {one.stem for one in find_tables(path.parent, ()) if one.suffix == path.suffix}
    return tuple(sorted(names, key=split_order))


def split_order(name: str) -> tuple[int, str]:
    """Training, development, test, by how names begin."""
    place = next((place for place, start in enumerate(SPLITS) if name.lower().startswith(start)), len(SPLITS))
    return place, name


def _quoted(text: str | list[str]) -> str:
    """A word that the parser of settings takes as text, or as a list of texts."""
    if isinstance(text, list):
        return f"[{','.join(map(_quoted, text))}]"
    plain = all(sign.isalnum() or sign in "_-./" for sign in text)
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return text if plain and text else f'"{escaped}"'
