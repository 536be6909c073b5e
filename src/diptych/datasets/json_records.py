"""Reads the records of large JSON files one at a time, and names what is wrong with a record."""

import json
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, NoReturn

from diptych.documents import shorten
from diptych.errors import FormatError
from diptych.files import atomic_file, require_file

CHUNK = 1 << 20  # characters that are read at a time
LARGEST = 16 << 20  # characters of one record; a longer one is not a record of any known data set
SPACE, NUMBER = re.compile(r"[ \t\r\n]*"), re.compile(r"[-+.eE0-9]*")


def read_members(path: Path, lists: Collection[str] = ()) -> Iterator[tuple[Any, Any]]:
    """Yield the members of the array or object that a file consists of, with one of them in memory.

    Args:
        lists: keys of an object whose arrays are read element by element: `questions` gives pairs
            (`questions`, element).

    Yields:
        Position and element of an array, or key and value of an object.

    Raises:
        FormatError: the file is cut off or is not JSON; names the position.
    """
    with open(require_file(path, "a JSON file"), encoding="utf-8-sig") as file:
        reader = _Reader(file, path)
        try:
            if reader.next_character() not in ("[", "{"):
                reader.refuse("expected a JSON array or object")
            yield from reader.members(lists)
            # Something behind the end: two files in one, or a file that was written over a longer one.
            if reader.next_character():
                reader.refuse("expected the end of the file")
        except UnicodeDecodeError as error:
            raise FormatError(
                f"{path}: not UTF-8 near character {reader.position:,} ({error.reason})."
            ) from error


def read_list(path: Path) -> Iterator[Any]:
    """Yield the elements of a file that is one JSON array; see `read_members`."""
    for key, value in read_members(path):
        if isinstance(key, str):
            raise FormatError(f"{path}: an object at character 0; expected a JSON array.")
        yield value


def first_member(path: Path) -> tuple[Any, Any]:
    """Return the first member of a file, or (None, None) if there is none or the file is not JSON."""
    try:
        return next(read_members(path), (None, None))
    except FormatError:
        return None, None


class _Reader:
    """A window of a JSON text; `place` is the next character of the window."""

    def __init__(self, file: IO[str], path: Path) -> None:
        self.file, self.path = file, path
        self.text, self.place, self.before = "", 0, 0
        # Python accepts NaN and Infinity, which are no JSON and would end in scores.
        self.decoder = json.JSONDecoder(parse_constant=_no_number)

    @property
    def position(self) -> int:
        """Number of the next character, from 0."""
        return self.before + self.place

    def refuse(self, expected: str, cause: Exception | None = None) -> NoReturn:
        rest = self.text[self.place : self.place + 20]
        got = f"got {rest!r}" if rest else "the file ends here"
        raise FormatError(
            f"{self.path}: not complete JSON at character {self.position:,}: {got}; {expected}. "
            "Is the file cut off?"
        ) from cause

    def more(self) -> bool:
        """Read on, and forget what was used."""
        chunk = self.file.read(CHUNK)
        self.text, self.before, self.place = self.text[self.place :] + chunk, self.position, 0
        return bool(chunk)

    def next_character(self) -> str:
        """Skip white space; an empty string is the end of the file."""
        while True:
            found = SPACE.match(self.text, self.place)
            self.place = found.end() if found else self.place
            if self.place < len(self.text):
                return self.text[self.place]
            if not self.more():
                return ""

    def expect(self, character: str) -> None:
        if self.next_character() != character:
            self.refuse(f"expected {character!r}")
        self.place += 1

    def value(self) -> Any:
        self.next_character()
        while True:
            try:
                # Decoding starts again with every further chunk; records are small, so this is rare.
                value, end = self.decoder.raw_decode(self.text, self.place)
            except (ValueError, RecursionError) as error:
                # The window may end inside the value; that cannot be told from damage, so read on.
                if len(self.text) - self.place > LARGEST or not self.more():
                    self.refuse("expected a JSON value", error)
                continue
            # A number may go on behind the window: 23.5 is read as 23 if the window ends at the point.
            rest, used = NUMBER.match(self.text, end), end - self.place
            if (rest and rest.end() < len(self.text)) or not self.more():
                self.place += used
                return value

    def members(self, lists: Collection[str]) -> Iterator[tuple[Any, Any]]:
        closing = "]" if self.next_character() == "[" else "}"
        self.place += 1
        number = 0
        if self.next_character() == closing:
            self.place += 1
            return
        while True:
            key: Any = number
            if closing == "}":
                key = self.value()
                if not isinstance(key, str):
                    self.refuse("expected a key")
                self.expect(":")
            # `()`: inside of such a list, arrays are ordinary values.
            if key in lists and self.next_character() == "[":
                yield from ((key, item) for _, item in self.members(()))
            else:
                yield key, self.value()
            number += 1
            if self.next_character() != ",":
                self.expect(closing)
                return
            self.place += 1


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def write_list(path: Path, records: Iterator[Mapping[str, Any]]) -> None:
    """Write records as a JSON array with one record per line, whole or not at all."""
    with atomic_file(path, "w", encoding="utf-8", newline="\n") as file:
        between = "["
        for record in records:
            file.write(f"{between}{json.dumps(record, ensure_ascii=False)}")
            between = ",\n"
        file.write("]\n" if between != "[" else "[]\n")


class Record:
    """A record of a file with typed fields.

    Args:
        where: file and id or number of the record, for messages.
    """

    def __init__(self, value: Any, where: str) -> None:
        if not isinstance(value, Mapping):
            raise FormatError(f"{where}: got {shorten(value)}; expected an object.")
        self.value, self.where = value, where

    def _field(self, name: str, kind: type, expected: str) -> Any:
        value = self.value.get(name)
        # `True` is an int for Python.
        if not isinstance(value, kind) or isinstance(value, bool):
            got = f"`{name}` is {shorten(value)}" if name in self.value else f"there is no `{name}`"
            raise FormatError(f"{self.where}: {got}; expected {expected}.")
        return value

    def text(self, name: str) -> str:
        """A string that can be written as UTF-8."""
        return self.clean(self._field(name, str, "a string"), name)

    def optional_text(self, name: str) -> str | None:
        return None if self.value.get(name) is None else self.text(name)

    def number(self, name: str) -> int:
        """A whole number from 0."""
        value: int = self._field(name, int, "a whole number")
        if not 0 <= value < 1 << 63:
            raise FormatError(f"{self.where}: `{name}` is {value}; expected a whole number from 0.")
        return value

    def mapping(self, name: str) -> Mapping[str, Any]:
        value: Mapping[str, Any] = self._field(name, Mapping, "an object")
        return value

    def items(self, name: str) -> list[Any]:
        value: list[Any] = self._field(name, list, "a list")
        return value

    def scores(self, name: str) -> dict[str, float]:
        """Scores in [0, 1] by answer, the highest first."""
        scores = self.mapping(name)
        for answer, score in scores.items():
            if isinstance(score, bool) or not isinstance(score, int | float) or not 0 <= score <= 1:
                raise FormatError(
                    f"{self.where}: the score of {self.clean(answer, name)!r} in `{name}` is "
                    f"{shorten(score)}; expected a number in [0, 1]."
                )
        # The best answer first, because readers of the first key want that one.
        # Sorting keeps the order of ties.
        ordered = sorted(scores.items(), key=lambda item: -item[1])
        return {self.clean(answer, name): float(score) for answer, score in ordered}

    def clean(self, text: str, name: str) -> str:
        """Refuse half a surrogate pair, which no file of ours can hold."""
        if not text.isascii():
            try:
                text.encode()
            except UnicodeEncodeError as error:
                raise FormatError(
                    f"{self.where}: `{name}` has half a surrogate pair ({text!r:.60})."
                ) from error
        return text
