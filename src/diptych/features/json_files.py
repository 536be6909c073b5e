"""Reads one JSON file per image from a folder (nav13n, VL-BERT) or a ZIP (VL-BERT, MM-BERT)."""

import zipfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from diptych.archives import guarded, require_plain
from diptych.documents import parse_json
from diptych.errors import FormatError
from diptych.features.fields import Record
from diptych.features.format import Entry, Format, files_below
from diptych.files import require_file

LONGEST = 32 << 20  # bytes of JSON per image; as Python values they may need thirty times as much memory


def json_entries(path: Path) -> Iterator[Entry]:
    """One entry per JSON file below a folder."""
    files = files_below(path, ".json")
    for number, file in enumerate(files, 1):
        key = file.relative_to(path).with_suffix("").as_posix()
        yield Entry(key, partial(_file, key, file), number, len(files))


def zip_entries(path: Path) -> Iterator[Entry]:
    """One entry per JSON file in a ZIP."""
    with guarded(path, "a whole ZIP archive"):
        archive = zipfile.ZipFile(path)
    with archive:
        members = [member for member in archive.infolist() if member.filename.endswith(".json")]
        for number, member in enumerate(members, 1):
            key = member.filename.removesuffix(".json")
            yield Entry(key, partial(_member, archive, member, key), number, len(members))


def _file(key: str, file: Path) -> tuple[str, Record]:
    with (
        guarded(file.name, "a whole JSON file", named=True),
        require_file(file, "the JSON of one image").open("rb") as stream,
    ):
        # One byte more than allowed, which shows that there is more.
        return key, parse_record(stream.read(LONGEST + 1), file.name)


def _member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, key: str) -> tuple[str, Record]:
    with guarded("its member", "whole", named=True):
        require_plain(member, LONGEST)  # before unpacking: the ZIP may be a bomb
        data = archive.read(member)
    return key, parse_record(data, member.filename)


def parse_record(data: bytes, name: str) -> Record:
    """Parse the JSON object of one image; `name` is used in error messages."""
    if len(data) > LONGEST:
        raise FormatError(f"{name} has more than {LONGEST:,} bytes; expected the JSON of one image.")
    record = parse_json(data, where=name)
    if not isinstance(record, dict):
        raise FormatError(
            f"{name} holds a {type(record).__name__}; expected an object with boxes and features."
        )
    return record


FOLDER = Format(
    recognizes=lambda sample: sample.holds(".json", b"{", b'"features"'),
    entries=json_entries,
)
ZIP = Format(
    recognizes=lambda sample: any(name.endswith(".json") for name in sample.members),
    entries=zip_entries,
)
