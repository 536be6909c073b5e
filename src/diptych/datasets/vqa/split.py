"""VQA v2 as a data set (Goyal et al., 2017, https://arxiv.org/abs/1612.00837).

Official files:

    v2_OpenEnded_mscoco_{train2014,val2014,test2015,test-dev2015}_questions.json
    v2_mscoco_{train2014,val2014}_annotations.json

or LXMERT's `train.json`, `nominival.json`, `minival.json`, `test.json`. If a root has both for a split, the
official files count. `minival` and `nominival`, two parts of val, exist in LXMERT's files, or in VL-BERT's
under the official pattern (`minival2014`, `valminusminival2014`).
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from diptych.datasets.answer_table import read_answers
from diptych.datasets.coco import coco_key, coco_number
from diptych.datasets.json_records import Record
from diptych.datasets.photographs import require_kind
from diptych.datasets.questions import QuestionSplit, lxmert_file, read_lxmert
from diptych.datasets.vqa.records import read_official
from diptych.files import require_file
from diptych.metrics.vqa import comparable, vqa_score
from diptych.predictions import Predictions
from diptych.types import Example, Progress

# Name of the subset in official files, and of the images.
SUBSETS = {
    "train": ("train2014", "train2014"),
    "val": ("val2014", "val2014"),
    "nominival": ("valminusminival2014", "val2014"),
    "minival": ("minival2014", "val2014"),
    "test-dev": ("test-dev2015", "test2015"),
    "test": ("test2015", "test2015"),
}
WITHHELD = ("test-dev", "test")


class Vqa(QuestionSplit):
    """The questions of one split, in file order.

    Of official files, the scores of a target are the official accuracies of the answers that people gave, and
    `Example.meta` has these answers and the types of question and answer.

    Args:
        image_key: keys of official files in feature stores: `stem` (`COCO_val2014_000000458752`, LXMERT),
            `number` (`458752`, VL-BERT and Volta) or `padded12`; see `photographs.image_key`. LXMERT's files
            have keys of their own.
        limit: use only the first questions, up to this number.
    """

    name = "vqa"
    names = tuple(SUBSETS)
    folders = ("", "vqa", "data/vqa", "coco/vqa", "data/coco/vqa", "annotations", "questions")
    picture_folders = tuple(
        f"{place}{name}"
        for name in ("", "train2014", "val2014", "test2015")
        for place in ("images/", "", "coco/", "data/coco/", "vqa/images/")
        if place or name
    )
    fields = ("question_id", "answer")
    overlaps = frozenset(
        frozenset(pair) for pair in (("val", "minival"), ("val", "nominival"), ("test", "test-dev"))
    )

    def __init__(
        self, root: Path | str, split: str, *, image_key: str = "stem", limit: int | None = None
    ) -> None:
        self.settings = {"image_key": require_kind(image_key)}
        super().__init__(root, split, limit=limit)

    @classmethod
    def files_of(cls, root: Path, split: str) -> tuple[Path, ...]:
        official = _official(root, split)
        if official:
            return official
        path = lxmert_file(root, [split], cls.folders, int)
        return () if path is None else (path,)

    @classmethod
    def find_files(cls, root: Path, split: str, **settings: Any) -> tuple[Path, ...]:
        return tuple(
            require_file(path, "questions or annotations") for path in super().find_files(root, split)
        )

    def read_split(self, split: str) -> Iterator[Example]:
        # Official files first: they have the ten answers, from which the official score is computed.
        official = _official(self.root, split)
        if official:
            yield from read_official(
                official[0],
                None if split in WITHHELD else official[1],
                SUBSETS[split][1],
                image_key=self.settings["image_key"],
            )
            return
        table = self.answer_table
        # Labels of LXMERT's files are answers of its table; another answer shows a table of another release.
        known = None if table is None else frozenset(read_answers(table))
        for record, example in read_lxmert(self.files_of(self.root, split)[0], known):
            types = {name: record.optional_text(name) for name in ("question_type", "answer_type")}
            meta = {name: kind for name, kind in types.items() if kind is not None}
            yield Example(id=example.id, pairs=example.pairs, target=example.target, meta=meta)

    def image_path(self, key: str) -> Path:
        if self.settings["image_key"] == "stem":
            return super().image_path(key)
        # A number does not say of which subset the picture is, so all subsets of the split are tried.
        subsets = [SUBSETS[self.canonical(part)][1] for part in self.split.split("+")]
        places = [super(Vqa, self).image_path(coco_key(coco_number(key), one, "stem")) for one in subsets]
        return next((path for path in places if path.is_file()), places[0])

    def as_compared(self, predictions: Predictions) -> tuple[str, ...]:
        given = {example.id: example.meta.get("answers") for example in self}
        rows = zip(predictions.ids, predictions.answers or (), strict=True)
        return tuple(
            # How an answer is normalized depends on what people said, so it needs their answers.
            answer if (people := given.get(key)) is None else comparable(answer, people)
            for key, answer in rows
        )

    def breakdown(self, predictions: Predictions) -> Mapping[str, Mapping[str, Float[ndarray, " U"]]]:
        """Official accuracy per answer type and per question type."""
        answers = dict(zip(predictions.ids, predictions.answers or (), strict=True))
        tables: dict[str, dict[str, list[float]]] = {
            "accuracy per answer type": {},
            "accuracy per question type": {},
        }
        for example in self:
            if example.id in answers:
                score = _score(example, answers[example.id])
                for title, rows in tables.items():
                    kind = example.meta.get(title.removeprefix("accuracy per ").replace(" ", "_"))
                    if kind is not None:
                        rows.setdefault(kind, []).append(score)
        return {
            title: {kind: np.array(scores) for kind, scores in sorted(rows.items())}
            for title, rows in tables.items()
        }

    def to_official(self, name: str) -> int:
        return int(name)

    def from_official(self, record: Record) -> str:
        return str(record.number("question_id"))

    @classmethod
    def fabricate(
        cls, folder: Path, *, size: int, seed: int, progress: Progress | None = None, **settings: Any
    ) -> dict[str, int]:
        from diptych.datasets.vqa.world import write_world

        return write_world(folder, size=size, seed=seed, progress=progress)


def _official(root: Path, split: str) -> tuple[Path, ...]:
    """Questions and, if there are some, annotations."""
    subset = SUBSETS[split][0]
    names = [f"v2_OpenEnded_mscoco_{subset}_questions.json"]
    # Answers of the tests were never published.
    names += [] if split in WITHHELD else [f"v2_mscoco_{subset}_annotations.json"]
    places = [[root / folder / name for folder in Vqa.folders] for name in names]
    found = [next((path for path in paths if path.is_file()), paths[0]) for paths in places]
    # Without questions there is no split; without annotations, reading says which file is missing.
    return tuple(found) if found[0].is_file() else ()


def _score(example: Example, answer: str) -> float:
    given = example.meta.get("answers")
    if given is not None:
        return vqa_score(answer, given)
    # LXMERT's files lack the ten answers; their labels are the scores already.
    return float((example.target or {}).get(answer, 0.0))
