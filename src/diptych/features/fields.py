"""One image as the originals keep it: a mapping of their names to numbers, arrays or base64; and back."""

import binascii
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy import ndarray

from diptych.errors import FormatError
from diptych.types import Regions

Record = Mapping[str, Any]

MEANING = {  # what a name of any original means: a field of Regions, or a part of it
    **dict.fromkeys(("img_id", "image_id", "feature_path"), "key"),
    **dict.fromkeys(("img_w", "image_w", "image_width"), "width"),
    **dict.fromkeys(("img_h", "image_h", "image_height"), "height"),
    **dict.fromkeys(("num_boxes", "num_bbox"), "count"),
    **dict.fromkeys(("boxes", "bbox"), "boxes"),
    "norm_bb": "normalized",
    **dict.fromkeys(("features", "x"), "features"),  # x: MILVLG
    **dict.fromkeys(("objects_id", "obj_id", "objects"), "labels"),
    **dict.fromkeys(("objects_conf", "obj_conf", "conf"), "scores"),
    **dict.fromkeys(("attrs_id", "attr_id"), "attributes"),
    **dict.fromkeys(("attrs_conf", "attr_conf"), "attribute_scores"),
    **dict.fromkeys(("cls_prob", "classes", "soft_labels"), "probabilities"),
}
INTEGERS = ("labels", "attributes")
ARRAYS = ("labels", "scores", "attributes", "attribute_scores", "boxes", "features", "probabilities")
NOMINAL = 1024  # pixels; a power of two, so that scaling by it rounds nothing


FLOATS, WHOLES = (
    ("<f4", "<f2", "<f8"),
    ("<i8", "<i4"),
)  # as which numbers in base64 are read, usual ones first
SAMPLE = 32 << 10  # bytes that decide it
WILD = 4.0  # octaves; the spread of numbers of a network is about 2


class Widths(NamedTuple):
    """Of features and soft classes, which an image without boxes does not tell; 0 where unknown.

    Args:
        kind: number type of features in base64; empty where bytes and width tell.
    """

    features: int
    classes: int = 0
    kind: str = ""


def regions_of(
    record: Record, widths: Widths, fields: Mapping[str, str] = MEANING, *, truncate: bool = False
) -> tuple[Regions, str]:
    """The regions of a record, and what was cut off it, if anything.

    A record without the size of its picture but with normalized boxes (`norm_bb`, as UNITER has it) is put on
    a picture of 1024 x 1024.

    Args:
        fields: what the names of the record mean.
        truncate: cut arrays that are longer than `boxes`.

    Raises:
        FormatError: a part is missing or malformed, or the counts disagree.
    """
    names = _names(record, fields)
    _require(record, names, "features")
    size, boxes = _size_and_boxes(record, names)
    count = len(boxes)
    arrays = {"boxes": boxes}
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
    if "count" in names and names["boxes"] != "bbox":  # beside `bbox`, mmf counts only confident ones
        shown = {"num_boxes": _whole(record, names["count"])} | shown
    arrays, surplus = _balanced(arrays, shown, truncate=truncate)
    return Regions(size=size, **arrays), surplus


def widths_of(record: Record, fields: Mapping[str, str] = MEANING) -> Widths:
    """Widths of a record; that of features is 0 if there are not as many features as boxes, or none."""
    names = _names(record, fields)
    count = len(_boxes(record, names))
    _require(record, names, "features")
    value, kind = record[names["features"]], ""
    if count and isinstance(value, (bytes, str)):
        kind = _kind(_base64(value, names["features"]), count)
    features = _array(record, names["features"], 0, (kind or FLOATS[0],))
    if not count or features.size % count or (features.ndim == 2 and len(features) != count):
        return Widths(0)
    classes = _classes(record, names, count, 0).shape[1] if "probabilities" in names else 0
    return Widths(features.size // count, classes, kind)


def _kind(data: bytes, count: int) -> str:
    """The number type of features: float32 unless these bytes can hardly be that.

    Numbers that a network has computed lie within a few octaves of each other. Bytes of another type do not,
    since mantissas are taken for exponents.
    """
    kinds = [kind for kind in FLOATS if not len(data) % (count * int(kind[2]))]
    data = data[:SAMPLE]
    spreads = {kind: _spread(np.frombuffer(data, kind)) for kind in kinds}
    usual = spreads.get(FLOATS[0], np.inf)
    if "<f8" in spreads and spreads["<f8"] < WILD:
        low, high = np.frombuffer(data, "<f4").reshape(-1, 2).T
        if high.any() and not low.any() and len(low) > 8:  # float64 of numbers with few digits
            return "<f8"
    best = min(spreads, key=lambda kind: spreads[kind], default=FLOATS[0])
    return best if usual > WILD and spreads.get(best, np.inf) < usual / 2 else FLOATS[0]


def _spread(values: ndarray) -> float:
    """Standard deviation of the magnitudes in octaves; infinite if there are numbers that are none."""
    with np.errstate(all="ignore"):
        sizes = np.abs(values[values != 0].astype(np.float64))
        return float(np.log2(sizes).std()) if np.isfinite(sizes).all() and sizes.size else np.inf


def record_of(key: str, regions: Regions, layout: str) -> dict[str, Any]:
    """The record of an image: of the names in `layout` those that it has, in that order."""
    width, height = regions.size
    values: dict[str, Any] = {"key": key, "width": width, "height": height, "count": len(regions)}
    values |= {part: getattr(regions, part) for part in ARRAYS}
    values["normalized"] = _normalized(regions)
    record = {name: values[MEANING[name]] for name in layout.split()}
    return {name: value for name, value in record.items() if value is not None}


def encode(values: ndarray) -> bytes:
    """Base64 of the little-endian rows, int64 or float32."""
    dtype = "<i8" if values.dtype.kind in "iu" else "<f4"
    return binascii.b2a_base64(np.ascontiguousarray(values, dtype).data, newline=False)


def _names(record: Record, fields: Mapping[str, str]) -> dict[str, str]:
    """Which name of the record stands for which part; names of objects in words are no labels."""
    names: dict[str, str] = {}
    for name, value in record.items():
        part = fields.get(name)
        words = part == "labels" and isinstance(value, list) and value and isinstance(value[0], str)
        if part and value is not None and not words:
            names.setdefault(part, name)
    return names


def _size_and_boxes(record: Record, names: dict[str, str]) -> tuple[tuple[int, int], ndarray]:
    parts = "boxes" not in names and "normalized" in names
    if parts and not {"width", "height"} & set(names):
        size = (NOMINAL, NOMINAL)
    else:
        _require(record, names, *["boxes"] * (not parts), "width", "height")
        size = (_whole(record, names["width"]), _whole(record, names["height"]))
    boxes = _boxes(record, names)
    if parts:
        names["boxes"] = names["normalized"]
        boxes = boxes * np.array(size * 2, np.float32)
    return size, boxes


def _require(record: Record, names: dict[str, str], *parts: str) -> None:
    for part in parts:
        if part not in names:
            known = ", ".join(name for name, meaning in MEANING.items() if meaning == part)
            got = ", ".join(map(str, record)) or "nothing"
            raise FormatError(f"it has no {part} (expected one of {known}); it holds {got[:200]}.")


def _boxes(record: Record, names: dict[str, str]) -> ndarray:
    """In pixels; or normalized where there are no others."""
    if "boxes" not in names and "normalized" in names:
        return _rows(_array(record, names["normalized"]), names["normalized"], 6)[:, :4]
    _require(record, names, "boxes")
    count = _whole(record, names["count"]) if "count" in names else 0
    return _rows(_array(record, names["boxes"], count * 4), names["boxes"], 4)


def _balanced(
    arrays: dict[str, ndarray], counts: dict[str, int], *, truncate: bool
) -> tuple[dict[str, ndarray], str]:
    """As many of each as boxes."""
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
    """Soft classes, rows of `width` or, where that is 0, of what `count` rows make."""
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
    """A whole number, also where it is written as a float (`36.0`) or as an array of one."""
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
    """Numbers as int64 for indices; float16 stays, all others become float32.

    Args:
        expected: how many there should be, which tells the type of those in base64; the first of `kinds`
            where it does not.
    """
    value = record[name]
    if isinstance(value, (bytes, str)):
        data, kinds = _base64(value, name), WHOLES if whole else kinds
        kind = next((one for one in kinds if len(data) == expected * int(one[2])), kinds[0])
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
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, which is refused later
        return values.astype("<i8" if whole else "<f4", copy=False)


def _base64(value: bytes | str, name: str) -> bytes:
    if value[:2] in (b"b'", "b'"):  # a writer left the Python form of bytes in the file
        value = value[2:-1]
    try:
        return binascii.a2b_base64(value, strict_mode=True)
    except ValueError as error:  # binascii.Error, and text that is not ASCII
        raise FormatError(f"{name} is not base64 ({error}); expected the bytes of an array.") from None


def _normalized(regions: Regions) -> ndarray:
    """x1 y1 x2 y2 w h as parts of the picture."""
    boxes = np.asarray(regions.boxes, np.float32) / np.array(regions.size * 2, np.float32)
    return np.concatenate([boxes, boxes[:, 2:] - boxes[:, :2]], axis=1)
