"""One JSON per image, in a folder (nav13n, VL-BERT) or a ZIP (VL-BERT, MM-BERT): arrays are base64 texts."""

import json
import zipfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from numpy import ndarray

from diptych.archives import guarded, require_plain
from diptych.documents import parse_json
from diptych.errors import FormatError
from diptych.features.fields import Record, encode, record_of
from diptych.features.folder import file_for, files_below, member_name, write_files
from diptych.features.format import Entry, Format, Items
from diptych.files import atomic_file, require_file, reserved
from diptych.types import FeatureMeta, Regions

VLBERT = (
    "image_id image_w image_h num_boxes boxes classes features objects_id objects_conf attrs_id attrs_conf"
)
NAV13N = "img_id img_h img_w objects_id objects_conf num_boxes boxes features attrs_id attrs_conf cls_prob"
LISTS = ("objects_id", "objects_conf")  # which nav13n writes as lists
LONGEST = 32 << 20  # bytes of one image; as Python values they may take thirty times as much


def json_entries(path: Path) -> Iterator[Entry]:
    """Every JSON below a folder."""
    files = files_below(path, ".json")
    for number, file in enumerate(files, 1):
        key = file.relative_to(path).with_suffix("").as_posix()
        yield Entry(key, partial(_file, key, file), number, len(files))


def zip_entries(path: Path) -> Iterator[Entry]:
    """Every JSON in a ZIP."""
    with guarded(path, "a whole ZIP archive"):
        archive = zipfile.ZipFile(path)
    with archive:
        members = [member for member in archive.infolist() if member.filename.endswith(".json")]
        for number, member in enumerate(members, 1):
            key = member.filename.removesuffix(".json")
            yield Entry(key, partial(_member, archive, member, key), number, len(members))


def write_vlbert(path: Path, items: Items, meta: FeatureMeta, *, overwrite: bool = False) -> None:
    """A folder of JSON, as VL-BERT reads it."""

    def write(folder: Path, key: str, regions: Regions) -> None:
        file_for(folder, key, ".json").write_bytes(_vlbert(key, regions))

    write_files(path, items, write, overwrite=overwrite)


def write_zip(path: Path, items: Items, meta: FeatureMeta, *, overwrite: bool = False) -> None:
    """A ZIP of JSON, as VL-BERT reads it."""
    whole = reserved(path, overwrite=overwrite, kind="a ZIP of JSON")
    with whole, atomic_file(path) as file, zipfile.ZipFile(file, "w") as archive:
        for key, regions in items:
            # a member without a date, so that equal features give equal files
            archive.writestr(zipfile.ZipInfo(f"{member_name(key)}.json"), _vlbert(key, regions))


def write_nav13n(path: Path, items: Items, meta: FeatureMeta, *, overwrite: bool = False) -> None:
    """A folder of JSON, as nav13n reads it: some arrays are lists, objects are named."""

    def write(folder: Path, key: str, regions: Regions) -> None:
        record = record_of(key, regions, NAV13N)
        lists = {name: record[name].tolist() for name in LISTS if name in record}
        if regions.labels is not None and max(regions.labels, default=0) < len(meta.classes):
            lists["objects"] = [meta.classes[label] for label in regions.labels]
        file_for(folder, key, ".json").write_bytes(_dumped(record | lists))

    write_files(path, items, write, overwrite=overwrite)


def _vlbert(key: str, regions: Regions) -> bytes:
    return _dumped(record_of(key, regions, VLBERT))


def _dumped(record: dict[str, Any]) -> bytes:
    return json.dumps(record, default=_text).encode()


def _text(value: ndarray) -> str:
    return encode(value).decode()


def _file(key: str, file: Path) -> tuple[str, Record]:
    with (
        guarded(file.name, "a whole JSON file", named=True),
        require_file(file, "the JSON of one image").open("rb") as stream,
    ):
        return key, parse_record(stream.read(LONGEST + 1), file.name)


def _member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, key: str) -> tuple[str, Record]:
    with guarded("its member", "whole", named=True):
        require_plain(member, LONGEST)
        data = archive.read(member)
    return key, parse_record(data, member.filename)


def parse_record(data: bytes, name: str) -> Record:
    """The JSON object of one image."""
    if len(data) > LONGEST:
        raise FormatError(f"{name} has more than {LONGEST:,} bytes; is it the JSON of one image?.")
    record = parse_json(data, where=name)
    if not isinstance(record, dict):
        raise FormatError(
            f"{name} holds a {type(record).__name__}; expected an object with boxes and features."
        )
    return record


FOLDER = Format(
    recognizes=lambda sample: sample.holds(".json", b"{", b'"features"'),
    entries=json_entries,
    writers={"vlbert-json": write_vlbert, "nav13n-json": write_nav13n},
)
ZIP = Format(
    recognizes=lambda sample: any(name.endswith(".json") for name in sample.members),
    entries=zip_entries,
    writers={"vlbert-zip": write_zip},
)
