"""Your own table as a data set: CSV, TSV, JSON, JSON lines or Parquet, with a mapping of its columns.

    root/labels.csv                     one file with a column for the split, or
    root/train.csv, root/dev.csv, ...   one file per split

A label is the name of a class, a probability (`soft`), a list of labels, or one column for each of several
labels.
"""

import csv
import json
from array import array
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from os.path import normpath
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from diptych.datasets.base import Split, at_most, require_split
from diptych.datasets.binary_csv import read_scores
from diptych.datasets.columns import (
    SUFFIXES,
    Cells,
    Window,
    column_names,
    find_tables,
    read_cells,
    read_windows,
)
from diptych.datasets.examples import one_pair_batch
from diptych.datasets.table.cells import cell_number, cell_score, cell_text, string_column
from diptych.datasets.table.guess import guess_table, split_order
from diptych.datasets.table.place import listed, needed, only_file
from diptych.datasets.table.plain import NotPlain, plain_window
from diptych.datasets.table.world import write_table_world
from diptych.errors import ConfigError, FormatError, nearest
from diptych.files import atomic_file
from diptych.predictions import Predictions
from diptych.types import Example, Progress

ROLES = ("id", "image", "text", "text_b", "label", "split", "group", "weight")
MAY_LACK = ("label", "group", "weight")  # optional columns of test splits


class Table(Split):
    """One split of a table.

    `Example.target` is the name of a class, or `{label: score}` for several or soft labels.

    Args:
        columns: column of each of `id`, `image`, `text`, `text_b`, `label`, `split`, `group`, `weight`; for
            `label` also a list of columns of 0 and 1. Without `id`, rows get numbers. None guesses all.
        file: name of the table below the root. None means `SPLIT.csv` or another suffix; with a split column,
            the only table in the folder.
        images: path of a picture below the root, with `{}` for the cell, such as `img/{}.png`.
        labels: names of the classes in order; by default those of the data, sorted.
        values: replacements of cells in the label and split columns: `{"Non-offensiv": "not offensive"}`.
        header: names of the columns, for files without a header line.
        separator: string that separates several labels in a cell.
        first_label: use only the first of several labels in a cell.
        soft: the label cell is the probability of the last of two `labels`.
        positive: positive class of binary measures; by default the second of two.

    Raises:
        ConfigError: a column or a file does not exist.
    """

    name = "table"
    noun = "row"
    suffix = ".csv"

    def __init__(
        self,
        root: Path | str,
        split: str,
        *,
        columns: Mapping[str, Any] | None = None,
        file: str | None = None,
        images: str = "{}",
        labels: Sequence[str] | None = None,
        values: Mapping[str, str] | None = None,
        header: Sequence[str] | None = None,
        separator: str | None = None,
        first_label: bool = False,
        soft: bool = False,
        positive: str | None = None,
        limit: int | None = None,
    ) -> None:
        self.columns = {role: name for role, name in (columns or {}).items() if name is not None}
        if unknown := [role for role in self.columns if role not in ROLES]:
            raise ConfigError(
                f"data.columns has no {unknown[0]!r}; it maps {', '.join(ROLES)}.{nearest(unknown[0], ROLES)}"
            )
        if soft and (labels is None or len(labels) != 2):
            raise ConfigError("soft labels need data.labels=[NEGATIVE,POSITIVE], the names of two classes.")
        self.settings = {
            "columns": self.columns,
            "file": file,
            "images": images,
            "labels": None if labels is None else list(labels),
            "values": dict(values or {}),
            "header": None if header is None else list(header),
            "separator": separator,
            "first_label": first_label,
            "soft": soft,
            "positive": positive,
        }
        if not self.columns:  # then the names and contents of the columns decide
            self.columns, self.settings = self._guessed(Path(root), self.settings)  # bundles store the guess
        super().__init__(root, split, limit=limit)
        self.labels = tuple(labels) if labels is not None else self._found_labels()
        self.measure = "macro_auroc" if self.several else "accuracy"
        self.positive = positive or (self.labels[1] if len(self.labels) == 2 else None)

    @staticmethod
    def _guessed(root: Path, settings: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Guess the columns, and return them and the settings including them."""
        file, tables = settings.get("file"), []
        if root.is_dir():
            tables = sorted(path for path in root.iterdir() if path.suffix in SUFFIXES)
        if file is None and not tables:
            raise ConfigError(f"{root} has no table; expected files with the suffix {', '.join(SUFFIXES)}.")
        train = sorted(tables, key=lambda path: split_order(path.stem))  # test tables often lack labels
        guess = guess_table(root / file if file is not None else train[0])
        images = settings.get("images") or "{}"
        guessed = {**guess.settings, **({"images": images} if images != "{}" else {})}
        return dict(guess.columns), {**settings, **guessed}

    @classmethod
    def splits(cls, root: Path, **settings: Any) -> tuple[str, ...]:
        if not any((settings.get("columns") or {}).values()):
            settings = cls._guessed(root, settings)[1]
        column = (settings.get("columns") or {}).get("split")
        if column is None:
            tables = find_tables(root, needed(settings), settings.get("header"))
            names = {path.stem for path in tables}
            if settings.get("file") is not None:
                names = {Path(settings["file"]).stem}
        else:
            values, path = settings.get("values") or {}, only_file(root, settings)
            names = set()
            for window in read_windows(path, [column], settings.get("header")):
                found = window.cells()[column] if window.columns is None else window.columns[0].unique()
                cells = set(found if isinstance(found, list) else found.to_pylist())
                names |= {str(values.get(str(cell), cell)) for cell in cells if cell not in (None, "")}
        return tuple(sorted(names, key=split_order))

    @classmethod
    def recognizes(cls, root: Path) -> bool:
        return False  # any folder with a table would match, so this data set must be requested by name

    @classmethod
    def find_files(cls, root: Path, split: str, **settings: Any) -> tuple[Path, ...]:
        if not any((settings.get("columns") or {}).values()):
            settings = cls._guessed(root, settings)[1]
        require_split(split, root, cls.splits(root, **settings))
        file = settings.get("file")
        if file is None and "split" not in (settings.get("columns") or {}):
            return (next(path for end in SUFFIXES if (path := root / f"{split}{end}").is_file()),)
        return (only_file(root, settings),)

    def read(self) -> Iterable[Example]:
        path, header = self.files[0], self.settings["header"]
        self._require_columns(path)
        names = list(dict.fromkeys(name for value in self.columns.values() for name in listed(value)))
        hashes, done = array("q"), 0
        for window in read_windows(path, names, header):
            batch = self._examples(window, path, done)
            if "id" in self.columns:
                hashes.extend(map(hash, batch.column("id").to_pylist()))  # 8 bytes per row
            done += len(batch)
            yield batch
        self._require_unique(path, np.asarray(hashes))

    def _examples(self, window: Window, where: Path, done: int) -> pa.RecordBatch:
        """Of some rows, those of this split, of which `done` came before."""
        try:
            if window.columns is None:
                raise NotPlain
            return plain_window(
                window.columns,
                self.columns,
                chosen=self._chosen,
                target=partial(self._target, where=where),
                images=self.settings["images"],
                key=lambda row: f"{self.split}/{done + row + 1}",
            )
        except (NotPlain, pa.ArrowException):
            cells = window.cells()  # these say which row is wrong
            return self._window(cells, self._of_split(cells), where=where, first=done)

    def _require_columns(self, path: Path) -> None:
        present = column_names(path, self.settings["header"])
        hidden = MAY_LACK if self.split.startswith("test") else ()
        self.columns = {
            role: value
            for role, value in self.columns.items()
            if role not in hidden or set(listed(value)) <= {*present}
        }
        for role, value in self.columns.items():
            for name in listed(value):
                if name not in present:
                    shown = at_most([other[:40] for other in present], 20)
                    raise ConfigError(
                        f"{path} has no column {name!r} (data.columns.{role}); it has {shown}."
                        f"{nearest(name, present)}"
                    )

    def _require_unique(self, path: Path, hashes: np.ndarray) -> None:
        """Check ids by hashes, which saves memory for millions of rows; only a clash reads the ids again."""
        if not (np.diff(np.sort(hashes)) == 0).any():
            return
        seen: set[str] = set()
        for cells in read_cells(
            path, list(dict.fromkeys(map(str, self.columns.values()))), self.settings["header"]
        ):
            for row in self._of_split(cells):
                key = cell_text(cells[self.columns["id"]][row])
                if key in seen:
                    raise FormatError(f"{path}: the id {key!r} occurs a second time; expected unique ids.")
                seen.add(key)

    def _of_split(self, cells: Cells) -> Sequence[int]:
        """Numbers of the rows that belong to this split."""
        column = self.columns.get("split")
        if column is None:
            return range(len(next(iter(cells.values()))))
        return [row for row, cell in enumerate(cells[column]) if self._chosen(cell)]

    def _chosen(self, cell: Any) -> bool:
        """Whether a cell of the split column names this split."""
        return bool(self.settings["values"].get(str(cell), str(cell)) == self.split)

    def _window(self, cells: Cells, rows: Sequence[int], *, where: Path, first: int) -> pa.RecordBatch:
        def column(role: str) -> list[Any] | None:
            name = self.columns.get(role)
            return None if name is None else [cells[name][row] for row in rows]

        def texts(role: str) -> list[str] | None:
            cells_of_role = column(role)
            return None if cells_of_role is None else list(map(cell_text, cells_of_role))

        keys = texts("id") or [f"{self.split}/{number + 1}" for number in range(first, first + len(rows))]
        if "" in keys:
            raise FormatError(
                f"{where}: the id of row {first + keys.index('') + 1} of {self.split} is empty."
            )
        files = self._files(texts("image"), keys, where)
        try:
            return one_pair_batch(
                ids=pa.array(keys, pa.string()),
                texts=pa.array(texts("text") or [""] * len(rows), pa.string()),
                texts_b=string_column(texts("text_b")),
                images=string_column(None if files is None else list(map(image_key, files))),
                files=string_column(files),
                targets=string_column(self._targets(cells, rows, keys, where)),
                weights=self._weights(column("weight"), keys, where),
                groups=string_column(texts("group")),
            )
        except UnicodeEncodeError as error:
            raise FormatError(f"{where}: {error.object!r:.80} has half a surrogate pair.") from error

    def _files(self, names: list[str] | None, keys: list[str], where: Path) -> list[str] | None:
        if names is None:
            return None
        files = [self.settings["images"].replace("{}", name) for name in names]
        for key, file, name in zip(keys, files, names, strict=True):
            if not name or "\0" in file or normpath(file).startswith(("/", "../")) or normpath(file) == "..":
                raise FormatError(
                    f"{where}: the picture of {key!r} is {file!r}; expected a path inside the root."
                )
        return files

    def _targets(
        self, cells: Cells, rows: Sequence[int], keys: list[str], where: Path
    ) -> list[str | None] | None:
        name = self.columns.get("label")
        if name is None:
            return None
        if not isinstance(name, str):
            labels = [[cells[label][row] for label in name] for row in rows]
            return [
                self._several(dict(zip(name, row, strict=True)), key, where)
                for row, key in zip(labels, keys, strict=True)
            ]
        known: dict[Any, str | None] = {}  # labels are few and rows many
        targets = []
        for row, key in zip(rows, keys, strict=True):
            cell = cells[name][row]
            memo = tuple(cell) if isinstance(cell, list) else cell  # a list cannot be a key
            if memo not in known:
                known[memo] = self._target(cell, key, where)
            targets.append(known[memo])
        return targets

    def _target(self, cell: Any, key: str, where: Path) -> str | None:
        """Convert a label cell to JSON; None if it is empty."""
        values, separator = self.settings["values"], self.settings["separator"]
        cell = values.get("", "") if cell is None or cell == "" else cell  # an empty cell may mean a label
        if cell == "":
            return None
        if self.settings["soft"]:
            negative, positive = self.settings["labels"]
            score = cell_score(cell, key, where)
            return json.dumps({negative: 1 - score, positive: score})
        if separator is not None and isinstance(cell, str):
            cell = [part.strip() for part in cell.split(separator) if part.strip()]
        if isinstance(cell, list) and self.settings["first_label"]:
            cell = cell[0] if cell else None
            return None if cell is None else self._target(cell, key, where)
        if isinstance(cell, list):
            return json.dumps({str(values.get(str(name), name)): 1.0 for name in cell}, ensure_ascii=False)
        text = cell_text(cell)  # 1, 1.0 and "1" are one label
        return json.dumps(values.get(text, text), ensure_ascii=False)

    def _several(self, cells: Mapping[str, Any], key: str, where: Path) -> str | None:
        if all(cell is None or cell == "" for cell in cells.values()):
            return None
        values = self.settings["values"]
        return json.dumps(
            {values.get(name, name): cell_score(cell, key, where) for name, cell in cells.items()}
        )

    def _weights(self, cells: list[Any] | None, keys: list[str], where: Path) -> pa.Array | None:
        if cells is None:
            return None
        weights = [cell_number(cell, key, where, "weight") for cell, key in zip(cells, keys, strict=True)]
        if bad := [key for key, value in zip(keys, weights, strict=True) if value < 0]:
            raise FormatError(f"{where}: the weight of {bad[0]!r} is negative.")
        return pa.array(weights, pa.float32())

    @property
    def several(self) -> bool:
        """Whether examples have several labels; soft labels of two classes do not count."""
        return not self.settings["soft"] and any(isinstance(row[0], dict) for row in self.table.targets())

    def _found_labels(self) -> tuple[str, ...]:
        labels: dict[str, None] = {}
        for target, _, _ in self.table.targets():
            labels.update(
                dict.fromkeys(target if isinstance(target, dict) else [] if target is None else [target])
            )
        several = isinstance(self.columns.get("label"), list)  # keep the order of the columns
        return tuple(labels) if several else tuple(sorted(labels))

    @classmethod
    def fabricate(
        cls, folder: Path, *, size: int, seed: int, progress: Progress | None = None, **settings: Any
    ) -> dict[str, int]:
        names = settings.pop("names", ("train", "dev"))
        return write_table_world(
            folder, size=size, seed=seed, names=names, settings=settings, progress=progress
        )

    @property
    def node(self) -> dict[str, Any]:
        """Node with the names of the classes, because a test split may lack some."""
        return {**super().node, "labels": list(self.labels) or None}

    def write(self, predictions: Predictions, path: Path) -> None:
        """Write `id`, the score of each class, and `answer`, in the order of the split."""
        predictions = predictions.unique().align(self.ids)
        count = len(predictions)
        scores = np.zeros((count, 0)) if predictions.scores is None else predictions.scores
        with atomic_file(path, "w", newline="", encoding="utf-8") as file:
            rows = csv.writer(file, lineterminator="\n")
            rows.writerow(("id", *(predictions.classes or ()), "answer"))
            for key, row, answer in zip(
                predictions.ids, scores, predictions.answers or ("",) * count, strict=True
            ):
                rows.writerow((key, *(f"{value:.9g}" for value in row), answer))

    def read_predictions(self, path: Path) -> Predictions:
        if "answer" not in (header := column_names(path)) and "proba" in header:  # a blend of two classes
            return read_scores(path, classes=self.labels)
        names = [name for name in header if name not in ("id", "answer")]
        keys: list[str] = []
        answers: list[str] = []
        scores: list[list[float]] = []
        for cells in read_cells(path, ["id", *names, "answer"]):
            keys += map(cell_text, cells["id"])
            answers += map(cell_text, cells["answer"])
            scores += [
                [cell_number(cell, key, path, "score") for cell in row]
                for key, *row in zip(cells["id"], *(cells[name] for name in names), strict=True)
            ]
        return Predictions(
            ids=tuple(keys),
            scores=np.array(scores).reshape(len(keys), len(names)) if names else None,
            answers=tuple(answers),
            classes=tuple(names) or None,
        ).align(self.ids)


def image_key(file: str) -> str:
    """Key of a picture in a feature store: its file name without suffix."""
    return Path(file).stem
