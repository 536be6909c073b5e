"""Files of Conceptual Captions: the official TSV, and the JSON lines of VL-BERT and MM-BERT.

    a dog on a beach .<TAB>http://example.org/dog.jpg
    {"image": "train_image.zip@/00000042.jpg", "caption": ["a", "dog"], "frcnn": "train_frcnn.zip@/..."}

The number of a picture is that of its line in the TSV, from 0. Many addresses are dead, so the numbers of the
JSON lines have gaps.
"""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from diptych.datasets.base import DuplicateId
from diptych.documents import parse_json, shorten
from diptych.errors import FormatError
from diptych.files import require_file

MAX_LINE = 1 << 16  # bytes; the longest official line has some 2,000
DIGITS = 8  # of the number of a picture
MEMBER = ".zip@/"  # between an archive and the name of a picture in it

Row = tuple[str, str, str]  # image key, file of the picture below the root, caption


def read_rows(path: Path) -> Iterator[Row]:
    """Yield the rows of a file in order; the ending of its name tells the form.

    Raises:
        FormatError: names file, line and field.
        DuplicateId: two lines have the same picture.
    """
    seen: dict[str, int] = {}
    read = _table_row if path.suffix == ".tsv" else _json_row
    for number, line in _lines(path):
        row = read(line, number, f"{path}:{number}")
        if (first := seen.setdefault(row[0], number)) != number:
            raise DuplicateId(f"{path}:{number}: the picture {row[0]} is already in line {first}.")
        yield row
    if not seen:
        raise FormatError(f"{path}: has no captions; expected one per line.")


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    with open(require_file(path, "a file of captions"), "rb") as file:
        for number, line in enumerate(iter(lambda: file.readline(MAX_LINE), b""), 1):
            if len(line) == MAX_LINE:
                raise FormatError(f"{path}:{number}: more than {MAX_LINE:,} bytes; expected a caption.")
            line = line.removeprefix(b"\xef\xbb\xbf" if number == 1 else b"").strip(b"\r\n")
            if line.strip():
                yield number, line


def _table_row(line: bytes, number: int, where: str) -> Row:
    try:
        caption, *address = line.decode().split("\t")
    except UnicodeDecodeError as error:
        raise FormatError(f"{where}: not UTF-8 ({error.reason}); expected a caption.") from error
    if len(address) != 1 or not caption.strip():
        raise FormatError(f"{where}: {shorten(line)}; expected a caption, a tab and an address.")
    key = f"{number - 1:0{DIGITS}d}"
    return key, f"{key}.jpg", caption.strip()


def _json_row(line: bytes, number: int, where: str) -> Row:
    record = parse_json(line, where=where, advice="Is the file cut off?")
    if not isinstance(record, dict):
        raise FormatError(f"{where}: got {shorten(record)}; expected an object with image and caption.")
    caption, image = record.get("caption"), record.get("image", record.get("frcnn"))
    words: list[Any] = caption if isinstance(caption, list) else [caption]
    text = " ".join(words).strip() if all(isinstance(word, str) for word in words) else ""
    if not text:
        raise FormatError(f"{where}: caption is {shorten(caption)}; expected a list of words, or a text.")
    file = _below(image)
    if file is None:
        raise FormatError(f"{where}: image is {shorten(image)}; expected ARCHIVE.zip@/NAME or FOLDER/NAME.")
    return PurePosixPath(file).stem, file, text


def _below(image: Any) -> str | None:
    """Path of a picture below the root, where its archive is unpacked; None if it is none."""
    if not isinstance(image, str) or not image.isprintable():
        return None
    path = PurePosixPath(image.replace(MEMBER, "/"))
    # A name that leads out of the root is no picture of the data set.
    return str(path) if path.stem and not path.is_absolute() and ".." not in path.parts else None
