"""VCR as a data set (Zellers et al., 2019, https://arxiv.org/abs/1811.10830).

Official files: `{train,val,test}.jsonl`, and for each picture `vcr1images/FILM/NAME.jpg` with its objects in
`vcr1images/FILM/NAME.json`.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from diptych.datasets.base import Split, require_split
from diptych.datasets.vcr.boxes import ObjectBoxes
from diptych.datasets.vcr.records import (
    ANSWERS,
    CHOICES,
    FORMS,
    RATIONALES,
    STRAY,
    looks_like_vcr,
    read_probabilities,
    read_questions,
    require_questions,
    write_probabilities,
)
from diptych.errors import ConfigError, FormatError
from diptych.predictions import Predictions
from diptych.types import Example, Progress, RegionSource

SPLITS = ("train", "val", "test")
FOLDERS = ("", "vcr", "data/vcr", "vcr1annots")
PICTURES = ("vcr1images", "vcr/vcr1images", "data/vcr/vcr1images", "images")


class Vcr(Split):
    """The choices of one split, in file order; each is one of four pairs of a picture and two texts.

    Args:
        root: folder of the official files, or VL-BERT's tree.
        split: `train`, `val` or `test`; labels of the last are withheld.
        form: `q2a` chooses the answer of a question; `qa2r` the rationale of a question and its right answer,
            or each of the four answers where labels are withheld; `q2ar` is both, one after the other.
        folds: names of match folds, such as `train-0`: questions whose wrong choices come from each other.
            None reads all.
        stray: `error` refuses texts that name objects which are not there, `drop` leaves such names out.
        cells: rows and columns of the silhouettes, those of the pooled features of an end-to-end model. 0
            leaves them out.
        limit: use only the first choices, up to this number.

    Raises:
        FormatError: names file and line of the first invalid record.
        ConfigError: a setting has another value, or there is no such split.
    """

    name = "vcr"
    noun = "choice"
    suffix = ".csv"
    measure = "accuracy"

    def __init__(
        self,
        root: Path | str,
        split: str,
        *,
        form: str = "q2a",
        folds: Sequence[str] | None = None,
        stray: str = "error",
        cells: int = 14,
        limit: int | None = None,
    ) -> None:
        # The cells are squared for every object, so a slip of a zero would fill the memory.
        if form not in FORMS or stray not in STRAY or not 0 <= cells <= 64:
            raise ConfigError(
                f"data.form is {form!r} (expected one of {FORMS}), data.stray {stray!r} (one of {STRAY}), "
                f"data.cells {cells} (0 to 64)."
            )
        self.settings = {
            "form": form,
            "folds": None if folds is None else [*folds],
            "stray": stray,
            "cells": cells,
        }
        super().__init__(root, split, limit=limit)

    @classmethod
    def splits(cls, root: Path, **settings: Any) -> tuple[str, ...]:
        # By content: `train.jsonl` is a name that Hateful Memes has, too.
        return tuple(name for name in SPLITS if looks_like_vcr(_place(root, name)))

    @classmethod
    def find_files(cls, root: Path, split: str, **settings: Any) -> tuple[Path, ...]:
        path = _place(root, split)
        if split not in SPLITS or not path.is_file():
            require_split(split, root, cls.splits(root))
        return (path,)

    def read(self) -> Iterable[Example]:
        return read_questions(
            self.files[0],
            form=self.settings["form"],
            pictures=next((f"{name}/" for name in PICTURES if (self.root / name).is_dir()), ""),
            folds=self.settings["folds"] or (),
            stray=self.settings["stray"],
        )

    @property
    def regions(self) -> RegionSource:
        # The objects lie beside the pictures, in the same trees.
        folders = tuple(path for name in PICTURES if (path := self.root / name).is_dir())
        return ObjectBoxes(folders or (self.root,), cells=self.settings["cells"])

    @cached_property
    def _asked(self) -> dict[str, list[str]]:
        """The first column of each choice of a question, by question in the order of the file."""
        asked: dict[str, list[str]] = {}
        for name in self.ids:
            key, column = _column(name)
            # Of `q2ar` a question has several choices: of its answer, and of rationales.
            asked.setdefault(key, []).append(column)
        return asked

    def write(self, predictions: Predictions, path: Path) -> None:
        """Write probabilities of the choices of each question: `q2ar` has the columns of the leaderboard.

        Where labels are known, rationales were chosen for the right answer alone; the others stay empty.

        Raises:
            FormatError: a choice has no probabilities.
        """
        predictions = predictions.unique().align(self.ids)
        if predictions.scores is None or predictions.scores.shape[1] != CHOICES:
            raise FormatError(f"{path}: the predictions lack scores of {CHOICES} choices.")
        rows: dict[str, dict[str, ndarray]] = {}
        for name, four in zip(self.ids, predictions.scores, strict=True):
            key, column = _column(name)
            rows.setdefault(key, {})[column] = four
        groups = {"q2a": (ANSWERS,), "qa2r": RATIONALES, "q2ar": (ANSWERS, *RATIONALES)}
        write_probabilities(path, groups[self.settings["form"]], rows)

    def read_predictions(self, path: Path) -> Predictions:
        """Read a file of the leaderboard; columns of choices that the split does not have are passed over."""
        rows = read_probabilities(path)
        require_questions(path, rows, self._asked)
        for key, columns in self._asked.items():
            if missing := [column for column in columns if column not in rows[key]]:
                raise FormatError(f"{path}: question {key} lacks {missing[0]} and the next three columns.")
        scores = np.stack([rows[key][column] for key, column in map(_column, self.ids)])
        answers = tuple(map(str, scores.argmax(1).tolist()))
        classes = tuple(map(str, range(CHOICES)))
        return Predictions(ids=self.ids, scores=scores, answers=answers, classes=classes, form="choices")

    def breakdown(self, predictions: Predictions) -> Mapping[str, Mapping[str, Float[ndarray, " U"]]]:
        """Of answers and rationales together: Q->A, QA->R, and Q->AR, the questions with both right."""
        if self.settings["form"] != "q2ar":
            return {}
        targets = dict(self.table.target_column())
        right: dict[str, list[bool]] = {}
        for name, answer in zip(predictions.ids, predictions.answers or (), strict=True):
            right.setdefault(_column(name)[0], []).append(answer == str(targets[name]))
        both = np.array([one for one in right.values() if len(one) > 1], float).reshape(-1, 2)
        if not len(both):  # a part of a split may have no question with both
            return {}
        return {"": {"q_to_a": both[:, 0], "qa_to_r": both[:, 1], "q_to_ar": both.prod(1)}}

    @classmethod
    def join(cls, settings: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Two runs that choose answers and rationales make the file of the leaderboard together."""
        forms = [one.get("form", "q2a") for one in settings]
        others = [{**one, "form": "q2ar", "cells": 14} for one in settings]
        if sorted(forms) != ["q2a", "qa2r"] or others[0] != others[1]:
            raise ConfigError(
                f"the runs have data.form {', '.join(map(str, forms))}; the file of the leaderboard needs "
                "a run with q2a and one with qa2r, otherwise with the same settings of the data."
            )
        return others[0]

    @classmethod
    def fabricate(
        cls, folder: Path, *, size: int, seed: int, progress: Progress | None = None, **settings: Any
    ) -> dict[str, int]:
        from diptych.datasets.vcr.world import write_world

        counts = write_world(folder, size=size, seed=seed, progress=progress)
        given = {name: value for name, value in settings.items() if name != "names"}
        return {split: len(cls(folder, split, **given)) for split in counts}


def _place(root: Path, split: str) -> Path:
    places = [root / folder / f"{split}.jsonl" for folder in FOLDERS]
    return next((path for path in places if looks_like_vcr(path)), places[0])


def _column(name: str) -> tuple[str, str]:
    """The question of a choice, and its first column."""
    key, marked, answer = name.rpartition("#a")
    return (key, RATIONALES[int(answer)][0]) if marked else (name, ANSWERS[0])
