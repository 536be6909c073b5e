"""Region features as tab-separated text: ten columns (LXMERT, Vilio), six (Caffe), two or three (VinVL).

Arrays are base64 of little-endian rows: int64 for ids, float32 for everything else; boxes are in pixels. The
Caffe layout has the width before the height. Files may be compressed with gzip, lie in a ZIP or in a folder.
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
CELL = re.compile(
    rb'(?:"((?:[^"]|"")*+)"|([^\t]*+))(?:\t|$)'
)  # as the csv module writes it; possessive, so that a long cell does not backtrack
LONGEST_LINE = 64 << 20  # bytes
PACKED = 200  # compression ratio above which a file is a bomb; base64 of features has less than 2
ENDINGS = (".tsv", ".csv", ".txt", ".tsv.gz")  # of files in a ZIP
IN_FOLDER = (".tsv", ".tsv.gz")  # fewer: a folder of features may contain other text files


def tsv_entries(path: Path) -> Iterator[Entry]:
    """One entry per line that is not blank; the first one of a file determines the layout of all.

    In a folder, files of labels and predictions next to VinVL's features are skipped.
    """
    files = [file for file in _texts(path) if file.head]
    if not files:
        raise FormatError(f"{path}: the file is empty; expected lines of 10 columns: {LXMERT}.")
    features = [file for file in files if layout_of(file.head) not in BESIDE]
    files = features or files
    # Progress over all files in bytes; the number of lines is known only after reading them.
    before, total = 0, sum(file.size for file in files)
    for file in files:
        layout = layout_of(file.head)
        for number, line, done in _lines(file):
            load = partial(_refuse, line) if isinstance(line, str) else partial(_row, line, layout)
            # a header line has the names of the columns
            if isinstance(line, str) or (line and line != layout.replace(" ", "\t").encode()):
                yield Entry(None, load, before + done, total, number, file.name if len(files) > 1 else "")
        before += file.size


@dataclass(frozen=True, slots=True)
class _Text:
    """A text file on disk, in gzip or in a ZIP; `head` is its first line that is not blank."""

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
    texts = []
    if magic == b"PK\3\4":  # by content: files are often renamed
        with guarded(path, "a whole ZIP archive", named=True), zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                if member.filename.lower().endswith(ENDINGS):
                    require_plain(member, max(LONGEST_LINE, PACKED * member.compress_size))
                    texts.append(
                        _Text(member.filename, member.file_size, partial(_open_member, path, member))
                    )
    else:
        packed = partial(gzip.open, path) if magic[:2] == b"\x1f\x8b" else partial(path.open, "rb", 1 << 20)
        texts.append(_Text(path.name, path.stat().st_size, packed))  # type: ignore[arg-type]
    for text in texts:
        number, head = next(((number, line) for number, line, _ in _lines(text) if line), (0, b""))
        if isinstance(head, str):
            raise FormatError(f"{path}: line {number}: {head}")
        yield replace(text, head=head)


def _open_member(path: Path, member: zipfile.ZipInfo) -> Any:
    # A ZipFile of its own, because lines are read after the one that listed the members is closed.
    return zipfile.ZipFile(path).open(member)


def _lines(text: _Text) -> Iterator[tuple[int, bytes | str, int]]:
    """Line number, line and bytes so far; a `str` instead of the line is the reason it cannot be read."""
    number = done = 0
    long = False
    try:
        with text.open() as file:
            # progress in compressed bytes, as the unpacked size of a gzip file is not known
            raw = file.fileobj if isinstance(file, gzip.GzipFile) else None
            unpacked = 0
            for line in iter(partial(file.readline, LONGEST_LINE), b""):
                unpacked += len(line)
                done = raw.tell() if raw else unpacked
                if raw and unpacked > max(LONGEST_LINE, PACKED * done):
                    raise ValueError(f"{unpacked:,} bytes in {done:,} are no features")
                # `readline` returns a longer line in pieces: report the first piece, skip the others
                number += not long
                again, long = long, not line.endswith(b"\n") and len(line) == LONGEST_LINE
                if again:
                    continue
                if long:
                    yield number, f"it is longer than {LONGEST_LINE >> 20} MB; expected a TSV.", done
                    continue
                line = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
                yield number, line.rstrip(b"\r\n"), done
    except (OSError, EOFError, zlib.error, zipfile.BadZipFile, RuntimeError, ValueError) as error:
        yield number + 1, f"the rest of {text.name} cannot be decompressed ({error}); copy it again.", done


def write_tsv(
    path: Path | str,
    items: Items,
    meta: FeatureMeta | None = None,
    *,
    overwrite: bool = False,
) -> None:
    """Write a TSV of ten columns for the loaders of LXMERT and Vilio.

    Missing classes, attributes and their confidences are written as zeros, as the originals do. Class
    probabilities have no column and are lost. Lines end in CRLF, as Python's csv module writes them.

    Raises:
        ConfigError: `path` must be kept.
        FormatError: a key is empty or has a line break.
    """
    with reserved(path, overwrite=overwrite, kind="a TSV of features"), atomic_file(path) as file:
        for key, regions in items:
            names, nothing = LXMERT.split(), np.zeros(len(regions), np.float32)
            record = record_of(key, regions, LXMERT) | {names[0]: _quoted(key)}
            cells = (_cell(name, record.get(name, nothing)) for name in names)
            file.write(b"\t".join(cells) + b"\r\n")


def layout_of(line: bytes) -> str:
    """The column names of a line, or a name for a layout with JSON; LXMERT's columns if it is unknown."""
    values = _columns(line)
    if len(values) in LAYOUTS:
        return LAYOUTS[len(values)]
    if len(values) == 2 and values[1][:1] in (b"{", b"["):
        return next((name for word, name in INSIDE if word in values[1]), LABELS)
    return LXMERT


def _columns(line: bytes) -> list[bytes]:
    # quotes matter at the start of a cell only; the pattern is much slower than `split`
    if b'"' not in line or (line[:1] != b'"' and b'\t"' not in line):
        return line.split(b"\t")
    cells = [quoted.replace(b'""', b'"') or plain for quoted, plain in CELL.findall(line)]
    return cells if line.endswith(b"\t") or not cells else cells[:-1]  # the pattern also matches at the end


def _row(line: bytes, layout: str) -> tuple[str, Record]:
    values = _columns(line)
    if len(values) == 2 and layout in (VINVL, PREDICTIONS, LABELS):
        return _key(values[0], "the id"), vinvl_record(values[1], layout)
    names = layout.split()
    if len(values) != len(names):
        other = "" if layout == CAFFE else f" (or {len(CAFFE.split())}: {CAFFE})"
        glued = ""
        if len(values) >= 2 * len(names) - 1:
            # the last cell of the first row ends in the id of the second
            first, end = (cell.decode(errors="replace") for cell in (values[0], values[len(names) - 1][-12:]))
            glued = (
                f" Two rows look glued together: image {first!r:.80}, and an image whose id ends in {end!r}."
            )
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
    """The id, without the `b'...'` of writers that stored str(bytes)."""
    try:
        key = text.decode()
    except UnicodeDecodeError:
        raise FormatError(f"{column} is {text[:40]!r}; expected UTF-8.") from None
    # two characters are too short for a wrapped id: `b'` alone is an id
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
    """The id as Python's csv module writes it: quoted if it has a tab or quotes."""
    if "\n" in key or "\r" in key or not key:
        raise FormatError(f"image {key!r}: an id in a TSV must not be empty or contain a line break.")
    return '"' + key.replace('"', '""') + '"' if "\t" in key or '"' in key else key


def _recognizes(sample: Sample) -> bool:
    """Accept everything that is not recognizably something else; its lines show whether it is a TSV."""
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
