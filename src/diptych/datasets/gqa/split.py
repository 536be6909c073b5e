"""GQA as a data set (Hudson and Manning, 2019, https://arxiv.org/abs/1902.09506).

Official files are JSON objects from question ids to records:

    {train,val,testdev,test,challenge}_{balanced,all}_questions.json
    train_all_questions/train_all_questions_{0..9}.json
    submission_all_questions.json

A split without suffix is the balanced tier, `train_all` the other. LXMERT's files are `train.json`,
`valid.json`, `testdev.json`, `submit.json`.
"""

from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from jaxtyping import Float
from numpy import ndarray

from diptych.datasets.json_records import Record, first_member, read_members
from diptych.datasets.locate import locate
from diptych.datasets.questions import QuestionSplit, lxmert_file, read_lxmert
from diptych.documents import shorten
from diptych.errors import FormatError
from diptych.metrics.gqa import UNCOUNTED, Question, measure_gqa
from diptych.predictions import Predictions
from diptych.types import Example, Pair, Progress

TIERS = ("train", "val", "testdev", "test", "challenge")
SUBMISSION = "submission"  # everything the server needs; there is no balanced tier of it
LXMERT = {"val": "valid", SUBMISSION: "submit"}  # names of splits in LXMERT's files
OFFICIAL_FIELDS = ("question", "imageId")


class Gqa(QuestionSplit):
    """The questions of one split, in file order.

    Ids are strings of digits whose leading zeros count. A target is `{answer: 1.0}`. `Example.meta` has what
    the official measures need; of `train_all` it is left out, because 14 million records of it would fill
    the cache.
    """

    name = "gqa"
    names = (*TIERS, SUBMISSION, *(f"{tier}_all" for tier in TIERS))
    folders = ("", "gqa", "data/gqa", "questions", "gqa/questions", "questions1.2")
    picture_folders = ("images", "gqa/images", "data/gqa/images", "allImages/images")
    fields = ("questionId", "prediction")
    overlaps = frozenset(
        frozenset(pair)
        for pair in (
            *((tier, f"{tier}_all") for tier in TIERS),
            # The file for the server holds the questions of all tiers but training.
            *((SUBMISSION, f"{tier}{tail}") for tier in TIERS[1:] for tail in ("", "_all")),
        )
    )

    @classmethod
    def canonical(cls, split: str) -> str:
        tier, _, rest = split.partition("_")
        tier = {alias: name for name, alias in LXMERT.items()}.get(tier, tier)
        return tier if tier == SUBMISSION or not rest else f"{tier}_{rest}"

    @classmethod
    def files_of(cls, root: Path, split: str) -> tuple[Path, ...]:
        tier, _, rest = split.partition("_")
        stem = f"{tier}_{'all' if rest or tier == SUBMISSION else 'balanced'}_questions"
        path = locate(root, [f"{stem}.json"], folders=cls.folders, fits=_is_official)
        if path is not None:
            return (path,)
        chunks = (root / folder / stem for folder in cls.folders)
        folder = next((place for place in chunks if place.is_dir()), None)
        if folder is not None:
            # By length first, so that chunk 10 would come behind chunk 9.
            return tuple(sorted(folder.glob("*.json"), key=lambda file: (len(file.name), file.name)))
        tail = f"_{rest}" if rest else ""
        path = lxmert_file(root, [f"{tier}{tail}", f"{LXMERT.get(tier, tier)}{tail}"], cls.folders, str)
        return () if path is None else (path,)

    def read_split(self, split: str) -> Iterator[Example]:
        for path in self.files_of(self.root, split):
            # A number as first key is the position in a list: LXMERT's form.
            if not _is_official(path) and isinstance(first_member(path)[0], int):
                yield from (example for _, example in read_lxmert(path))
            else:
                yield from _read_official(path, details=split != "train_all")

    def breakdown(self, predictions: Predictions) -> Mapping[str, Mapping[str, Float[ndarray, " U"]]]:
        """The official measures; see `diptych.metrics.gqa`."""
        answers = dict(zip(predictions.ids, predictions.answers or (), strict=True))
        questions = {
            # A target has one answer.
            example.id: Question(answer=next(iter(example.target)), **example.meta)
            for example in self
            if example.id in answers and example.target
        }
        return measure_gqa(answers, questions, self._choices)

    @cached_property
    def _choices(self) -> Mapping[str, Any] | None:
        """Valid and plausible answers, from the choices file of the tier if there is one."""
        tier = self.canonical(self.split).partition("_")[0]
        folders = [
            place for folder in self.folders for place in (folder, f"{folder}/eval", f"{folder}/choices")
        ]
        path = locate(self.root, [f"{tier}_choices.json"], folders=folders, fits=Path.is_file)
        if path is None:
            return None
        known, choices = set(self.ids), dict[str, Any]()
        for key, value in read_members(path):
            # The choices file has the tier `all`, of which only the questions of this split are kept.
            if key in known:
                record = Record(value, f"{path}: question {key}")
                choices[key] = {name: record.items(name) for name in ("valid", "plausible")}
        return choices

    @classmethod
    def fabricate(
        cls, folder: Path, *, size: int, seed: int, progress: Progress | None = None, **settings: Any
    ) -> dict[str, int]:
        from diptych.datasets.gqa.world import write_world

        return write_world(folder, size=size, seed=seed, progress=progress)


def _is_official(path: Path) -> bool:
    key, record = first_member(path)
    return (
        isinstance(key, str)
        and isinstance(record, Mapping)
        and all(name in record for name in OFFICIAL_FIELDS)
    )


def _read_official(path: Path, *, details: bool) -> Iterator[Example]:
    for key, value in read_members(path):
        if not isinstance(key, str):
            raise FormatError(
                f"{path}: record {key} has no id; expected an object from question ids to records."
            )
        record = Record(value, f"{path}: question {shorten(key)[1:-1]}")
        answer = record.optional_text("answer")
        pair = Pair(image=record.text("imageId"), text=record.text("question"))
        yield Example(
            id=record.clean(key, "id"),
            pairs=(pair,),
            target=None if answer is None else {answer: 1.0},
            meta=_details(record) if details and answer is not None else {},
        )


def _details(record: Record) -> dict[str, Any]:
    """Arguments of `Question`, without those that have their default."""
    found: dict[str, Any] = {"words": len(record.text("question").split())}
    if record.value.get("types") is not None:
        types = Record(record.mapping("types"), record.where)
        found |= {name: types.text(name) for name in ("structural", "semantic")}
        # The official script takes color, material and shape as one group for these questions.
        if "Common" in (types.optional_text("detailed") or ""):
            found["common"] = True
    if record.value.get("groups") is not None:
        group = Record(record.mapping("groups"), record.where).optional_text("global")
        found |= {} if group is None else {"group": group}  # "" is a group, too: the script tests for null
    if record.value.get("entailed"):
        found["entailed"] = [_text(other, record) for other in record.items("entailed")]
    if record.value.get("semantic"):
        found["steps"] = sum(_is_step(operation, record) for operation in record.items("semantic"))
    if record.value.get("isBalanced") is False:
        found["balanced"] = False
    return found


def _text(value: Any, record: Record) -> str:
    if not isinstance(value, str):
        raise FormatError(f"{record.where}: `entailed` has {shorten(value)}; expected ids of questions.")
    return record.clean(value, "entailed")


def _is_step(value: Any, record: Record) -> bool:
    operation = Record(value, f"{record.where}, semantic")
    words = f"{operation.text('operation')}: {operation.text('argument')}"
    # The official script does not count these as steps of reasoning.
    return not any(name in words for name in UNCOUNTED)
