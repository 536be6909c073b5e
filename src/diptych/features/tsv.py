"""Region features as tab-separated text, the layout of LXMERT and Vilio, into a store and back.

No header, ten columns: img_id img_h img_w objects_id objects_conf attrs_id attrs_conf num_boxes boxes
features. Arrays are base64 of little-endian rows: int64 ids, float32 for everything else, boxes in pixels.
"""

import binascii
import re
from collections import Counter
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy import ndarray

from diptych.errors import ConfigError, FormatError, nearest
from diptych.files import atomic_file, require_new
from diptych.types import Regions

LAYOUT = "img_id img_h img_w objects_id objects_conf attrs_id attrs_conf num_boxes boxes features"
COLUMNS = tuple(LAYOUT.split())
ARRAYS = {  # column: field of Regions, type
    "objects_id": ("labels", "<i8"),
    "objects_conf": ("scores", "<f4"),
    "attrs_id": ("attributes", "<i8"),
    "attrs_conf": ("attribute_scores", "<f4"),
    "boxes": ("boxes", "<f4"),
    "features": ("features", "<f4"),
}
QUOTED_ID = re.compile(rb'"((?:[^"]|"")*+)"\t')  # as the csv module writes an id with a tab or a quote
LONGEST_LINE = 256 << 20
PROBED_ROWS = 64

OnError = Literal["raise", "skip", "truncate"]
BoxPolicy = Literal["check", "clip"]


@dataclass(frozen=True, slots=True)
class Fault:
    """A row that was not taken as it stands."""

    line: int
    id: str
    reason: str

    def __str__(self) -> str:
        return (
            f"line {self.line}, image {self.id!r}: {self.reason}"
            if self.id
            else f"line {self.line}: {self.reason}"
        )


@dataclass(slots=True)
class TsvLog:
    """What `read_tsv` has met: rows left out, rows cut to their boxes, and how far it is."""

    skipped: list[Fault] = field(default_factory=list)
    truncated: list[Fault] = field(default_factory=list)
    line: int = 0
    bytes_read: int = 0


def read_tsv(
    path: Path | str,
    *,
    on_error: OnError = "raise",
    boxes: BoxPolicy = "check",
    feature_dim: int | None = None,
    done: Container[str] = (),
    log: TsvLog | None = None,
) -> Iterator[tuple[str, Regions]]:
    """Keys and regions, row by row.

    Args:
        on_error: `raise` at the first bad row; `skip` bad rows; or `truncate` arrays that are longer than
            `boxes` (a known defect of one extractor, which drops an empty box but not its features) and raise
            at all else.
        boxes: `check` that boxes lie within the image, give or take a pixel, or `clip` them to it.
        feature_dim: width of the features; None takes what most of the first rows agree on.
        done: keys to pass over undecoded.
        log: is told of skipped and truncated rows.

    Raises:
        FormatError: file, line, image and what is wrong.
    """
    for name, got, allowed in (("on_error", on_error, OnError), ("boxes", boxes, BoxPolicy)):
        if got not in get_args(allowed):
            known = get_args(allowed)
            raise ConfigError(f"{name} is {got!r}; expected one of {', '.join(known)}.{nearest(got, known)}")
    log = TsvLog() if log is None else log
    width = feature_dim or feature_width(path)
    seen: set[str] = set()
    for line in _lines(Path(path), log):
        key = ""
        try:
            row = _columns(line)
            key = _key(row["img_id"])
            if key in done:
                continue
            if key in seen:
                raise FormatError("the id occurs a second time; expected every id once.")
            regions, surplus = _regions(row, width, truncate=on_error == "truncate")
            regions = _clipped(regions) if boxes == "clip" else regions
            regions.verify()
        except FormatError as error:
            fault = Fault(log.line, key, str(error))
            if on_error != "skip":
                raise FormatError(f"{path}: {fault} Leave such rows out with on_error=skip.") from error
            log.skipped.append(fault)
            continue
        if surplus:
            log.truncated.append(Fault(log.line, key, surplus))
        seen.add(key)
        yield key, regions


def write_tsv(path: Path | str, items: Iterable[tuple[str, Regions]], *, overwrite: bool = False) -> int:
    """Write what `read_tsv` and the original loaders read; returns the number of images.

    Missing classes, attributes and their confidences are written as zeros, as the originals do; soft classes
    have no column. Lines end in CRLF as those of Python's csv module.
    """
    require_new(path, overwrite=overwrite)
    images = 0
    with atomic_file(path) as file:
        for key, regions in items:
            file.write(b"\t".join(_row(key, regions)) + b"\r\n")
            images += 1
    return images


def feature_width(path: Path | str) -> int:
    """Width of the features: what most of the first rows agree on, so that one bad row does not decide.

    Raises:
        FormatError: none of them has as many features as boxes.
    """
    log = TsvLog()
    widths: Counter[int] = Counter()
    first: Fault | None = None
    for line in islice(_lines(Path(path), log), PROBED_ROWS):
        try:
            row = _columns(line)
            boxes = len(_array(row, "boxes")) // 4
            numbers = len(_array(row, "features"))
            if boxes and numbers and numbers % boxes == 0:
                widths[numbers // boxes] += 1
        except FormatError as error:
            first = first or Fault(log.line, "", str(error))
    if widths:
        return widths.most_common(1)[0][0]
    if first:
        raise FormatError(f"{path}: {first}")
    if not log.line:
        raise FormatError(f"{path}: the file is empty; expected lines of {len(COLUMNS)} columns: {LAYOUT}.")
    raise FormatError(
        f"{path}: no row with boxes and as many features among the first {log.line}; if images without "
        "boxes come first, say how wide features are with feature_dim."
    )


def _lines(path: Path, log: TsvLog) -> Iterator[bytes]:
    """Lines that are not blank; `log` follows."""
    if not path.is_file():
        what = "this is a folder; expected a TSV" if path.is_dir() else "there is no such file"
        raise FormatError(f"{path}: {what}.")
    with path.open("rb", buffering=1 << 20) as file:
        while line := file.readline(LONGEST_LINE):
            log.line += 1
            log.bytes_read += len(line)
            if len(line) == LONGEST_LINE:
                raise FormatError(
                    f"{path}: line {log.line} is longer than {LONGEST_LINE >> 20} MB; is it a TSV?"
                )
            line = line.removeprefix(b"\xef\xbb\xbf") if log.line == 1 else line
            if line := line.rstrip(b"\r\n"):
                yield line


def _columns(line: bytes) -> dict[str, bytes]:
    if quoted := QUOTED_ID.match(line):
        values = [quoted[1].replace(b'""', b'"'), *line[quoted.end() :].split(b"\t")]
    else:
        values = line.split(b"\t")
    if len(values) != len(COLUMNS):
        raise FormatError(f"it has {len(values)} tab-separated columns; expected {len(COLUMNS)}: {LAYOUT}.")
    return dict(zip(COLUMNS, values, strict=True))


def _key(text: bytes) -> str:
    """The id, unwrapped where a writer left the Python form of bytes (`b'00625'`) in the file."""
    try:
        key = text.decode()
    except UnicodeDecodeError:
        raise FormatError(f"img_id is {text[:40]!r}; expected UTF-8.") from None
    if len(key) > 2 and key[:2] in ("b'", 'b"') and key[-1] == key[1]:
        key = key[2:-1]
    if not key:
        raise FormatError("img_id is empty.")
    return key


def _regions(row: dict[str, bytes], width: int, *, truncate: bool) -> tuple[Regions, str]:
    """The regions of a row, and what was cut off it, if anything."""
    height_width = _whole(row, "img_h"), _whole(row, "img_w")
    arrays = {column: _array(row, column) for column in ARRAYS}
    arrays["boxes"] = _rows_of(arrays["boxes"], "boxes", 4)
    arrays["features"] = _rows_of(arrays["features"], "features", width)
    counts = {"num_boxes": _whole(row, "num_boxes")} | {name: len(value) for name, value in arrays.items()}
    count, surplus = counts["boxes"], ""
    if len(set(counts.values())) > 1:
        got = ", ".join(f"{name} {number}" for name, number in counts.items())
        if not truncate or min(counts.values()) < count:
            raise FormatError(
                f"the counts disagree: {got}; expected one of each per box. Where only arrays are longer "
                "than boxes, on_error=truncate cuts them."
            )
        surplus = f"cut to {count} boxes: {got}"
        arrays = {name: value[:count] for name, value in arrays.items()}
    fields = {ARRAYS[column][0]: value for column, value in arrays.items()}
    return Regions(size=height_width[::-1], **fields), surplus


def _whole(row: dict[str, bytes], column: str) -> int:
    """A whole number, also where it is written as a float (`36.0`)."""
    try:
        number = float(row[column])
        if number.is_integer():
            return int(number)
    except ValueError:
        pass
    raise FormatError(f"{column} is {row[column][:40].decode(errors='replace')!r}; expected a whole number.")


def _array(row: dict[str, bytes], column: str) -> ndarray:
    try:
        data = binascii.a2b_base64(row[column], strict_mode=True)
        return np.frombuffer(data, ARRAYS[column][1])
    except binascii.Error as error:
        raise FormatError(f"{column} is not base64 ({error}); expected the bytes of an array.") from None
    except ValueError:
        raise FormatError(
            f"{column} holds {len(data)} bytes; expected a whole number of {ARRAYS[column][1]} values."
        ) from None


def _rows_of(values: ndarray, column: str, width: int) -> ndarray:
    if len(values) % width:
        raise FormatError(f"{column} holds {len(values)} numbers; expected a multiple of {width}.")
    return values.reshape(-1, width)


def _clipped(regions: Regions) -> Regions:
    corner = np.array(regions.size * 2, np.float32)
    return replace(regions, boxes=np.clip(regions.boxes, 0, corner))


def _row(key: str, regions: Regions) -> Iterator[bytes]:
    width, height = regions.size
    scalars = {"img_id": _quoted(key), "img_h": height, "img_w": width, "num_boxes": len(regions)}
    for column in COLUMNS:
        if column in scalars:
            yield str(scalars[column]).encode()
        else:
            name, dtype = ARRAYS[column]
            value = getattr(regions, name)
            value = np.zeros(len(regions)) if value is None else value
            yield binascii.b2a_base64(value.astype(dtype).tobytes(), newline=False)


def _quoted(key: str) -> str:
    """The id as Python's csv module writes it."""
    if "\n" in key or "\r" in key or not key:
        raise FormatError(f"image {key!r}: an id in a TSV must not be empty or hold a line break.")
    return '"' + key.replace('"', '""') + '"' if "\t" in key or '"' in key else key
