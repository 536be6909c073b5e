"""Annotation files of Hateful Memes: one JSON record per line.

Fields are `id`, `img` (path below the root), `text`, and `label` (0 or 1), which test splits lack.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from diptych.datasets.base import DuplicateId
from diptych.datasets.locate import leaves_root
from diptych.documents import parse_json, shorten
from diptych.errors import ConfigError, FormatError, nearest
from diptych.files import atomic_file, require_file
from diptych.predictions import respell

LABELS = ("benign", "hateful")
PHASES = {"dev_seen": "dev", "dev": "dev_seen", "test_seen": "test", "test": "test_seen"}  # see `split_path`
MAX_LINE = 16 << 20  # bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Meme:
    """One line of an annotation file.

    Args:
        image: path below the root of the data set.
        label: index into `LABELS`; None if it is withheld.
        line: line number, from 1; 0 if the meme does not come from a file.
    """

    id: str
    image: str
    text: str
    label: int | None = None
    line: int = 0

    @property
    def key(self) -> str:
        """Key of the picture in a feature store: its file stem, as in all public feature files."""
        return Path(self.image).stem


def split_path(root: Path, split: str) -> Path:
    """Find the annotation file of a split.

    In the challenge's first phase, `dev_seen` was called `dev` and `test_seen` was called `test`. If the file
    with one name does not exist, the other is used.

    Raises:
        ConfigError: the file does not exist; lists the existing splits.
        FormatError: the path is not a regular file.
    """
    path = root / f"{split}.jsonl"
    other = root / f"{PHASES.get(split)}.jsonl"
    # `dev` exists in the first phase only, so a folder has one of the two names.
    if not path.exists() and other.is_file():
        return other
    if not path.exists():
        names = [file.stem for file in sorted(root.glob("*.jsonl"))]
        splits = [name for name in names if not name.endswith(".answers")]
        raise ConfigError(
            f"{path} does not exist; {root} has the splits {splits}.{nearest(split, splits)}"
            if root.is_dir()
            else f"{root} is not a folder; expected one with img/ and train.jsonl, dev_seen.jsonl, ..."
        )
    return require_file(path, "an annotation file")


def read_memes(path: Path) -> tuple[list[Meme], list[FormatError]]:
    """Read the valid records of an annotation file, and the errors of the others.

    A byte order mark, CRLF and blank lines are accepted. Of records with equal ids, the first is valid.
    """
    memes: dict[str, Meme] = {}
    problems: list[FormatError] = []
    for number, line in _lines(path):
        try:
            meme = _meme(line, number)
            if (first := memes.get(meme.id)) is not None:
                # An id of a hostile file may have megabytes.
                key = shorten(meme.id) if len(meme.id) > 60 else meme.id
                raise DuplicateId(f"id {key} is already on line {first.line}; expected unique ids.")
            memes[meme.id] = meme
        except FormatError as error:
            # The class stays: `diptych check` tells repeated ids from damaged lines.
            problems.append(type(error)(f"{path}:{number}: {error}"))
    return list(memes.values()), problems


def require_memes(path: Path) -> list[Meme]:
    """Read all records of an annotation file.

    Raises:
        FormatError: names file and line of the first invalid record, and the number of further ones.
    """
    memes, problems = read_memes(path)
    if problems:
        more = f" {len(problems) - 1} more: `diptych check {path.parent}` lists all." if problems[1:] else ""
        raise FormatError(f"{problems[0]}{more}")
    return memes


def write_memes(path: Path, memes: Iterable[Meme], *, labels: bool = True) -> None:
    """Write an annotation file in the official format; unlabeled memes have no field `label`.

    Args:
        labels: False omits all labels.
    """
    with atomic_file(path, "w", newline="", encoding="utf-8") as file:
        for meme in memes:
            record: dict[str, Any] = {"id": _number_if_decimal(meme.id), "img": meme.image}
            if labels and meme.label is not None:
                record["label"] = meme.label
            record["text"] = meme.text
            file.write(json.dumps(record, ensure_ascii=False) + "\n")


def write_answers(path: Path, memes: Iterable[Meme]) -> None:
    """Write the labels of a test split: JSON lines with `id` and `label`."""
    with atomic_file(path, "w", newline="", encoding="utf-8") as file:
        for meme in memes:
            file.write(json.dumps({"id": _number_if_decimal(meme.id), "label": meme.label}) + "\n")


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield line numbers and lines that are not blank."""
    # Binary lines end at a line feed only. Text mode would also split at U+2028, which texts may contain.
    with path.open("rb") as file:
        # A longer line arrives in parts; `_record` refuses the first, so memory stays bounded.
        for number, line in enumerate(iter(lambda: file.readline(MAX_LINE), b""), 1):
            content = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
            if content := content.strip():
                yield number, content


def _record(line: bytes, fields: tuple[str, ...]) -> dict[str, Any]:
    if len(line) >= MAX_LINE:
        raise FormatError(f"more than {MAX_LINE:,} bytes in a line; expected a record per line.")
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise FormatError(f"not UTF-8 (byte {error.start}); expected UTF-8 text.") from error
    advice = "" if text.endswith("}") else f"The line ends in {text[-20:]!r}. Is the file cut off?"
    if "\r" in text:
        advice = "Expected lines to end with a line feed, not with a carriage return."
    record = parse_json(text, where="not JSON", advice=advice)
    if not isinstance(record, dict):
        raise FormatError(f"got a {type(record).__name__}; expected a JSON object with {', '.join(fields)}.")
    if missing := [name for name in fields if name not in record]:
        has = ", ".join(record)[:200] or "no fields"
        raise FormatError(f"the record lacks {', '.join(missing)}; it has {has}.")
    key = record["id"]
    if isinstance(key, float) and key.is_integer():
        key = record["id"] = int(key)  # pandas writes integers as 1.0 if the column has missing values
    if isinstance(key, bool) or not isinstance(key, int | str) or not str(key).strip():
        raise FormatError(f"`id` is {shorten(key)}; expected a number or a string.")
    return record


def _meme(line: bytes, number: int) -> Meme:
    record = _record(line, ("id", "img", "text"))
    for name in ("img", "text"):
        if not isinstance(record[name], str):
            raise FormatError(f"`{name}` is {shorten(record[name])}; expected a string.")
    if not Path(record["img"]).stem or "\0" in record["img"]:
        raise FormatError(f"`img` is {shorten(record['img'])}; expected a path like img/01234.png.")
    if leaves_root(record["img"]):
        raise FormatError(
            f"`img` is {shorten(record['img'])}; expected a path inside the folder of the data set."
        )
    return Meme(
        id=str(record["id"]),
        image=record["img"],
        text=record["text"],
        label=_label(record.get("label")),
        line=number,
    )


def _label(value: Any) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool | str) or value not in (0, 1):  # True equals 1
        raise FormatError(f"`label` is {shorten(value)}; expected 0 (benign), 1 (hateful), or none.")
    return int(value)


def require_answers(path: Path) -> Path:
    """Check that an answers file exists.

    Raises:
        ConfigError: it does not exist.
        FormatError: the path is not a regular file.
    """
    if not path.exists():
        raise ConfigError(f"the answers file {path} does not exist.")
    return require_file(path, "a file of answers")


def with_answers(memes: list[Meme], path: Path, split: Path) -> list[Meme]:
    """Return the memes with the labels of an answers file.

    Raises:
        FormatError: an answer is missing, invalid, or contradicts the split's own label.
    """
    answers: dict[str, int | None] = {}
    for number, line in _lines(path):
        try:
            record = _record(line, ("id", "label"))
            answers[str(record["id"])] = _label(record["label"])
        except FormatError as error:
            raise FormatError(f"{path}:{number}: {error}") from error
    # Files spell the same id with and without leading zeros.
    spelled = respell(tuple(answers), {meme.id for meme in memes})
    answers = dict(zip(spelled, answers.values(), strict=True))
    if missing := [meme.id for meme in memes if answers.get(meme.id) is None]:
        raise FormatError(
            f"{path}: no answer for {len(missing)} meme(s) of {split}: {', '.join(missing[:5])}. "
            "Is it the answers file of this split?"
        )
    for meme in memes:
        # Two truths about one meme: one of the files belongs to another release.
        if meme.label is not None and meme.label != answers[meme.id]:
            raise FormatError(
                f"{path}: meme {meme.id} is {answers[meme.id]}, but {split}:{meme.line} says {meme.label}."
            )
    return [replace(meme, label=answers[meme.id]) for meme in memes]


def _number_if_decimal(key: str) -> int | str:
    # Official files have numbers, but an id with leading zeros must keep them.
    return int(key) if key.isdecimal() and str(int(key)) == key else key
