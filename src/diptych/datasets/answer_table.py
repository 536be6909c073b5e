"""The list of answers that a model can give: read from a file, or learned from a training split."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diptych.documents import parse_json, shorten
from diptych.errors import ConfigError, FormatError, first_five
from diptych.files import atomic_file, require_file
from diptych.predictions import likeliest

MAX_BYTES = 64 << 20
PRETRAINING = "all_ans.json"  # LXMERT's list of the answers of pre-training
PRETRAINING_FOLDERS = (".", "lxmert", "data/lxmert")  # where the original's tree has it
Count = tuple[Any, int]
"""A target and the number of examples that have it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """How well a table of answers covers the examples of a split.

    Args:
        examples: number of examples with a target.
        answerable: number of those with at least one answer of the table.
        oracle: mean score in [0, 1] if the best answer of the table is always given.
    """

    examples: int
    answerable: int
    oracle: float

    def __str__(self) -> str:
        return (
            f"{self.answerable:,} of {self.examples:,} examples can be answered; the best possible accuracy "
            f"is {self.oracle:.2%}"
        )


def pretraining_table(checkpoint: Path, root: Path) -> Path | None:
    """Find LXMERT's list of answers beside a checkpoint or below the root of a data set."""
    # Beside the checkpoint first: its list fits its rows, that of the data may be of another release.
    places = (checkpoint.parent, *(root / folder for folder in PRETRAINING_FOLDERS))
    return next((place / PRETRAINING for place in places if (place / PRETRAINING).is_file()), None)


def read_answers(path: Path, *, sets: Sequence[str] = ()) -> tuple[str, ...]:
    """Read a table of answers.

    Accepted are a text file with one answer per line, a JSON list of answers or of `{"ans": answer, ...}`
    (LXMERT's `all_ans.json`), and a JSON object from answers to their numbers (`trainval_ans2label.json`).

    Args:
        path: the file.
        sets: of LXMERT's list, keep the answers that occur in one of these data sets; empty keeps all.

    Raises:
        ConfigError: no answer of the file occurs in one of the `sets`.
        FormatError: the file is none of these, is empty, or has an answer twice.
    """
    require_file(path, "a table of answers")
    if path.stat().st_size > MAX_BYTES:
        raise FormatError(
            f"{path}: {path.stat().st_size:,} bytes; expected a table of at most {MAX_BYTES:,}."
        )
    if path.suffix == ".json":
        values = parse_json(path.read_bytes(), where=path)
        answers = _from_json(_of_sets(values, sets, path) if sets else values, path)
    else:
        try:
            lines = path.read_text(encoding="utf-8-sig").split("\n")
        except UnicodeDecodeError as error:
            raise FormatError(
                f"{path}: not UTF-8 (byte {error.start}); expected one answer per line."
            ) from error
        answers = [line.rstrip("\r") for line in lines]
        # The last line feed ends a line. Other empty lines count: entry 0 of LXMERT's table for VQA is "".
        answers = answers[:-1] if answers and not answers[-1] else answers
    repeated = [answer for answer, count in Counter(answers).items() if count > 1]
    if repeated or not answers:
        problem = (
            f"{len(repeated)} answer(s) occur twice: {first_five(repeated)}" if repeated else "no answers"
        )
        raise FormatError(f"{path}: {problem}; expected every answer once.")
    return tuple(answers)


def _of_sets(values: Any, sets: Sequence[str], path: Path) -> list[Any]:
    """The entries that occur in one of the data sets; each set must occur, so that no typo drops answers."""
    entries = [value for value in values if isinstance(value, Mapping)] if isinstance(values, list) else []
    found = [names if isinstance(names := entry.get("dsets"), list) else [] for entry in entries]
    lists = [{name for name in names if isinstance(name, str)} for names in found]
    known = {name for names in lists for name in names}
    if unknown := sorted(set(sets) - known):
        raise ConfigError(
            f"{path}: no answer is of the data set(s) {', '.join(unknown)}; expected of {sorted(known)}."
        )
    return [entry for entry, names in zip(entries, lists, strict=True) if names.intersection(sets)]


def _from_json(values: Any, path: Path) -> list[str]:
    if isinstance(values, Mapping):
        # `type` and not `isinstance`: true and false would pass as 1 and 0.
        numbers = sorted(number for number in values.values() if type(number) is int)
        if numbers != list(range(len(values))):
            raise FormatError(f"{path}: the numbers of the answers are not 0 to {len(values) - 1}.")
        values = sorted(values, key=lambda answer: values[answer])
    if not isinstance(values, list):
        raise FormatError(f"{path}: got {shorten(values)}; expected a list of answers.")
    answers: list[str] = []
    for number, value in enumerate(values):
        answer = value.get("ans") if isinstance(value, Mapping) else value
        if not isinstance(answer, str):
            raise FormatError(f"{path}: entry {number} is {shorten(value)}; expected an answer.")
        answers.append(answer)
    return answers


def write_answers(path: Path, answers: Sequence[str]) -> None:
    """Write one answer per line, or a JSON list if the name ends in `.json`."""
    broken = [answer for answer in answers if "\n" in answer or "\r" in answer]
    # Two lines would become two answers, and all later rows of the head would be shifted.
    if broken and path.suffix != ".json":
        raise FormatError(f"{path}: the answer {broken[0]!r} has several lines; write a .json file.")
    with atomic_file(path, "w", encoding="utf-8", newline="\n") as file:
        if path.suffix == ".json":
            file.write(json.dumps(list(answers), ensure_ascii=False, indent=0) + "\n")
        else:
            file.writelines(f"{answer}\n" for answer in answers)


def learn_answers(targets: Iterable[Count], minimum: int) -> tuple[str, ...]:
    """Return the answers that are the best one of at least `minimum` examples, the most frequent first.

    The usual tables of VQA (3,129 answers) and GQA (1,842) were made like this; VQA's minimum is 9.

    Raises:
        ConfigError: there are none.
    """
    counts: Counter[str] = Counter()
    for target, count in targets:
        if target:
            counts[_best(target)] += count
    answers = sorted(
        # Ties in alphabetical order, so that the table does not depend on the order of the examples.
        (answer for answer in counts if counts[answer] >= minimum),
        key=lambda a: (-counts[a], a),
    )
    if not answers:
        most = f"; the most frequent of {len(counts)} occurs {max(counts.values())} times" if counts else ""
        raise ConfigError(
            f"no answer is the best one of {minimum} examples or more{most}. Lower the minimum."
        )
    return tuple(answers)


def _best(target: Any) -> str:
    best = likeliest(target)
    if not isinstance(best, str):
        raise ConfigError(f"{shorten(target)} is no answer; expected a data set whose targets are answers.")
    return best


def coverage(answers: Iterable[str], targets: Iterable[Count]) -> Coverage:
    """Compare a table of answers with the targets of a split."""
    known = frozenset(answers)
    examples, answerable, total = 0, 0, 0.0
    for target, count in targets:
        if target is None:
            continue
        # A plain class counts as its own only answer.
        scores = {target: 1.0} if isinstance(target, str) else target
        best = max((score for answer, score in scores.items() if answer in known), default=0.0)
        examples, answerable, total = examples + count, answerable + count * (best > 0), total + count * best
    return Coverage(examples=examples, answerable=answerable, oracle=total / max(1, examples))
