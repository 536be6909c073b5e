"""Hateful Memes: JSON lines in, CSV out.

Kiela et al., 2020, https://arxiv.org/abs/2005.04790. One record per line: `id`, `img` (path below the root),
`text`, and `label` 0/1 except in the test splits. `dev_unseen` shares 400 of its 540 memes with `dev_seen`.
"""

import csv
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from os.path import normpath
from pathlib import Path
from typing import Any

import numpy as np

from diptych.documents import parse_json, shorten
from diptych.errors import ConfigError, FormatError, nearest
from diptych.files import atomic_file, require_file
from diptych.predictions import Predictions, respell
from diptych.types import Example, Pair

LABELS = ("benign", "hateful")
SPLITS = ("train", "dev_seen", "dev_unseen", "test_seen", "test_unseen")
PHASES = {"dev_seen": "dev", "dev": "dev_seen", "test_seen": "test", "test": "test_seen"}
MAX_LINE = 16 << 20  # bytes
KNOWN_OVERLAP = frozenset({"dev_seen", "dev_unseen"})


class DuplicateId(FormatError):
    """A record whose id an earlier one has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Meme:
    """One line of an annotation file.

    Args:
        image: path below the root of the data set.
        label: index into `LABELS`, None where it is withheld.
        line: number of the line, from 1; 0 when it comes from no file.
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


class HatefulMemes:
    """The memes of one split, in file order.

    `Example.target` is a name in `LABELS` or None; `Example.meta["image_path"]` is the path of the picture.

    Args:
        root: folder that holds the annotation files and the pictures.
        split: name of an annotation file without `.jsonl`.
        answers: a file of JSON lines with `id` and `label` that fills in withheld labels; it may hold more
            ids than the split.
        limit: at most so many memes, the first ones.
        twice: a split whose memes follow once more, for training; Vilio's E counts dev_seen twice.

    Attributes:
        files: the annotation files that were read.

    Raises:
        FormatError: names file and line of the first record that is wrong, and how many more there are.
        ConfigError: there is no such split.
    """

    def __init__(
        self,
        root: Path | str,
        split: str,
        *,
        answers: Path | str | None = None,
        limit: int | None = None,
        twice: str | None = None,
    ) -> None:
        if limit is not None and limit < 1:
            raise ConfigError(f"limit is {limit}; expected at least 1 meme.")
        self.root, self.split = Path(root), split
        self.path = split_path(self.root, split)
        memes, problems = read_memes(self.path)
        if problems:
            more = (
                f" {len(problems) - 1} more: `diptych check {self.root}` lists all." if problems[1:] else ""
            )
            raise FormatError(f"{problems[0]}{more}")
        memes = memes[:limit]
        self.memes = memes if answers is None else _with_answers(memes, Path(answers), self.path)
        self.files: tuple[Path, ...] = (self.path, *(Path(one) for one in [answers] if one is not None))
        if twice is not None:
            again = HatefulMemes(root, twice)
            self.memes, self.files = [*self.memes, *again.memes], (*self.files, *again.files)

    def __len__(self) -> int:
        return len(self.memes)

    def __getitem__(self, index: int) -> Example:
        meme = self.memes[index]
        return Example(
            id=meme.id,
            pairs=(Pair(image=meme.key, text=meme.text),),
            target=None if meme.label is None else LABELS[meme.label],
            meta={"image_path": self.root / meme.image},
        )

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(meme.id for meme in self.memes)

    @property
    def images(self) -> Mapping[str, Path]:
        """Picture files by image key."""
        return {meme.key: self.root / meme.image for meme in self.memes}

    def shared_with(self, other: "HatefulMemes") -> tuple[str, ...]:
        """Ids that the other split holds too; expected between `dev_seen` and `dev_unseen` only."""
        theirs = set(other.ids)
        return tuple(key for key in self.ids if key in theirs)

    def write(self, predictions: Predictions, path: Path) -> None:
        """Write the submission: `id,proba,label` in the order of the split, `proba` that of hateful.

        Raises:
            FormatError: the ids are not those of the split, or a score is no probability.
        """
        predictions = predictions.unique().align(self.ids)
        proba = predictions.column("hateful")
        if (bad := np.flatnonzero(~((proba >= 0) & (proba <= 1)))).size:
            raise FormatError(
                f"{path}: meme {predictions.ids[bad[0]]} has the score {proba[bad[0]]}; expected "
                "probabilities in [0, 1]."
            )
        labels = proba >= 0.5 if predictions.answers is None else np.array(predictions.answers) == "hateful"
        with atomic_file(path, "w", newline="", encoding="utf-8") as file:
            rows = csv.writer(file, lineterminator="\n")
            rows.writerow(("id", "proba", "label"))
            rows.writerows(
                (key, f"{value:.9g}", int(label))
                for key, value, label in zip(predictions.ids, proba, labels, strict=True)
            )


def split_path(root: Path, split: str) -> Path:
    """The annotation file of a split.

    The challenge's first phase had one dev and one test split: where `dev_seen.jsonl` does not exist and
    `dev.jsonl` does, it is taken, and the other way round; likewise for test.

    Raises:
        ConfigError: it does not exist; lists what does.
        FormatError: something else has its name, such as a named pipe.
    """
    path = root / f"{split}.jsonl"
    other = root / f"{PHASES.get(split)}.jsonl"
    if not path.exists() and other.is_file():
        return other
    if not path.exists():
        names = [file.stem for file in sorted(root.glob("*.jsonl"))]
        found = [name for name in names if not name.endswith(".answers")]
        raise ConfigError(
            f"{path} does not exist; {root} holds the splits {found}.{nearest(split, found)}"
            if root.is_dir()
            else f"{root} is not a folder; expected one with img/ and train.jsonl, dev_seen.jsonl, ..."
        )
    return require_file(path, "an annotation file")


def read_memes(path: Path) -> tuple[list[Meme], list[FormatError]]:
    """The good records of an annotation file, and what is wrong with the others.

    A byte order mark, CRLF and blank lines are fine. The first record with a repeated id counts as good.
    """
    memes: dict[str, Meme] = {}
    problems: list[FormatError] = []
    for number, line in _lines(path):
        try:
            meme = _meme(line, number)
            if (first := memes.get(meme.id)) is not None:
                key = shorten(meme.id) if len(meme.id) > 60 else meme.id
                raise DuplicateId(f"id {key} occurs on line {first.line} already; expected unique ids.")
            memes[meme.id] = meme
        except FormatError as error:
            problems.append(type(error)(f"{path}:{number}: {error}"))
    return list(memes.values()), problems


def write_memes(path: Path, memes: Iterable[Meme], *, labels: bool = True) -> None:
    """Write an annotation file in the official form; unlabeled memes, or `labels` off, leave `label` out."""
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
    """Lines that are not blank, with their numbers; only a line feed ends a line (texts may hold U+2028)."""
    with path.open("rb") as file:
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
        advice = "Expected lines that end in a line feed, not in a carriage return."
    record = parse_json(text, where="not JSON", advice=advice)
    if not isinstance(record, dict):
        raise FormatError(f"got a {type(record).__name__}; expected a JSON object with {', '.join(fields)}.")
    if missing := [name for name in fields if name not in record]:
        has = ", ".join(record)[:200] or "no fields"
        raise FormatError(f"the record lacks {', '.join(missing)}; it has {has}.")
    key = record["id"]
    if isinstance(key, float) and key.is_integer():
        key = record["id"] = int(key)  # as pandas writes a column with gaps
    if isinstance(key, bool) or not isinstance(key, int | str) or not str(key).strip():
        raise FormatError(f"`id` is {shorten(key)}; expected a number or a string.")
    return record


def _meme(line: bytes, number: int) -> Meme:
    record = _record(line, ("id", "img", "text"))
    for name in ("img", "text"):
        if not isinstance(record[name], str):
            raise FormatError(f"`{name}` is {shorten(record[name])}; expected a string.")
    if not Path(record["img"]).stem or "\0" in record["img"]:
        raise FormatError(f"`img` is {shorten(record['img'])}; expected a path such as img/01234.png.")
    if _leaves_root(record["img"]):
        raise FormatError(
            f"`img` is {shorten(record['img'])}; expected a path below the folder of the data set."
        )
    return Meme(
        id=str(record["id"]),
        image=record["img"],
        text=record["text"],
        label=_label(record.get("label")),
        line=number,
    )


def _leaves_root(image: str) -> bool:
    """Whether a path is absolute or climbs out, as it is written; links inside the folder are the owner's."""
    return normpath(image).startswith(("/", "../"))


def _label(value: Any) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool | str) or value not in (0, 1):
        raise FormatError(f"`label` is {shorten(value)}; expected 0 (benign), 1 (hateful), or none.")
    return int(value)


def _with_answers(memes: list[Meme], path: Path, split: Path) -> list[Meme]:
    """The memes with the labels of an answers file."""
    if not path.exists():
        raise ConfigError(f"the answers file {path} does not exist.")
    require_file(path, "a file of answers")
    answers: dict[str, int | None] = {}
    for number, line in _lines(path):
        try:
            record = _record(line, ("id", "label"))
            answers[str(record["id"])] = _label(record["label"])
        except FormatError as error:
            raise FormatError(f"{path}:{number}: {error}") from error
    spelled = respell(tuple(answers), {meme.id for meme in memes})
    answers = dict(zip(spelled, answers.values(), strict=True))
    if missing := [meme.id for meme in memes if answers.get(meme.id) is None]:
        raise FormatError(
            f"{path}: no answer for {len(missing)} meme(s) of {split}: {', '.join(missing[:5])}. "
            "Is it the answers file of this split?"
        )
    for meme in memes:
        if meme.label is not None and meme.label != answers[meme.id]:
            raise FormatError(
                f"{path}: meme {meme.id} is {answers[meme.id]}, but {split}:{meme.line} says {meme.label}."
            )
    return [
        Meme(id=meme.id, image=meme.image, text=meme.text, label=answers[meme.id], line=meme.line)
        for meme in memes
    ]


def _number_if_decimal(key: str) -> int | str:
    return int(key) if key.isdecimal() and str(int(key)) == key else key
