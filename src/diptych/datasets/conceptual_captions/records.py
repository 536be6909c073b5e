"""Files of Conceptual Captions: the official TSV, and the JSON lines of VL-BERT and MM-BERT.

    a dog on a beach .<TAB>http://example.org/dog.jpg
    {"image": "train_image.zip@/00000042.jpg", "caption": ["a", "dog"], "frcnn": "train_frcnn.zip@/..."}

The number of a picture is that of its line in the TSV, from 0. Many addresses are dead, so the numbers of the
JSON lines have gaps.
"""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from diptych.datasets.base import DuplicateId
from diptych.datasets.caption_lines import as_object, picture, read_bytes, text
from diptych.documents import shorten
from diptych.errors import FormatError

DIGITS = 8  # of the number of a picture

Row = tuple[str, str, str]  # image key, file of the picture below the root, caption


def read_rows(path: Path) -> Iterator[Row]:
    """Yield the rows of a file in order; the ending of its name tells the form.

    Raises:
        FormatError: names file, line and field.
        DuplicateId: two lines have the same picture.
    """
    seen: dict[str, int] = {}
    read = _table_row if path.suffix == ".tsv" else _json_row
    for number, line in read_bytes(path):
        row = read(line, number, f"{path}:{number}")
        if (first := seen.setdefault(row[0], number)) != number:
            raise DuplicateId(f"{path}:{number}: the picture {row[0]} is already in line {first}.")
        yield row
    if not seen:
        raise FormatError(f"{path}: has no captions; expected one per line.")


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
    record = as_object(line, where)
    file = picture(record, where)
    return PurePosixPath(file).stem, file, text(record, "caption", where)
