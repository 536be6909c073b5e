"""Annotation files of VCR, one JSON object per line, and the files of its leaderboard.

Texts are lists of tokens. A token is a word, or a list of the objects that it names, as numbers from 0.
"""

import csv
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from diptych.datasets.base import DuplicateId
from diptych.datasets.json_records import Record
from diptych.datasets.locate import leaves_root
from diptych.documents import parse_json, shorten
from diptych.errors import FormatError, first_five
from diptych.files import atomic_file, require_file
from diptych.types import Example, Mention, Pair

CHOICES = 4
FORMS = ("q2a", "qa2r", "q2ar")
STRAY = ("error", "drop")
MAX_LINE = 1 << 20  # bytes; official lines have some 3,000
ID = "annot_id"
NAME = re.compile(r"[\w.-]+", re.ASCII)  # fits into a cell of a CSV, and into `condition`
ANSWERS = tuple(f"answer_{choice}" for choice in range(CHOICES))
RATIONALES = tuple(
    tuple(f"rationale_conditioned_on_a{answer}_{choice}" for choice in range(CHOICES))
    for answer in range(CHOICES)
)
# Of VL-BERT, which reads persons as names that do not tell a gender.
PEOPLE = (
    "Casey", "Riley", "Jessie", "Jackie", "Avery", "Jaime", "Peyton", "Kerry", "Jody", "Kendall", "Frankie",
    "Pat", "Quinn",
)  # fmt: skip
Tokens = Sequence[str | Sequence[int]]


def looks_like_vcr(path: Path) -> bool:
    """Whether the first line of a file looks like a question of VCR, whatever the name of the file is."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        start = file.readline(MAX_LINE)
    # Fields that no other data set has together; a damaged line is still recognized.
    return all(mark in start for mark in (b'"annot_id"', b'"answer_choices"', b'"metadata_fn"'))


def read_questions(
    path: Path, *, form: str, pictures: str, folds: Collection[str] = (), stray: str = "error"
) -> Iterator[Example]:
    """Read the questions of a split as examples of four pairs each.

    Args:
        form: `q2a` chooses the answer of a question, `qa2r` the rationale of a question and an answer, `q2ar`
            is both. Where labels are withheld, rationales are chosen for each of the four answers.
        pictures: folder of the pictures, below the root.
        folds: names of the match folds to read; empty reads all.
        stray: what to do with a number that no object has: `error`, or `drop` it from the text.

    Raises:
        FormatError: names file, line and field.
    """
    known: dict[str, int] = {}
    found: set[str] = set()
    with require_file(path, "questions of VCR").open("rb") as file:
        for number, line in enumerate(iter(lambda: file.readline(MAX_LINE), b""), 1):
            if not (line := line.removeprefix(b"\xef\xbb\xbf" if number == 1 else b"").strip()):
                continue
            where = f"{path}:{number}"
            record = Record(parse_json(line, where=where, advice="Is the file cut off?"), where)
            if (first := known.setdefault(_name(record), number)) != number:
                raise DuplicateId(f"{where}: annot_id {_name(record)} is already in line {first}.")
            fold = record.optional_text("match_fold")
            if not folds or fold in folds:
                found.add(fold or "")
                yield from _examples(record, form, pictures, stray)
    if missing := sorted(set(folds) - found):
        raise FormatError(f"{path}: no question is of the match fold {missing[0]}; see data.folds.")


def _examples(record: Record, form: str, pictures: str, stray: str) -> Iterator[Example]:
    key, objects = _name(record), [record.clean(str(one), "objects") for one in record.items("objects")]
    write = _Writer(record, objects, stray)
    question = write.tokens(record.items("question"), "question")
    answers, rationales = (
        [write.tokens(one, name) for one in _four(record, name)]
        for name in ("answer_choices", "rationale_choices")
    )
    right = _label(record, "answer_label")
    # Both are joined to the root later, so neither may lead out of it.
    image, file = (_below(record, name) for name in ("metadata_fn", "img_fn"))
    fold = record.optional_text("match_fold")

    def example(name: str, query: Tokens, choices: Sequence[Tokens], target: int | None) -> Example:
        pairs = (write.pair(query, choice) for choice in choices)
        return Example(
            id=name,
            pairs=tuple(
                Pair(
                    image=image.removesuffix(".json"),
                    text=text,
                    text_b=text_b,
                    mentions=mentions,
                    files=(f"{pictures}{file}",),
                )
                for text, text_b, mentions in pairs
            ),
            target=target,
            meta={} if fold is None else {"match_fold": fold},
        )

    if form != "qa2r":
        yield example(key, question, answers, right)
    if form != "q2a":
        # Which answer is right is withheld, so the leaderboard wants the rationales of all four.
        for answer in range(CHOICES) if right is None else (right,):
            query = [*question, *answers[answer]]
            yield example(condition(key, answer), query, rationales, _label(record, "rationale_label"))


def _name(record: Record) -> str:
    if not NAME.fullmatch(key := record.text(ID)):
        raise FormatError(f"{record.where}: `annot_id` is {shorten(key)}; expected a name such as val-1.")
    return key


def condition(key: str, answer: int) -> str:
    """Id of the choice of a rationale, given an answer."""
    return f"{key}#a{answer}"


def _four(record: Record, name: str) -> list[Any]:
    choices = record.items(name)
    if len(choices) != CHOICES:
        raise FormatError(f"{record.where}: `{name}` has {len(choices)} texts; expected {CHOICES}.")
    return choices


def _label(record: Record, name: str) -> int | None:
    if record.value.get(name) is None:  # withheld
        return None
    if (label := record.number(name)) >= CHOICES:
        raise FormatError(f"{record.where}: `{name}` is {label}; expected a number below {CHOICES}.")
    return label


def _below(record: Record, name: str) -> str:
    path = record.text(name)
    if not path or "\0" in path or leaves_root(path):
        raise FormatError(f"{record.where}: `{name}` is {shorten(path)}; expected a path below vcr1images.")
    return path


class _Writer:
    """Writes tokens as texts, in which objects have names.

    The n-th person has the n-th name, from the beginning again in every question. In VL-BERT the count goes
    on over questions, so that a name depends on their order.
    """

    def __init__(self, record: Record, objects: Sequence[str], stray: str) -> None:
        self.record, self.stray = record, stray
        persons = iter(range(len(objects)))
        # After the last name, the first one comes again.
        self.names = [PEOPLE[next(persons) % len(PEOPLE)] if name == "person" else name for name in objects]

    def tokens(self, value: Any, name: str) -> Tokens:
        """Checked tokens, without numbers that no object has if these are dropped."""
        where = self.record.where
        if not isinstance(value, list):
            raise FormatError(f"{where}: a text of `{name}` is {shorten(value)}; expected a list of tokens.")
        checked: list[str | list[int]] = []
        for token in value:
            if isinstance(token, str):
                checked.append(self.record.clean(token, name))
                continue
            # `type` and not `isinstance`: true would pass as object 1.
            if not isinstance(token, list) or not token or not all(type(one) is int for one in token):
                raise FormatError(
                    f"{where}: `{name}` has the token {shorten(token)}; expected a word, or a list of "
                    "numbers of objects."
                )
            # Negative numbers would count from the end of the list.
            there = [one for one in token if 0 <= one < len(self.names)]
            if len(there) < len(token) and self.stray == "error":
                odd = next(one for one in token if one not in there)
                raise FormatError(
                    f"{where}: `{name}` names object {odd}, but `objects` has {len(self.names)}. "
                    "data.stray=drop leaves such names out."
                )
            checked += [there] if there else []
        return checked

    def pair(self, first: Tokens, second: Tokens) -> tuple[str, str, tuple[Mention, ...]]:
        (text, mentions), (text_b, more) = self._text(first, 0), self._text(second, 1)
        return text, text_b, (*mentions, *more)

    def _text(self, tokens: Tokens, segment: int) -> tuple[str, list[Mention]]:
        words: list[str] = []
        mentions, length = list[Mention](), 0
        for token in tokens:
            names = [token] if isinstance(token, str) else [self.names[number] for number in token]
            for place, name in enumerate(names):
                if place:
                    words.append("and")
                    # "and" and the blank behind it.
                    length += 4
                if not isinstance(token, str):
                    stop = length + len(name)
                    mentions.append(Mention(start=length, stop=stop, region=token[place], segment=segment))
                words.append(name)
                # Places are counted as the words are joined below, with one blank between two.
                length += len(name) + 1
        return " ".join(words), mentions


Rows = Mapping[str, Mapping[str, Float[ndarray, " 4"]]]
"""Probabilities of the choices of each question, by the first of their four columns."""


def write_probabilities(path: Path, groups: Sequence[Sequence[str]], rows: Rows) -> None:
    """Write a leaderboard file; what a question has no probabilities for stays empty.

    Args:
        groups: the columns, four at a time.
    """
    with atomic_file(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([ID, *(name for group in groups for name in group)])
        for key, known in rows.items():
            cells = (known.get(group[0], [""] * CHOICES) for group in groups)
            writer.writerow([key, *(one if one == "" else float(one) for group in cells for one in group)])


def read_probabilities(path: Path) -> Rows:
    """Read a leaderboard file, or one with some of its columns.

    Raises:
        FormatError: names file, line and column of what is no such file.
    """
    # Five groups of four columns: answers, and rationales given each of them.
    every = (ANSWERS, *RATIONALES)
    rows: dict[str, dict[str, ndarray]] = {}
    for number, cells in _cells(require_file(path, "a CSV of probabilities")):
        where = f"{path}:{number}"
        if number == 1:
            header = cells
            allowed = {name: place for place, name in enumerate(header)}
            # Columns may come in any order; the header says where each is.
            groups = [group for group in every if group[0] in allowed]
            wanted = [ID, *(name for group in groups for name in group)]
            if header[:1] != [ID] or not groups or sorted(header) != sorted(wanted):
                raise FormatError(
                    f"{where}: the columns are {shorten(header)}; expected annot_id, answer_0 to answer_3 "
                    "and rationale_conditioned_on_a0_0 to _a3_3, or all four of some of these."
                )
            continue
        if len(cells) != len(header):
            raise FormatError(f"{where}: {len(cells)} cells; expected {len(header)}, as in the header.")
        if cells[0] in rows:
            raise FormatError(f"{where}: annot_id {cells[0]} occurs a second time.")
        taken = ((group[0], [cells[allowed[name]] for name in group]) for group in groups)
        rows[cells[0]] = {first: _numbers(four, where, first) for first, four in taken if any(four)}
    if not rows:
        raise FormatError(f"{path}: there are no questions; expected a header and one line per question.")
    return rows


def _cells(path: Path) -> Iterator[tuple[int, list[str]]]:
    with path.open("rb") as file:
        for number, line in enumerate(iter(lambda: file.readline(MAX_LINE), b""), 1):
            if text := line.decode("utf-8-sig", "replace").strip():
                # No quotes to look for: ids and column names hold no commas.
                yield number, [cell.strip() for cell in text.split(",")]


def _numbers(cells: Sequence[str], where: str, first: str) -> Float[ndarray, " 4"]:
    try:
        values = [float(cell) for cell in cells]
    except ValueError as error:
        raise FormatError(f"{where}: {first} and the next three are {shorten(cells)} ({error}).") from error
    if not all(map(isfinite, values)):
        raise FormatError(f"{where}: {first} and the next three are {shorten(cells)}; expected numbers.")
    return np.array(values)


def require_questions(path: Path, rows: Collection[str], expected: Collection[str]) -> None:
    """Refuse a file of other questions.

    Raises:
        FormatError: names the first questions that are missing, or are too many.
    """
    for what, keys in (
        ("lacks", [key for key in expected if key not in rows]),
        ("has, but the split lacks,", [key for key in rows if key not in expected]),
    ):
        if keys:
            raise FormatError(f"{path} {what} {len(keys)} question(s): {first_five(keys)}.")
