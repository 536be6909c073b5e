"""LXMERT's pre-training files: a JSON list of images, each with its sentences and their answers.

    {"img_id": "COCO_val2014_000000000042",
     "sentf": {"mscoco": ["a dog on a mat", ...], "vqa": ["what is on the mat?", ...]},
     "labelf": {"vqa": [{"dog": 1, "puppy": 0.3}, ...]}}

`labelf[category][i]` belongs to `sentf[category][i]`. Captions have no labels, and a label may be empty.
`all_ans.json` lists the answers of pre-training: `{"ans": "dog", "dsets": ["vqa", "visual7w"]}`.
"""

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, fields
from itertools import count, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diptych.datasets.base import DuplicateId
from diptych.datasets.examples import string_batch
from diptych.datasets.json_records import read_list
from diptych.datasets.rows import WINDOW
from diptych.documents import shorten
from diptych.errors import FormatError
from diptych.text import normalize_answer

if TYPE_CHECKING:
    from pyarrow import RecordBatch

NUMBERS = tuple(f"{place:03d}" for place in range(1000))
MOST = 1 << 16  # labels that are remembered
ENCODE = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


@dataclass(slots=True)
class _Columns:
    """Sentences that wait to become a window of the table."""

    ids: list[str] = field(default_factory=list)
    images: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)
    targets: list[str | None] = field(default_factory=list)

    def batch(self, path: Path) -> "RecordBatch":
        try:
            return string_batch(**{one.name: getattr(self, one.name) for one in fields(self)})
        except FormatError as error:
            raise FormatError(f"{path}: {error}") from error


def read_windows(path: Path, table: Collection[str] | None) -> "Iterator[RecordBatch]":
    """The sentences of a file as windows of the example table, with one record of the file in memory.

    A sentence gets the id `IMAGE_CATEGORY_NUMBER`, the category as group, and its answers as target: each
    normalized and, of those in `table`, `{answer: score}`. Of answers that become equal the last one counts.

    Args:
        table: the answers of pre-training; None keeps all.

    Raises:
        FormatError: names the file, and the image or the number of the record.
        DuplicateId: two records have the same image.
    """
    columns, seen = _Columns(), set[str]()
    names = _Names(table)
    for number, record in enumerate(read_list(path), 1):
        image, sentences, labels = _checked(record, f"{path}: record {number}")
        where = f"{path}: image {image!r}"
        # Ids are made of the image, so a second record would repeat them.
        if image in seen:
            raise DuplicateId(f"{where} has two records; expected one for all of its sentences.")
        seen.add(image)
        for category, texts in sentences.items():
            answers = _answers(labels.get(category), texts, f"{where}, {category}")
            # The uid of the original, so that its predictions can be compared with ours.
            start = f"{image}_{category}_"
            columns.ids += [start + place for place in islice(_places(), len(texts))]
            columns.images += [image] * len(texts)
            columns.groups += [category] * len(texts)
            columns.texts += texts
            columns.targets += (
                [None] * len(texts) if answers is None else [names.target(one, where) for one in answers]
            )
        # At the end of an image, so a window may be a little larger.
        if len(columns.ids) >= WINDOW:
            yield columns.batch(path)
            columns = _Columns()
    if columns.ids:
        yield columns.batch(path)


class _Names:
    """From the answers of one sentence to its target; remembers every spelling that it has seen."""

    def __init__(self, table: Collection[str] | None) -> None:
        self.table = None if table is None else frozenset(table)
        self.known: dict[str, str | None] = {}
        self.targets: dict[str, str | None] = {}

    def target(self, label: Mapping[str, Any] | None, where: str) -> str | None:
        """JSON of the known answers with their scores; None without any."""
        if not label:
            return None  # the sentence stays, for the other objectives
        # Most labels are one of some ten thousand. `repr` tells 1 from True, which is no score.
        key = repr(label)
        if key not in self.targets:
            if len(self.targets) == MOST:  # of other files, each label may be its own
                self.targets.clear()
            self.targets[key] = self._target(label, where)
        return self.targets[key]

    def _target(self, label: Mapping[str, Any], where: str) -> str | None:
        found: dict[str, int | float] = {}
        for answer, score in label.items():
            # bool is a subclass of int; NaN fails the comparison
            if isinstance(score, bool) or not isinstance(score, int | float) or not 0 <= score <= 1:
                raise FormatError(
                    f"{where}: the answer {shorten(answer)} has the score {shorten(score)}; expected a "
                    "number from 0 to 1."
                )
            name = self.known[answer] if answer in self.known else self._learn(answer)
            if name is not None:
                # Two spellings may become one answer; as in the original, the last one counts.
                found[name] = score
        # Without a known answer the sentence stays, for the other objectives.
        return ENCODE(found) if found else None

    def _learn(self, answer: str) -> str | None:
        # Once per spelling: 9 million sentences have some ten thousand.
        name = normalize_answer(answer)
        self.known[answer] = name if self.table is None or name in self.table else None
        return self.known[answer]


def _places() -> Iterator[str]:
    """000, 001, and so on."""
    yield from NUMBERS  # formatting 9 million numbers takes seconds
    yield from (f"{place:03d}" for place in count(len(NUMBERS)))


def _checked(record: Any, where: str) -> tuple[str, dict[str, list[str]], dict[str, Any]]:
    """Image, sentences and labels of a record whose types are right."""
    if not isinstance(record, dict):
        raise FormatError(f"{where} is {shorten(record)}; expected an image with `img_id` and `sentf`.")
    image, sentences, labels = record.get("img_id"), record.get("sentf"), record.get("labelf")
    if not isinstance(image, str) or not image:
        raise FormatError(f"{where}: img_id is {shorten(image)}; expected a string.")
    if not isinstance(sentences, dict):
        raise FormatError(f"{where} ({image}): sentf is {shorten(sentences)}; expected lists by category.")
    for category, texts in sentences.items():
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise FormatError(
                f"{where} ({image}): sentf.{category} is {shorten(texts)}; expected a list of strings."
            )
    labels = {} if labels is None else labels
    if not isinstance(labels, dict) or (unknown := [name for name in labels if name not in sentences]):
        got = f"{unknown[0]!r}, which sentf lacks" if isinstance(labels, dict) else shorten(labels)
        raise FormatError(f"{where} ({image}): labelf has {got}; expected labels by category of sentf.")
    return image, sentences, labels


def _answers(labels: Any, texts: list[str], where: str) -> list[dict[str, Any] | None] | None:
    """The label of each sentence of a category, None where it has none; None for a category without any."""
    if labels is None:
        return None
    if not isinstance(labels, list) or len(labels) != len(texts):
        got = len(labels) if isinstance(labels, list) else shorten(labels)
        raise FormatError(f"{where}: labelf has {got} labels; expected {len(texts)}, one for each sentence.")
    if odd := [one for one in labels if not (one is None or isinstance(one, dict))]:
        raise FormatError(f"{where}: a label is {shorten(odd[0])}; expected scores by answer.")
    return labels
