"""Files of RefCOCO: the pickle of referring expressions, COCO's boxes, detections, and results."""

from collections.abc import Iterator
from io import BytesIO
from math import isfinite
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32
from numpy import ndarray

from diptych.datasets.json_records import Record, read_members
from diptych.documents import shorten
from diptych.errors import FormatError
from diptych.files import require_file
from diptych.pickles import read_pickle

MAX_BYTES = 256 << 20  # of a pickle; the official ones have some 40 million
TEXTS = ("tokens", "sent", "raw")
Box = tuple[float, float, float, float]


class Sentence(NamedTuple):
    """One expression, the annotation that it refers to, and the split of the reference."""

    ref_id: int
    sent_id: int
    text: str
    annotation: int
    image: int
    split: str
    where: str


class Instances(NamedTuple):
    """COCO's annotations.

    Args:
        sizes: width and height of each picture.
        boxes: picture and box x1 y1 x2 y2 of each annotation, in the order of the file.
    """

    sizes: dict[int, tuple[int, int]]
    boxes: dict[int, tuple[int, Box]]


def read_refs(path: Path, text: str) -> Iterator[Sentence]:
    """Yield the sentences of a pickle of references, without executing anything that it names.

    Args:
        text: which form of a sentence is its text: `tokens` joined with spaces, as in VL-BERT; `sent`, the
            cleaned sentence; or `raw`, as people typed it.

    Raises:
        FormatError: names the file, the place of the reference and the field.
    """
    size = require_file(path, "a pickle of references").stat().st_size
    # Before it is read: the reader holds the whole file.
    if size > MAX_BYTES:
        raise FormatError(f"{path}: {size:,} bytes; expected at most {MAX_BYTES:,}.")
    stream = BytesIO(path.read_bytes())
    try:
        refs = read_pickle(stream)
    except FormatError as error:
        raise FormatError(f"{path}: not a pickle of plain values: {error}") from error
    # A pickle ends itself, so bytes may follow it that nobody has looked at.
    if stream.read(1) or not isinstance(refs, list):
        got = "more than one value" if isinstance(refs, list) else shorten(refs)
        raise FormatError(f"{path}: it holds {got}; expected one list of references.")
    for place, value in enumerate(refs):
        ref = Record(value, f"{path}: reference {place}")
        about = {name: ref.number(name) for name in ("ref_id", "ann_id", "image_id")}
        ref.where = f"{path}: ref_id {about['ref_id']}"
        split = ref.text("split")
        for one in ref.items("sentences"):
            sentence = Record(one, f"{ref.where}: a sentence")
            yield Sentence(
                ref_id=about["ref_id"],
                sent_id=sentence.number("sent_id"),
                text=_text(sentence, text),
                annotation=about["ann_id"],
                image=about["image_id"],
                split=split,
                where=ref.where,
            )


def _text(sentence: Record, form: str) -> str:
    if form != "tokens":
        return sentence.text(form)
    tokens = sentence.items("tokens")
    if not all(isinstance(token, str) for token in tokens):
        raise FormatError(f"{sentence.where}: `tokens` is {shorten(tokens)}; expected a list of words.")
    return sentence.clean(" ".join(tokens), "tokens")


def read_instances(path: Path) -> Instances:
    """Read sizes and boxes of COCO's annotations.

    Raises:
        FormatError: names the file, the id and the field.
    """
    found = Instances({}, {})
    for member, value in read_members(path, lists=("images", "annotations")):
        record = (
            Record(value, f"{path}: a record of `{member}`") if member in ("images", "annotations") else None
        )
        if record is None:
            continue
        record.where = f"{path}: `{member}`, id {record.number('id')}"
        if member == "images":
            found.sizes[record.number("id")] = record.number("width"), record.number("height")
        else:
            corners = _corners(record, "bbox")
            found.boxes[record.number("id")] = record.number("image_id"), corners
    return found


def read_detections(path: Path) -> dict[int, list[Box]]:
    """Read boxes by picture: a list of detections, or an object with the list `dets`.

    Raises:
        FormatError: names the file, the place of the detection and the field.
    """
    found: dict[int, list[Box]] = {}
    for place, (member, value) in enumerate(read_members(path, lists=("dets",))):
        # In the form of an object, other members lie beside the list.
        if isinstance(member, str) and member != "dets":
            continue
        record = Record(value, f"{path}: detection {place}")
        found.setdefault(record.number("image_id"), []).append(_corners(record, "box"))
    return found


def read_results(path: Path) -> Iterator[tuple[int, int | None, Box]]:
    """Yield reference, sentence (None if the file does not tell) and box x1 y1 x2 y2 of a result file.

    Raises:
        FormatError: names the file, the place of the record and the field.
    """
    for place, (_, value) in enumerate(read_members(path)):
        record = Record(value, f"{path}: record {place}")
        sentence = None if record.value.get("sent_id") is None else record.number("sent_id")
        yield record.number("ref_id"), sentence, _four(record, "box", "x1 y1 x2 y2")


def _corners(record: Record, name: str) -> Box:
    x, y, width, height = _four(record, name, "x y width height")
    if width < 0 or height < 0:
        raise FormatError(f"{record.where}: `{name}` is {width:g} x {height:g}; expected sizes from 0.")
    # COCO's files have sizes, all boxes of diptych corners.
    return x, y, x + width, y + height


def _four(record: Record, name: str, meaning: str) -> Box:
    values: list[Any] = record.items(name)
    # True is an int in Python, and its JSON reader accepts NaN.
    plain = all(isinstance(one, int | float) and not isinstance(one, bool) for one in values)
    if len(values) != 4 or not plain or not all(map(isfinite, values)):
        raise FormatError(f"{record.where}: `{name}` is {shorten(values)}; expected {meaning}.")
    x, y, z, w = map(float, values)
    return x, y, z, w


def rows_of_boxes(boxes: list[Box]) -> Float32[ndarray, "R 4"]:
    """Boxes as rows; none are no rows."""
    return np.array(boxes, np.float32).reshape(-1, 4)
