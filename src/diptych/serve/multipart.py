"""Parts of a multipart body, in memory: a picture of a stranger is never written to a disk."""

import logging
from dataclasses import dataclass, field

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from diptych.serve.problems import Problem

MOST = 8  # parts of a body, and headers of a part
# It warns of every damaged body, so strangers would fill the log.
logging.getLogger("python_multipart").setLevel(logging.ERROR)


@dataclass(slots=True)
class Part:
    """A part of a body.

    Args:
        file: whether it was sent as a file.
        kind: media type, in lower case and without parameters; empty if the part does not say it.
    """

    name: str = ""
    file: bool = False
    kind: str = ""
    data: bytearray = field(default_factory=bytearray)


class _Reader:
    """Collects what the parser calls back with."""

    def __init__(self) -> None:
        self.parts: list[Part] = []
        self.done = 0
        self._field, self._value, self._headers = b"", b"", 0

    def on_part_begin(self) -> None:
        if len(self.parts) == MOST:
            raise ValueError("too many parts")
        self.parts.append(Part())
        self._headers = 0

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def on_header_end(self) -> None:
        name, self._field = self._field.lower(), b""
        value, self._value = self._value, b""
        self._headers += 1
        if self._headers > MOST:
            raise ValueError("too many headers")
        if name == b"content-disposition":
            _, options = parse_options_header(value)
            self.parts[-1].name = options.get(b"name", b"").decode("utf-8", "replace")
            self.parts[-1].file = b"filename" in options
        elif name == b"content-type":
            self.parts[-1].kind = value.partition(b";")[0].strip().lower().decode("latin-1")

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        self.parts[-1].data += data[start:end]

    def on_part_end(self) -> None:
        self.done += 1


def read_parts(content_type: str, body: bytes) -> list[Part]:
    """Split a body into its parts.

    Raises:
        Problem: `invalid-request`; the body is damaged or cut off, or has too many parts.
    """
    _, options = parse_options_header(content_type)
    reader = _Reader()
    names = ("part_begin", "header_field", "header_value", "header_end", "part_data", "part_end")
    try:
        callbacks = {f"on_{name}": getattr(reader, f"on_{name}") for name in names}
        parser = MultipartParser(options[b"boundary"], callbacks)  # type: ignore[arg-type]
        parser.write(body)
        parser.finalize()
    except (FormParserError, ValueError, KeyError) as error:
        raise Problem("invalid-request", "the multipart body is damaged.") from error
    if reader.done < len(reader.parts):
        raise Problem("invalid-request", "the multipart body is cut off.")
    return reader.parts
