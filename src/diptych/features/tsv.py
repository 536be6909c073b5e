"""Region features as tab-separated text without a header: ten columns (LXMERT, Vilio) or six (Caffe).

Arrays are base64 of little-endian rows: int64 ids, float32 for everything else, boxes in pixels. Of the Caffe
layout mind the order: width before height.
"""

import re
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
from numpy import ndarray

from diptych.errors import FormatError
from diptych.features.reading import Entry
from diptych.features.record import Record, encode, record_of
from diptych.files import atomic_file, reserved
from diptych.types import FeatureMeta, Regions

LXMERT = "img_id img_h img_w objects_id objects_conf attrs_id attrs_conf num_boxes boxes features"
CAFFE = "image_id image_w image_h num_boxes boxes features"
LAYOUTS = {len(layout.split()): layout for layout in (LXMERT, CAFFE)}
INTEGERS = ("objects_id", "attrs_id")
QUOTED_ID = re.compile(rb'"((?:[^"]|"")*+)"\t')  # as the csv module writes an id with a tab or a quote
LONGEST_LINE = 256 << 20


def tsv_entries(path: Path) -> Iterator[Entry]:
    """Lines that are not blank; the first one settles which layout all have."""
    if not path.is_file():
        what = "this is a folder; expected a TSV" if path.is_dir() else "there is no such file"
        raise FormatError(f"{path}: {what}.")
    layout, done, total = LXMERT, 0, path.stat().st_size
    first = True
    with path.open("rb", buffering=1 << 20) as file:
        for number, line in enumerate(iter(partial(file.readline, LONGEST_LINE), b""), 1):
            done += len(line)
            if len(line) == LONGEST_LINE:
                raise FormatError(
                    f"{path}: line {number} is longer than {LONGEST_LINE >> 20} MB; is it a TSV?"
                )
            line = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
            if not (line := line.rstrip(b"\r\n")):
                continue
            if first:
                layout, first = LAYOUTS.get(len(_columns(line)), LXMERT), False
            yield Entry(None, partial(_row, line, layout), done, total, number)
    if first:
        raise FormatError(f"{path}: the file is empty; expected lines of 10 columns: {LXMERT}.")


def write_tsv(
    path: Path | str,
    items: Iterable[tuple[str, Regions]],
    meta: FeatureMeta | None = None,
    *,
    overwrite: bool = False,
    layout: str = LXMERT,
) -> None:
    """Write what the original loaders read.

    Missing classes, attributes and their confidences are written as zeros, as the originals do; soft classes
    have no column. Lines end in CRLF as those of Python's csv module.
    """
    with reserved(path, overwrite=overwrite, kind="a TSV of features"), atomic_file(path) as file:
        for key, regions in items:
            names, nothing = layout.split(), np.zeros(len(regions), np.float32)
            record = record_of(key, regions, layout) | {names[0]: _quoted(key)}
            cells = (_cell(name, record.get(name, nothing)) for name in names)
            file.write(b"\t".join(cells) + b"\r\n")


def _columns(line: bytes) -> list[bytes]:
    if quoted := QUOTED_ID.match(line):
        return [quoted[1].replace(b'""', b'"'), *line[quoted.end() :].split(b"\t")]
    return line.split(b"\t")


def _row(line: bytes, layout: str) -> tuple[str, Record]:
    values, names = _columns(line), layout.split()
    if len(values) != len(names):
        other = "" if layout == CAFFE else f" (or {len(CAFFE.split())}: {CAFFE})"
        raise FormatError(
            f"it has {len(values)} tab-separated columns; expected {len(names)}: {layout}{other}."
        )
    record = dict(zip(names, values, strict=True))
    return _key(values[0], names[0]), record


def _key(text: bytes, column: str) -> str:
    """The id, unwrapped where a writer left the Python form of bytes (`b'00625'`) in the file."""
    try:
        key = text.decode()
    except UnicodeDecodeError:
        raise FormatError(f"{column} is {text[:40]!r}; expected UTF-8.") from None
    if len(key) > 2 and key[:2] in ("b'", 'b"') and key[-1] == key[1]:
        key = key[2:-1]
    if not key:
        raise FormatError(f"{column} is empty.")
    return key


def _cell(name: str, value: object) -> bytes:
    if not isinstance(value, ndarray):
        return str(value).encode()
    return encode(value.astype("<i8") if name in INTEGERS else value)


def _quoted(key: str) -> str:
    """The id as Python's csv module writes it."""
    if "\n" in key or "\r" in key or not key:
        raise FormatError(f"image {key!r}: an id in a TSV must not be empty or hold a line break.")
    return '"' + key.replace('"', '""') + '"' if "\t" in key or '"' in key else key
