"""JSON lines of VL-BERT and MM-BERT: pictures in archives, captions in several languages, ambiguous words.

    {"image": "train_image.zip@/1007129816.jpg", "frcnn": "train_frcnn.zip@/1007129816.json",
     "caption_en": "a man in an orange hat", "caption_de": ["ein", "mann", "mit", "hut"]}

`ARCHIVE.zip@/NAME` is a member of an archive, which may also be unpacked; see `diptych.images`.
"""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from diptych.documents import parse_json, shorten
from diptych.errors import FormatError
from diptych.files import require_file

MAX_LINE = 1 << 16  # bytes; the longest official line has some 2,000
# MM-BERT has no files of 2017.
NAMES: Mapping[str, tuple[str, ...]] = {
    "train": ("train_frcnn.json", "train.json"),
    "val": ("val_frcnn.json", "val.json"),
    "test_2016_flickr": ("test_frcnn.json", "test.json"),
    "test_2018_flickr": ("test_frcnn2018.json",),
}


def fields(path: Path) -> frozenset[str]:
    """Names of the fields of the first record; none if the file does not hold JSON lines."""
    try:
        _, record = next(read_objects(path), (0, {}))
    except FormatError:
        return frozenset()
    return frozenset(record)


def find_lines(
    folders: Iterable[Path], names: Iterable[str], *, field: str, without: str = ""
) -> Path | None:
    """The first file with one of the names whose records have `field` and do not have `without`."""
    files = [folder / name for folder in folders for name in names]
    found = ((file, fields(file)) for file in files if file.is_file())
    return next((file for file, known in found if field in known and without not in known), None)


def read_columns(path: Path, wanted: Iterable[str]) -> dict[str, list[str]]:
    """The texts of all records by field. `image` is the path of the picture, below the folder of the file.

    Raises:
        FormatError: a field is missing, empty or no text; names file, line and field.
    """
    columns: dict[str, list[str]] = {name: [] for name in wanted}
    for number, record in read_objects(path):
        where = f"{path}:{number}"
        for name, column in columns.items():
            column.append(picture(record, where) if name == "image" else text(record, name, where))
    return columns


def read_objects(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Yield the records of a file with their lines, from 1.

    Raises:
        FormatError: a line is no JSON object; names file and line.
    """
    for number, line in read_bytes(path):
        yield number, as_object(line, f"{path}:{number}")


def read_bytes(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield the lines that are not blank, with their numbers from 1.

    Raises:
        FormatError: a line is too long for a caption.
    """
    with open(require_file(path, "a file of captions"), "rb") as file:
        for number, line in enumerate(iter(lambda: file.readline(MAX_LINE), b""), 1):
            if len(line) == MAX_LINE:
                raise FormatError(f"{path}:{number}: more than {MAX_LINE:,} bytes; expected a caption.")
            line = line.removeprefix(b"\xef\xbb\xbf" if number == 1 else b"").strip(b"\r\n")
            if line.strip():
                yield number, line


def as_object(line: bytes, where: str) -> Mapping[str, Any]:
    """One record.

    Raises:
        FormatError: the line is no JSON object.
    """
    record = parse_json(line, where=where, advice="Is the file cut off?")
    if not isinstance(record, dict):
        raise FormatError(f"{where}: got {shorten(record)}; expected an object with image and caption.")
    return record


def text(record: Mapping[str, Any], name: str, where: str) -> str:
    """A text, or a list of words joined by blanks.

    Raises:
        FormatError: it is missing, empty or something else.
    """
    value = record.get(name)
    words: list[Any] = value if isinstance(value, list) else [value]
    joined = " ".join(words).strip() if all(isinstance(word, str) for word in words) else ""
    if not joined:
        raise FormatError(f"{where}: {name} is {shorten(value)}; expected a list of words, or a text.")
    return joined


def picture(record: Mapping[str, Any], where: str) -> str:
    """Path of the picture below the folder of the file; of records without one, that of its regions.

    Raises:
        FormatError: it is missing, or leads out of the folder.
    """
    value = record.get("image", record.get("frcnn"))
    path = PurePosixPath(value) if isinstance(value, str) and value.isprintable() else None
    if path is None or not path.stem or path.is_absolute() or ".." in path.parts or path.name.endswith("@"):
        raise FormatError(f"{where}: image is {shorten(value)}; expected ARCHIVE.zip@/NAME or FOLDER/NAME.")
    return str(path)
