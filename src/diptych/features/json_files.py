"""One JSON per image, in a folder (nav13n, VL-BERT) or a ZIP (VL-BERT, MM-BERT): arrays are base64 texts."""

import json
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from numpy import ndarray

from diptych.errors import FormatError
from diptych.features.folder import file_for, files_below, member_name
from diptych.features.reading import Entry
from diptych.features.record import Record, encode, record_of
from diptych.files import atomic_file, atomic_folder, reserved
from diptych.types import FeatureMeta, Regions

VLBERT = (
    "image_id image_w image_h num_boxes boxes classes features objects_id objects_conf attrs_id attrs_conf"
)
NAV13N = "img_id img_h img_w objects_id objects_conf num_boxes boxes features attrs_id attrs_conf cls_prob"
LISTS = ("objects_id", "objects_conf")  # which nav13n writes as lists
LONGEST = 256 << 20


def json_entries(path: Path) -> Iterator[Entry]:
    files = files_below(path, ".json")
    for number, file in enumerate(files, 1):
        key = file.relative_to(path).with_suffix("").as_posix()
        yield Entry(key, partial(_file, key, file), number, len(files))


def zip_entries(path: Path) -> Iterator[Entry]:
    try:
        with zipfile.ZipFile(path) as archive:
            members = [member for member in archive.infolist() if member.filename.endswith(".json")]
            for number, member in enumerate(members, 1):
                key = member.filename.removesuffix(".json")
                yield Entry(key, partial(_member, archive, member, key), number, len(members))
    except zipfile.BadZipFile as error:
        raise FormatError(f"{path}: not a whole ZIP ({error}); copy it again.") from error


def write_vlbert(
    path: Path, items: Iterable[tuple[str, Regions]], meta: FeatureMeta, *, overwrite: bool = False
) -> None:
    with atomic_folder(path, kind="a folder of features", overwrite=overwrite) as folder:
        for key, regions in items:
            file_for(folder, key, ".json").write_bytes(_vlbert(key, regions))


def write_zip(
    path: Path, items: Iterable[tuple[str, Regions]], meta: FeatureMeta, *, overwrite: bool = False
) -> None:
    whole = reserved(path, overwrite=overwrite, kind="a ZIP of JSON")
    with whole, atomic_file(path) as file, zipfile.ZipFile(file, "w") as archive:
        for key, regions in items:
            # a member without a date, so that equal features give equal files
            archive.writestr(zipfile.ZipInfo(f"{member_name(key)}.json"), _vlbert(key, regions))


def write_nav13n(
    path: Path, items: Iterable[tuple[str, Regions]], meta: FeatureMeta, *, overwrite: bool = False
) -> None:
    with atomic_folder(path, kind="a folder of features", overwrite=overwrite) as folder:
        for key, regions in items:
            record = record_of(key, regions, NAV13N)
            lists = {name: record[name].tolist() for name in LISTS if name in record}
            if regions.labels is not None and max(regions.labels, default=0) < len(meta.classes):
                lists["objects"] = [meta.classes[label] for label in regions.labels]
            file_for(folder, key, ".json").write_bytes(_dumped(record | lists))


def _vlbert(key: str, regions: Regions) -> bytes:
    return _dumped(record_of(key, regions, VLBERT))


def _dumped(record: dict[str, Any]) -> bytes:
    return json.dumps(record, default=_text).encode()


def _text(value: ndarray) -> str:
    return encode(value).decode()


def _file(key: str, file: Path) -> tuple[str, Record]:
    _require_short(file.stat().st_size, file.name)
    return key, _parsed(file.read_bytes(), file.name)


def _member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, key: str) -> tuple[str, Record]:
    _require_short(member.file_size, member.filename)
    try:
        return key, _parsed(archive.read(member), member.filename)
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError) as error:
        raise FormatError(f"member {member.filename} cannot be read ({error}).") from error


def _require_short(size: int, name: str) -> None:
    if size > LONGEST:
        raise FormatError(f"{name} is larger than {LONGEST >> 20} MB; is it the JSON of one image?")


def _parsed(data: bytes, name: str) -> Record:
    try:
        record = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{name} is not a whole JSON ({error}).") from error
    if not isinstance(record, dict):
        raise FormatError(
            f"{name} holds a {type(record).__name__}; expected an object with boxes and features."
        )
    return record
