"""Region features as tab-separated text: ten columns (LXMERT, Vilio), six (Caffe), two or three (VinVL).

Arrays are base64 of little-endian rows: int64 ids, float32 for everything else, boxes in pixels. Of the Caffe
layout mind the order: width before height. Files may be packed with gzip, lie in a ZIP, or fill a folder.
"""

import gzip
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import IO, Any, NoReturn

import numpy as np
from numpy import ndarray

from diptych.archives import guarded, require_plain
from diptych.errors import FormatError
from diptych.features.fields import Record, encode, record_of
from diptych.features.format import Entry, Format, Items, Sample, files_below
from diptych.features.vinvl import (
    BESIDE,
    INSIDE,
    LABELS,
    OSCAR,
    PREDICTIONS,
    VINVL,
    oscar_record,
    vinvl_record,
)
from diptych.files import atomic_file, require_file, reserved
from diptych.types import FeatureMeta

LXMERT = "img_id img_h img_w objects_id objects_conf attrs_id attrs_conf num_boxes boxes features"
CAFFE = "image_id image_w image_h num_boxes boxes features"
LAYOUTS = {len(layout.split()): layout for layout in (LXMERT, CAFFE, OSCAR)}
INTEGERS = ("objects_id", "attrs_id")
CELL = re.compile(rb'(?:"((?:[^"]|"")*+)"|([^\t]*+))(?:\t|$)')  # as the csv module writes one
LONGEST_LINE = 64 << 20
PACKED = 200  # times that a text of features shrinks at most; base64 of numbers shrinks by less than 2
ENDINGS = (".tsv", ".csv", ".txt", ".tsv.gz")  # of what lies in a ZIP
IN_FOLDER = (".tsv", ".tsv.gz")  # a folder of features may hold other texts


def tsv_entries(path: Path) -> Iterator[Entry]:
    """Lines that are not blank; the first one of a file settles which layout all have.

    In a folder, the files of labels and of predictions beside VinVL's features are passed over.
    """
    files = [one for one in _texts(path) if one.head]
    if not files:
        raise FormatError(f"{path}: the file is empty; expected lines of 10 columns: {LXMERT}.")
    features = [one for one in files if layout_of(one.head) not in BESIDE]
    files = features or files
    before, total = 0, sum(one.size for one in files)
    for one in files:
        layout = layout_of(one.head)
        for number, line, done in _lines(one):
            load = partial(_refuse, line) if isinstance(line, str) else partial(_row, line, layout)
            if isinstance(line, str) or (line and line != layout.replace(" ", "\t").encode()):
                yield Entry(None, load, before + done, total, number, one.name if len(files) > 1 else "")
        before += one.size


@dataclass(frozen=True, slots=True)
class _Text:
    """A file of lines, wherever it lies; `head` is its first line that is not blank."""

    name: str
    size: int
    open: Callable[[], IO[bytes]]
    head: bytes = b""


def _texts(path: Path) -> Iterator[_Text]:
    if path.is_dir():
        for file in files_below(path, ""):
            if file.name.lower().endswith(IN_FOLDER):
                yield from _texts(file)
        return
    with require_file(path, "a TSV").open("rb") as start:
        magic = start.read(4)
    found = []
    if magic == b"PK\3\4":
        with guarded(path, "a whole ZIP archive", named=True), zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                if member.filename.lower().endswith(ENDINGS):
                    require_plain(member, max(LONGEST_LINE, PACKED * member.compress_size))
                    found.append(
                        _Text(member.filename, member.file_size, partial(_open_member, path, member))
                    )
    else:
        packed = partial(gzip.open, path) if magic[:2] == b"\x1f\x8b" else partial(path.open, "rb", 1 << 20)
        found.append(_Text(path.name, path.stat().st_size, packed))  # type: ignore[arg-type]
    for one in found:
        number, head = next(((number, line) for number, line, _ in _lines(one) if line), (0, b""))
        if isinstance(head, str):
            raise FormatError(f"{path}: line {number}: {head}")
        yield replace(one, head=head)


def _open_member(path: Path, member: zipfile.ZipInfo) -> Any:
    return zipfile.ZipFile(path).open(member)


def _lines(text: _Text) -> Iterator[tuple[int, bytes | str, int]]:
    """Number, line and bytes so far; a text in place of the line says why it cannot be read."""
    number = done = 0
    long = False
    try:
        with text.open() as file:
            raw = file.fileobj if isinstance(file, gzip.GzipFile) else None
            unpacked = 0
            for line in iter(partial(file.readline, LONGEST_LINE), b""):
                unpacked += len(line)
                done = raw.tell() if raw else unpacked
                if raw and unpacked > max(LONGEST_LINE, PACKED * done):
                    raise ValueError(f"{unpacked:,} bytes in {done:,} are no features")
                number += not long
                again, long = long, not line.endswith(b"\n") and len(line) == LONGEST_LINE
                if again:
                    continue
                if long:
                    yield number, f"it is longer than {LONGEST_LINE >> 20} MB; is it a TSV?", done
                    continue
                line = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
                yield number, line.rstrip(b"\r\n"), done
    except (OSError, EOFError, zlib.error, zipfile.BadZipFile, RuntimeError, ValueError) as error:
        yield number + 1, f"the rest of {text.name} cannot be unpacked ({error}); copy it again.", done


def write_tsv(
    path: Path | str,
    items: Items,
    meta: FeatureMeta | None = None,
    *,
    overwrite: bool = False,
) -> None:
    """Write what the original loaders read.

    Missing classes, attributes and their confidences are written as zeros, as the originals do; soft classes
    have no column. Lines end in CRLF as those of Python's csv module.
    """
    with reserved(path, overwrite=overwrite, kind="a TSV of features"), atomic_file(path) as file:
        for key, regions in items:
            names, nothing = LXMERT.split(), np.zeros(len(regions), np.float32)
            record = record_of(key, regions, LXMERT) | {names[0]: _quoted(key)}
            cells = (_cell(name, record.get(name, nothing)) for name in names)
            file.write(b"\t".join(cells) + b"\r\n")


def layout_of(line: bytes) -> str:
    """The names of the columns, or a word for those with JSON inside; LXMERT's if unknown."""
    values = _columns(line)
    if len(values) in LAYOUTS:
        return LAYOUTS[len(values)]
    if len(values) == 2 and values[1][:1] in (b"{", b"["):
        return next((name for word, name in INSIDE if word in values[1]), LABELS)
    return LXMERT


def _columns(line: bytes) -> list[bytes]:
    if b'"' not in line or (line[:1] != b'"' and b'\t"' not in line):
        return line.split(b"\t")
    cells = [quoted.replace(b'""', b'"') or plain for quoted, plain in CELL.findall(line)]
    return cells if line.endswith(b"\t") or not cells else cells[:-1]  # the pattern finds an empty last one


def _row(line: bytes, layout: str) -> tuple[str, Record]:
    values = _columns(line)
    if len(values) == 2 and layout in (VINVL, PREDICTIONS, LABELS):
        return _key(values[0], "the id"), vinvl_record(values[1], layout)
    names = layout.split()
    if len(values) != len(names):
        other = "" if layout == CAFFE else f" (or {len(CAFFE.split())}: {CAFFE})"
        glued = ""
        if len(values) >= 2 * len(names) - 1:
            one, other = (cell.decode(errors="replace") for cell in (values[0], values[len(names) - 1][-12:]))
            glued = f" Two rows look glued together: of image {one!r:.80} and of one whose id ends {other!r}."
        raise FormatError(
            f"it has {len(values)} tab-separated columns; expected {len(names)}: {layout}{other}.{glued}"
        )
    record = dict(zip(names, values, strict=True))
    if layout == OSCAR:
        return _key(values[0], names[0]), oscar_record(record)
    return _key(values[0], names[0]), record


def _refuse(reason: str) -> NoReturn:
    raise FormatError(reason)


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


def _recognizes(sample: Sample) -> bool:
    """What is nothing else is taken for lines of text."""
    if sample.head is None:
        return any(file.name.lower().endswith(IN_FOLDER) for file in files_below(sample.path, ""))
    if sample.starts(b"PK"):
        return any(name.endswith(ENDINGS) for name in sample.members)
    return not sample.alone and not sample.packed


FORMAT = Format(
    recognizes=_recognizes,
    entries=tsv_entries,
    name="tsv",
    write=write_tsv,
)
