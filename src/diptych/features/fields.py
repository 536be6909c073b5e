"""Converts between `Regions` and the records of other toolkits: dicts of numbers, arrays or base64."""

import binascii
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy import ndarray

from diptych.errors import FormatError
from diptych.types import Regions

Record = Mapping[str, Any]

# field name in any original format: the field of `Regions` that it fills, or a part of one
MEANING = {
    **dict.fromkeys(("img_id", "image_id", "feature_path"), "key"),
    **dict.fromkeys(("img_w", "image_w", "image_width"), "width"),
    **dict.fromkeys(("img_h", "image_h", "image_height"), "height"),
    **dict.fromkeys(("num_boxes", "num_bbox"), "count"),
    **dict.fromkeys(("boxes", "bbox"), "boxes"),
    "norm_bb": "normalized",
    **dict.fromkeys(("features", "x"), "features"),  # x is MILVLG's name
    **dict.fromkeys(("objects_id", "obj_id", "objects"), "labels"),
    **dict.fromkeys(("objects_conf", "obj_conf", "conf"), "scores"),
    **dict.fromkeys(("attrs_id", "attr_id"), "attributes"),
    **dict.fromkeys(("attrs_conf", "attr_conf"), "attribute_scores"),
    **dict.fromkeys(("cls_prob", "classes", "soft_labels"), "probabilities"),
}
INTEGERS = ("labels", "attributes")
ARRAYS = ("labels", "scores", "attributes", "attribute_scores", "boxes", "features", "probabilities")
NOMINAL = 1024  # pixels; a power of two, so that scaling by it does not round

# base64 does not state its number type; candidates, the usual one first
FLOATS = ("<f4", "<f2", "<f8")
WHOLES = ("<i8", "<i4")
SAMPLE = 32 << 10  # bytes of features that are enough to tell their number type
WILD = 4.0  # octaves; features of a network spread by about 2, bytes read as a wrong type by many more


class Widths(NamedTuple):
    """Widths of features and soft classes; 0 if unknown, because an image without boxes does not show them.

    Args:
        kind: number type of features in base64; empty if the number of bytes and the width determine it.
    """

    features: int
    classes: int = 0
    kind: str = ""


def regions_of(
    record: Record, widths: Widths, fields: Mapping[str, str] = MEANING, *, truncate: bool = False
) -> tuple[Regions, str]:
    """Convert a record to regions; also return what was cut off, as text, or an empty string.

    A record with normalized boxes but no image size (UNITER's `norm_bb`) is placed on an image of
    1024 x 1024 pixels.

    Args:
        fields: meaning of the names in the record; see `MEANING`.
        truncate: cut arrays that are longer than `boxes`.

    Raises:
        FormatError: a part is missing or malformed, or the counts disagree.
    """
    names = _names(record, fields)
    _require(record, names, "features")
    size, boxes = _size_and_boxes(record, names)
    count = len(boxes)
    arrays = {"boxes": boxes}
    # The type that most images agreed on: a single image of the right length may be misread otherwise.
    kinds = (widths.kind,) if widths.kind else FLOATS
    features = _array(record, names["features"], count * widths.features, kinds)
    arrays["features"] = _rows(features, names["features"], widths.features)
    for part in ("labels", "scores", "attributes", "attribute_scores"):
        if part in names:
            values = _array(record, names[part], count, whole=part in INTEGERS)
            arrays[part] = values.reshape(-1) if values.shape[1:] in ((), (1,)) else values
            if arrays[part].ndim != 1:
                raise FormatError(f"{names[part]} has the shape {values.shape}; expected a number per box.")
    if "probabilities" in names:
        arrays["probabilities"] = _classes(record, names, len(arrays["boxes"]), widths.classes)
    shown = {names[part]: len(arrays[part]) for part in ARRAYS if part in arrays}
    if "count" in names and names["boxes"] != "bbox":  # mmf's num_boxes leaves out boxes of low confidence
        shown = {"num_boxes": _whole(record, names["count"])} | shown
    arrays, surplus = _balanced(arrays, shown, truncate=truncate)
    return Regions(size=size, **arrays), surplus


def widths_of(record: Record, fields: Mapping[str, str] = MEANING) -> Widths:
    """Widths of a record; 0 if it has no features, or if they cannot be split evenly over the boxes."""
    names = _names(record, fields)
    count = len(_boxes(record, names))
    _require(record, names, "features")
    value, kind = record[names["features"]], ""
    # Without boxes there is nothing that the number of bytes could be divided by.
    if count and isinstance(value, (bytes, str)):
        kind = _kind(_base64(value, names["features"]), count)
    features = _array(record, names["features"], 0, (kind or FLOATS[0],))
    if not count or features.size % count or (features.ndim == 2 and len(features) != count):
        return Widths(0)
    classes = _classes(record, names, count, 0).shape[1] if "probabilities" in names else 0
    return Widths(features.size // count, classes, kind)


def _kind(data: bytes, count: int) -> str:
    """The number type of features: float32 unless that is implausible for these bytes.

    Numbers that a network computes lie within a few octaves of each other. Bytes of another type, read as
    float32, do not: parts of mantissas become exponents.
    """
    # kind[2] is the size of a number in bytes: "<f4" has 4
    kinds = [kind for kind in FLOATS if not len(data) % (count * int(kind[2]))]
    data = data[:SAMPLE]
    spreads = {kind: _spread(np.frombuffer(data, kind)) for kind in kinds}
    usual = spreads.get(FLOATS[0], np.inf)
    if "<f8" in spreads and spreads["<f8"] < WILD:
        low, high = np.frombuffer(data, "<f4").reshape(-1, 2).T
        # numbers with few binary digits leave the low half of every float64 zero, which looks like float32
        if high.any() and not low.any() and len(low) > 8:
            return "<f8"
    best = min(spreads, key=lambda kind: spreads[kind], default=FLOATS[0])
    return best if usual > WILD and spreads.get(best, np.inf) < usual / 2 else FLOATS[0]


def _spread(values: ndarray) -> float:
    """Standard deviation of the magnitudes in octaves; infinite if there is NaN, infinity or only zeros."""
    with np.errstate(all="ignore"):
        sizes = np.abs(values[values != 0].astype(np.float64))
        return float(np.log2(sizes).std()) if np.isfinite(sizes).all() and sizes.size else np.inf


def record_of(key: str, regions: Regions, layout: str) -> dict[str, Any]:
    """The record of an image, with those names of `layout` for which it has a value, in that order."""
    width, height = regions.size
    values: dict[str, Any] = {"key": key, "width": width, "height": height, "count": len(regions)}
    values |= {part: getattr(regions, part) for part in ARRAYS}
    values["normalized"] = _normalized(regions)
    record = {name: values[MEANING[name]] for name in layout.split()}
    return {name: value for name, value in record.items() if value is not None}


def encode(values: ndarray) -> bytes:
    """Encode as base64 of little-endian rows, int64 or float32."""
    dtype = "<i8" if values.dtype.kind in "iu" else "<f4"
    return binascii.b2a_base64(np.ascontiguousarray(values, dtype).data, newline=False)


def _names(record: Record, fields: Mapping[str, str]) -> dict[str, str]:
    """The name in the record of each part. Object names as words are skipped: labels are indices."""
    names: dict[str, str] = {}
    for name, value in record.items():
        part = fields.get(name)
        words = part == "labels" and isinstance(value, list) and value and isinstance(value[0], str)
        if part and value is not None and not words:
            names.setdefault(part, name)  # the first name wins where a record has several for one part
    return names


def _size_and_boxes(record: Record, names: dict[str, str]) -> tuple[tuple[int, int], ndarray]:
    normalized = "boxes" not in names and "normalized" in names
    if normalized and not {"width", "height"} & set(names):
        size = (NOMINAL, NOMINAL)
    else:
        _require(record, names, *["boxes"] * (not normalized), "width", "height")
        size = (_whole(record, names["width"]), _whole(record, names["height"]))
    boxes = _boxes(record, names)
    if normalized:
        names["boxes"] = names["normalized"]  # for messages and counts
        boxes = boxes * np.array(size * 2, np.float32)
    return size, boxes


def _require(record: Record, names: dict[str, str], *parts: str) -> None:
    for part in parts:
        if part not in names:
            known = ", ".join(name for name, meaning in MEANING.items() if meaning == part)
            got = ", ".join(map(str, record)) or "nothing"
            raise FormatError(f"it has no {part} (expected one of {known}); it holds {got[:200]}.")


def _boxes(record: Record, names: dict[str, str]) -> ndarray:
    """The boxes in pixels, or the normalized ones if there are no others."""
    if "boxes" not in names and "normalized" in names:
        # UNITER's norm_bb is x1 y1 x2 y2 w h; the boxes repeat width and height
        return _rows(_array(record, names["normalized"]), names["normalized"], 6)[:, :4]
    _require(record, names, "boxes")
    count = _whole(record, names["count"]) if "count" in names else 0
    return _rows(_array(record, names["boxes"], count * 4), names["boxes"], 4)


def _balanced(
    arrays: dict[str, ndarray], counts: dict[str, int], *, truncate: bool
) -> tuple[dict[str, ndarray], str]:
    """Arrays with one row per box, and what was cut off to get there."""
    count = len(arrays["boxes"])
    if len(set(counts.values())) == 1:
        return arrays, ""
    got = ", ".join(f"{name} {number}" for name, number in counts.items())
    if not truncate or min(counts.values()) < count:
        raise FormatError(
            f"the counts disagree: {got}; expected one of each per box. Where only arrays are longer "
            "than boxes, on_error=truncate cuts them."
        )
    return {part: value[:count] for part, value in arrays.items()}, f"cut to {count} boxes: {got}"


def _rows(values: ndarray, name: str, width: int) -> ndarray:
    if values.ndim == 2 and (values.shape[1] == width or not len(values)):
        return values.reshape(-1, width)
    if values.ndim != 1:
        raise FormatError(f"{name} has the shape {values.shape}; expected rows of {width}.")
    if len(values) % width:
        raise FormatError(f"{name} holds {len(values)} numbers; expected a multiple of {width}.")
    return values.reshape(-1, width)


def _classes(record: Record, names: dict[str, str], count: int, width: int) -> ndarray:
    """Soft classes in rows of `width`; if that is 0, the width follows from `count` rows."""
    name = names["probabilities"]
    values = _array(record, name)
    if values.ndim == 1:
        width = width or (len(values) // count if count else 0)
        if len(values) != count * width:
            raise FormatError(f"{name} holds {len(values)} numbers; expected {count} rows of {width}.")
        values = values.reshape(count, width)
    if values.ndim != 2:
        raise FormatError(f"{name} has the shape {values.shape}; expected a row per box.")
    return values


def _whole(record: Record, name: str) -> int:
    """A whole number; the file may have it as a float (`36.0`) or as an array with one element."""
    value = record[name]
    try:
        number = float(value.item() if isinstance(value, ndarray) else value)
        if number.is_integer():
            return int(number)
    except (TypeError, ValueError, OverflowError):
        pass
    shown = value[:40].decode(errors="replace") if isinstance(value, bytes) else value
    raise FormatError(f"{name} is {str(shown)[:40]!r}; expected a whole number.")


def _array(
    record: Record,
    name: str,
    expected: int = 0,
    kinds: tuple[str, ...] = FLOATS,
    *,
    whole: bool = False,
) -> ndarray:
    """Numbers of one field: indices as int64, float16 as it is, everything else as float32.

    Args:
        expected: how many numbers there should be. For base64, the number of bytes then shows the type; if
            none of `kinds` fits, it is the first of them.
    """
    value = record[name]
    if isinstance(value, (bytes, str)):
        data, kinds = _base64(value, name), WHOLES if whole else kinds
        # Example: 36 boxes expect 144 numbers. 576 bytes are float32, 288 float16, 1152 float64.
        kind = next((each for each in kinds if len(data) == expected * int(each[2])), kinds[0])
        if len(data) % int(kind[2]):
            raise FormatError(f"{name} holds {len(data)} bytes; expected a whole number of {kind} values.")
        values = np.frombuffer(data, kind)
    else:
        try:
            values = np.asarray(value)
        except (ValueError, OverflowError):
            raise FormatError(f"{name} is no array of numbers.") from None
    if values.size and values.dtype.kind not in "fiu":
        raise FormatError(f"{name} holds {values.dtype} values; expected an array of numbers.")
    if whole and values.dtype.kind == "f" and not (np.isfinite(values) & (values == np.trunc(values))).all():
        raise FormatError(f"{name} holds numbers that are not whole; expected indices.")
    if values.dtype == np.float16 and not whole:
        return values
    with np.errstate(over="ignore"):  # overflow becomes infinity, which Regions.verify refuses
        return values.astype("<i8" if whole else "<f4", copy=False)


def _base64(value: bytes | str, name: str) -> bytes:
    if value[:2] in (b"b'", "b'"):  # some writers stored str(bytes), such as "b'AAAA'"
        value = value[2:-1]
    try:
        return binascii.a2b_base64(value, strict_mode=True)
    except ValueError as error:  # binascii.Error, and text that is not ASCII
        raise FormatError(f"{name} is not base64 ({error}); expected the bytes of an array.") from None


def _normalized(regions: Regions) -> ndarray:
    """x1 y1 x2 y2 w h as fractions of the image."""
    boxes = np.asarray(regions.boxes, np.float32) / np.array(regions.size * 2, np.float32)
    return np.concatenate([boxes, boxes[:, 2:] - boxes[:, :2]], axis=1)
