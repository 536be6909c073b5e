"""A miniature world in the format of VQA v2, with the oddities of its real records."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.random import Generator

from diptych.datasets.answer_table import learn_answers, write_answers
from diptych.datasets.question_world import AskedScene, QuestionWorld
from diptych.metrics.vqa import NUMBERS, soft_scores
from diptych.types import Progress
from diptych.world import Question

HEAD = {
    "info": {"description": "a miniature world", "version": "2.0", "year": 2017, "contributor": "diptych"},
    "data_type": "mscoco",
    "license": {"name": "none", "url": ""},
}
IMAGES = {"train": "train2014", "val": "val2014", "test": "test2015"}
TYPES = {
    "color": "what color is the",
    "kind": "what is the",
    "count": "how many",
    "pattern": "is the",
    "place": "what is",
    "presence": "is there a",
}
WRONG = (
    "nothing",
    "a shadow",
    "1,000",
    "two or three",
    "can not tell",
    "it's gone",
    "dont know",
    "none",
    "sky",
)
MODES = 8  # ways in which ten people answer, each of which the first questions of a file have


def write_world(folder: Path, *, size: int, seed: int, progress: Progress | None) -> dict[str, int]:
    """Write questions, annotations, LXMERT's two parts of val, an answer table, pictures and regions.

    Args:
        size: number of questions.

    Returns:
        Number of questions of each split.
    """
    world = QuestionWorld(size, seed)
    names: dict[int, str] = {}
    records = {part: [*_records(scenes, seed)] for part, scenes in world.parts.items()}
    for part, scenes in world.parts.items():
        names |= {asked.number: f"COCO_{IMAGES[part]}_{_image(asked):012d}" for asked in scenes}
        subset, kept = IMAGES[part], records[part]
        _write(folder / f"v2_OpenEnded_mscoco_{subset}_questions.json", "questions", kept, subset)
        if part != "test":
            _write(folder / f"v2_mscoco_{subset}_annotations.json", "annotations", kept, subset)
    # test-dev is a part of test, whose questions it repeats.
    half = records["test"][: len(records["test"]) // 2]
    _write(folder / "v2_OpenEnded_mscoco_test-dev2015_questions.json", "questions", half, "test-dev2015")
    targets = [soft_scores([one["answer"] for one in record["answers"]]) for record in records["train"]]
    table = learn_answers(((target, 1) for target in targets), 1)
    write_answers(folder / "trainval_label2ans.json", table)
    # LXMERT's two parts of val do not overlap.
    middle = len(records["val"]) // 2
    parts = {"minival": records["val"][:middle], "nominival": records["val"][middle:]}
    for name, kept in parts.items():
        (folder / f"{name}.json").write_text(json.dumps([*_lxmert(kept, table)], indent=1) + "\n", "utf-8")
    world.write(folder, lambda asked: names[asked.number], progress)
    counts = {
        "train": records["train"],
        "val": records["val"],
        **parts,
        "test-dev": half,
        "test": records["test"],
    }
    return {split: len(kept) for split, kept in counts.items()}


def _image(asked: AskedScene) -> int:
    # Numbers with gaps, as COCO's have.
    return 7 * asked.number + 2


def _records(scenes: Sequence[AskedScene], seed: int) -> Iterator[dict[str, Any]]:
    """All fields of questions and annotations."""
    for place, asked in enumerate(scenes):
        generator = np.random.default_rng([seed, 5, asked.number])
        for number, question in enumerate(asked.questions):
            mode = len(asked.questions) * place + number
            given = _people(generator, question, mode if mode < MODES else None)
            answers = [
                {"answer": answer, "answer_confidence": "yes", "answer_id": one}
                for one, answer in enumerate(given, 1)
            ]
            yield {
                "image_id": _image(asked),
                "question": question.text,
                # The rule of all official ids.
                "question_id": 1000 * _image(asked) + number,
                "question_type": TYPES[question.topic],
                "answer_type": _answer_type(question.answer),
                "multiple_choice_answer": max(given, key=given.count),
                "answers": answers,
            }


def _answer_type(answer: str) -> str:
    return "number" if answer.isdecimal() else "yes/no" if answer in ("yes", "no") else "other"


def _people(generator: Generator, question: Question, mode: int | None) -> list[str]:
    """Answers of ten people; without a mode, at least seven of them are right."""
    true = question.answer
    # Wrong answers with commas, articles and contractions, which the official normalization changes.
    wrong = [WRONG[place] for place in generator.permutation(len(WRONG))]
    spoken = NUMBERS[int(true)] if true.isdecimal() and int(true) <= 10 else f"the {true}"
    # Each mode is one case of the official score; the first questions of a file have all of them.
    match mode:
        case 0:
            return [true] * 10
        case 1 | 2 | 3:  # so many are right, and no wrong answer is more frequent
            others = [answer for answer in wrong for _ in range(mode)]
            given = [true] * mode + others[: 10 - mode]
        case 4:
            given = [true] * 6 + [true.capitalize()] * 2 + wrong[:2]
        case 5:
            given = [true] * 4 + [spoken] * 4 + wrong[:2]
        case 6:
            given = [true] * 5 + ["1,000"] * 3 + [f"{true}."] * 2
        case 7:
            # All ten agree, so the official score compares the raw strings: "two" is not "2" here.
            given = [spoken] * 10
        case _:
            right = int(generator.integers(7, 11))
            given = [true] * right + wrong[: 10 - right]
    return [given[place] for place in generator.permutation(10)]


QUESTION_FIELDS = ("image_id", "question", "question_id")
ANNOTATION_FIELDS = (
    "question_type", "multiple_choice_answer", "answers", "image_id", "answer_type", "question_id",
)  # fmt: skip


def _write(path: Path, what: str, records: Sequence[dict[str, Any]], subset: str) -> None:
    fields = QUESTION_FIELDS if what == "questions" else ANNOTATION_FIELDS
    kept = [{name: record[name] for name in fields} for record in records]
    if what == "annotations":
        kept.reverse()  # only the id joins the two files
    head = HEAD | ({"task_type": "Open-Ended"} if what == "questions" else {}) | {"data_subtype": subset}
    path.write_text(json.dumps(head | {what: kept}) + "\n", encoding="utf-8")


def _lxmert(records: Sequence[dict[str, Any]], table: Sequence[str]) -> Iterator[dict[str, Any]]:
    for record in records:
        scores = soft_scores([one["answer"] for one in record["answers"]])
        yield {
            "answer_type": record["answer_type"],
            "img_id": f"COCO_val2014_{record['image_id']:012d}",
            "label": {
                answer: int(score) if score == 1 else score
                for answer, score in scores.items()
                if answer in table
            },
            "question_id": record["question_id"],
            "question_type": record["question_type"],
            "sent": record["question"],
        }
