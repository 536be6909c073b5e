"""Reads a file that is one JSON list, record by record: files of gigabytes with one record in memory."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from diptych.documents import shorten
from diptych.errors import FormatError
from diptych.files import require_file

CHUNK = 1 << 20  # characters that are read together
LARGEST = 64 << 20  # characters of one record; a larger one is refused before it fills the memory
CUT = 16  # an error this near the end of what was read may come from a token that the chunk cuts in two
SPACE = re.compile(r"[ \t\n\r]*")
AGAIN = "Copy or make the file again."


def read_list(path: Path) -> Iterator[Any]:
    """Yield the records of a JSON list.

    Raises:
        FormatError: the file is no list, cut short, or not UTF-8; names the character where it goes wrong.
    """
    window = _Window(path)
    try:
        if window.peek() != "[":
            window.refuse(f"it begins with {shorten(window.text[:20])}; expected a list")
        window.take()
        if (sign := window.peek()) == "]":
            window.take()
        while sign != "]":
            yield window.value()
            if (sign := window.peek()) not in ("]", ","):
                window.refuse(f"got {shorten(sign)} after a record; expected a comma or the end of the list")
            window.take()
        if window.peek():
            window.refuse("there is more after the end of the list")
    finally:
        window.file.close()


class _Window:
    """What has been read of a file and not been used yet: `text` from `place` on."""

    def __init__(self, path: Path) -> None:
        # utf-8-sig: files that were edited on Windows begin with a byte order mark
        self.path, self.file = path, require_file(path, "a JSON list").open(encoding="utf-8-sig")
        self.text, self.place, self.before = "", 0, 0
        self.decoder = json.JSONDecoder(parse_constant=_no_number)

    def more(self) -> bool:
        """Read on; False at the end of the file."""
        try:
            chunk = self.file.read(CHUNK)
        except (UnicodeDecodeError, OSError) as error:
            raise FormatError(f"{self.path}: cannot be read as UTF-8 text ({error}). {AGAIN}") from error
        if chunk:
            self.before += self.place
            self.text, self.place = self.text[self.place :] + chunk, 0
        return bool(chunk)

    def peek(self) -> str:
        """The next character that is no space; empty at the end of the file."""
        while True:
            found = SPACE.match(self.text, self.place)
            self.place = self.place if found is None else found.end()
            if self.place < len(self.text):
                return self.text[self.place]
            if not self.more():
                return ""

    def take(self) -> str:
        sign = self.peek()
        self.place += len(sign)
        return sign

    def value(self) -> Any:
        """The next value, for which more is read as long as it is cut off."""
        self.peek()
        while True:
            try:
                value, end = self.decoder.raw_decode(self.text, self.place)
            except json.JSONDecodeError as error:
                # A string that is cut off is reported at its beginning, anything else at the end.
                cut = error.msg.startswith("Unterminated") or error.pos >= len(self.text.rstrip()) - CUT
                place = self.before + error.pos
                if not cut or len(self.text) - self.place > LARGEST or not self.more():
                    self.refuse(error.msg, place)
            except (ValueError, RecursionError) as error:
                self.refuse(str(error) or "nested too deep")
            else:
                # A number near the end may go on in the next chunk: 1 of `1.5`, 1.5 of `1.5e-3`.
                whole = isinstance(value, dict | list | str) or end < len(self.text) - CUT
                if whole or not self.more():
                    self.place = end
                    return value

    def refuse(self, what: str, place: int | None = None) -> NoReturn:
        """Raise the error about what follows, or about another place of the file."""
        place = self.before + self.place if place is None else place
        raise FormatError(f"{self.path}: {what} at character {place:,}. {AGAIN}")


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")
