"""Official files of VQA v2: questions, and ten answers to each in a file of their own, joined by id."""

import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from diptych.datasets.base import DuplicateId
from diptych.datasets.coco import coco_key
from diptych.datasets.json_records import Record, read_members
from diptych.errors import FormatError, first_five
from diptych.metrics.vqa import soft_scores
from diptych.types import Example, Pair

HEAD = ("data_subtype", "info")


class _Answers(NamedTuple):
    image: int | None
    question_type: str | None
    answer_type: str | None
    given: tuple[str, ...]


def read_official(
    questions: Path, annotations: Path | None, images: str, *, image_key: str = "stem"
) -> Iterator[Example]:
    """Yield the questions of a split in the order of their file.

    Args:
        annotations: None for splits whose answers are withheld.
        images: subset of COCO, `train2014`, which is part of the image keys.
        image_key: kind of the image keys, see `photographs.image_key`.

    Raises:
        FormatError: a record is damaged, or the two files are not of the same questions.
    """
    head: dict[str, Any] = {}
    # Annotations are held in memory and questions streamed: joined by id, since no order is promised.
    gold = None if annotations is None else dict(_read_annotations(annotations, head))
    other: dict[str, Any] = {}
    missing: list[int] = []
    for key, record in _records(questions, "questions", other):
        # `pop`, so that what is left in the end are annotations without a question.
        answers = None if gold is None else gold.pop(key, None)
        if gold is not None and answers is None:
            missing.append(key)
            continue
        yield _example(record, key, answers, partial(coco_key, subset=images, kind=image_key))
    # After the last question: the subset may stand behind the records in the file.
    if annotations is not None and gold is not None:
        _require_same(head, other, annotations, questions)
        if missing:
            raise FormatError(
                f"{annotations}: no annotation of {len(missing)} question(s) of {questions.name}, or a "
                f"second question with its id: {first_five(missing)}."
            )
        if gold:
            raise FormatError(
                f"{annotations}: {len(gold)} annotation(s) belong to no question of {questions.name}: "
                f"{first_five(gold)}."
            )
    _require_subset(other, questions, images)


def _records(path: Path, name: str, head: dict[str, Any]) -> Iterator[tuple[int, Record]]:
    """Yield the records of an official file by question id; its other members go to `head`."""
    for member, value in read_members(path, lists=(name,)):
        if member != name:
            head[member] = value
            continue
        record = Record(value, f"{path}: a record of `{name}`")
        key = record.number("question_id")
        record.where = f"{path}: question {key}"
        yield key, record


def _read_annotations(path: Path, head: dict[str, Any]) -> Iterator[tuple[int, _Answers]]:
    seen: set[int] = set()
    texts: dict[str, str] = {}
    for key, record in _records(path, "annotations", head):
        if key in seen:
            raise DuplicateId(f"{record.where} has two annotations; expected one.")
        seen.add(key)
        given = tuple(_answer(one, texts, record.where) for one in record.items("answers"))
        if not given:
            raise FormatError(f"{record.where} has no answers; expected those of ten people.")
        types = (record.optional_text(field) for field in ("question_type", "answer_type"))
        # Of 65 different strings, one object each instead of one per question.
        question_type, answer_type = (None if kind is None else sys.intern(kind) for kind in types)
        image = record.number("image_id") if "image_id" in record.value else None
        yield key, _Answers(image, question_type, answer_type, given)


def _answer(value: Any, texts: dict[str, str], where: str) -> str:
    """The text of an answer, one object for all equal ones: there are ten of them to every question."""
    text = value.get("answer") if type(value) is dict else None
    # Most answers have been seen before, and only new ones are checked.
    known = texts.get(text) if type(text) is str else None
    if known is None:
        known = Record(value, f"{where}, answers").text("answer")
        texts[known] = known
    return known


def _example(record: Record, key: int, answers: _Answers | None, name: Callable[[int], str]) -> Example:
    image = record.number("image_id")
    meta: dict[str, Any] = {}
    target = None
    if answers is not None:
        # Ids alone would join files of different releases without a word.
        if answers.image not in (None, image):
            raise FormatError(
                f"{record.where} is about image {image}, but its annotation about {answers.image}."
            )
        target = soft_scores(answers.given)
        meta = {"answers": answers.given}
        meta |= {name: kind for name in ("question_type", "answer_type") if (kind := getattr(answers, name))}
    pair = Pair(image=name(image), text=record.text("question"))
    return Example(id=str(key), pairs=(pair,), target=target, meta=meta)


def _require_same(head: Mapping[str, Any], other: Mapping[str, Any], path: Path, questions: Path) -> None:
    """Refuse annotations of another subset or release than the questions."""
    for mine, theirs, name in (
        *((head.get(name), other.get(name), name) for name in ("data_subtype", "data_type")),
        *((_info(head, name), _info(other, name), f"info.{name}") for name in ("version", "year")),
    ):
        if mine is not None and theirs is not None and mine != theirs:
            raise FormatError(
                f"{path}: `{name}` is {mine!r}, but {theirs!r} in {questions.name}; expected files "
                "of one release."
            )


def _info(head: Mapping[str, Any], name: str) -> Any:
    info = head.get("info")
    return info.get(name) if isinstance(info, Mapping) else None


def _require_subset(head: Mapping[str, Any], path: Path, images: str) -> None:
    """Refuse a file of other images than its name says; test-dev2015 and minival2014 are parts of others."""
    subset = head.get("data_subtype")
    if isinstance(subset, str) and not (
        # Example: `minival2014` has the year and the `val` of `val2014`; `train2014` has not.
        subset == images or (subset[-4:] == images[-4:] and images[:3] in subset)
    ):
        raise FormatError(
            f"{path}: `data_subtype` is {subset!r}; expected {images!r}, as the name of the file says."
        )
