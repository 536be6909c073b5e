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
    "num_boxes": "count",
    **dict.fromkeys(("boxes", "bbox"), "boxes"),
    "norm_bb": "normalized",
    "features": "features",
    **dict.fromkeys(("objects_id", "obj_id", "objects"), "labels"),
    **dict.fromkeys(("objects_conf", "obj_conf", "conf"), "scores"),
    **dict.fromkeys(("attrs_id", "attr_id"), "attributes"),
    **dict.fromkeys(("attrs_conf", "attr_conf"), "attribute_scores"),
    **dict.fromkeys(("cls_prob", "classes", "soft_labels"), "probabilities"),
}
INTEGERS = ("labels", "attributes")
ARRAYS = ("labels", "scores", "attributes", "attribute_scores", "boxes", "features", "probabilities")
NOMINAL = 1024  # pixels; a power of two, so that scaling by it rounds nothing


class Widths(NamedTuple):
    """Of features and soft classes, which an image without boxes does not tell; 0 where unknown."""

    features: int
    classes: int = 0


def regions_of(record: Record, widths: Widths, *, truncate: bool = False) -> tuple[Regions, str]:
    """The regions of a record, and what was cut off it, if anything.

    A record without the size of its picture but with normalized boxes (`norm_bb`, as UNITER has it) is put on
    a picture of 1024 x 1024.

    Args:
        truncate: cut arrays that are longer than `boxes`.

    Raises:
        FormatError: a part is missing or malformed, or the counts disagree.
    """
    names = _names(record)
    size, arrays = _size_and_boxes(record, names)
    arrays["features"] = _rows(record, names, "features", widths.features)
    for part in ("labels", "scores", "attributes", "attribute_scores"):
        if part in names:
            arrays[part] = _array(record, names[part])
    if "probabilities" in names:
        arrays["probabilities"] = _classes(record, names, len(arrays["boxes"]), widths.classes)
    shown = {names[part]: len(arrays[part]) for part in ARRAYS if part in arrays}
    if "count" in names and names["boxes"] != "bbox":  # beside `bbox`, mmf counts only confident ones
        shown = {"num_boxes": _whole(record, names["count"])} | shown
    arrays, surplus = _balanced(arrays, shown, truncate=truncate)
    return Regions(size=size, **arrays), surplus


def widths_of(record: Record) -> Widths:
    """Widths of a record; that of features is 0 if there are not as many features as boxes, or none."""
    names = _names(record)
    count = len(_boxes(record, names))
    _require(record, names, "features")
    features = _array(record, names["features"])
    if not count or features.size % count or (features.ndim == 2 and len(features) != count):
        return Widths(0)
    classes = _classes(record, names, count, 0).shape[1] if "probabilities" in names else 0
    return Widths(features.size // count, classes)


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


def _names(record: Record) -> dict[str, str]:
    """Which name of the record stands for which part; names of objects in words are no labels."""
    names: dict[str, str] = {}
    for name, value in record.items():
        part = MEANING.get(name)
        words = part == "labels" and isinstance(value, list) and value and isinstance(value[0], str)
        if part and value is not None and not words:
            names.setdefault(part, name)
    return names


def _size_and_boxes(record: Record, names: dict[str, str]) -> tuple[tuple[int, int], dict[str, ndarray]]:
    if "boxes" not in names and "normalized" in names and not {"width", "height"} & set(names):
        size = (NOMINAL, NOMINAL)
    else:
        _require(record, names, "boxes", "width", "height")
        size = (_whole(record, names["width"]), _whole(record, names["height"]))
    boxes = _boxes(record, names)
    if "boxes" not in names:
        names["boxes"] = names["normalized"]
        boxes = boxes * np.array(size * 2, np.float32)
    return size, {"boxes": boxes}


def _require(record: Record, names: dict[str, str], *parts: str) -> None:
    for part in parts:
        if part not in names:
            known = ", ".join(name for name, meaning in MEANING.items() if meaning == part)
            got = ", ".join(map(str, record)) or "nothing"
            raise FormatError(f"it has no {part} (expected one of {known}); it holds {got[:200]}.")


def _boxes(record: Record, names: dict[str, str]) -> ndarray:
    """In pixels; or normalized where there are no others."""
    if "boxes" not in names and "normalized" in names:
        return _rows(record, names, "normalized", 6)[:, :4]
    return _rows(record, names, "boxes", 4)


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


def _rows(record: Record, names: dict[str, str], part: str, width: int) -> ndarray:
    _require(record, names, part)
    name = names[part]
    values = _array(record, name)
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


def _array(record: Record, name: str) -> ndarray:
    """Numbers as int64 for indices; float16 stays, all others become float32."""
    value = record[name]
    dtype = "<i8" if MEANING[name] in INTEGERS else "<f4"
    if isinstance(value, (bytes, str)):
        return _decoded(value, name, dtype)
    try:
        values = np.asarray(value)
    except ValueError:
        raise FormatError(f"{name} is no array of numbers.") from None
    if values.size and values.dtype.kind not in "fiu":
        raise FormatError(f"{name} holds {values.dtype} values; expected an array of numbers.")
    if MEANING[name] in INTEGERS and values.dtype.kind == "f" and (values != np.trunc(values)).any():
        raise FormatError(f"{name} holds numbers that are not whole; expected indices.")
    if values.dtype == np.float16 and dtype == "<f4":
        return values
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, which is refused later
        return values.astype(dtype, copy=False)


def _decoded(value: bytes | str, name: str, dtype: str) -> ndarray:
    if value[:2] in (b"b'", "b'"):  # a writer left the Python form of bytes in the file
        value = value[2:-1]
    try:
        data = binascii.a2b_base64(value, strict_mode=True)
        return np.frombuffer(data, dtype)
    except binascii.Error as error:
        raise FormatError(f"{name} is not base64 ({error}); expected the bytes of an array.") from None
    except ValueError:
        raise FormatError(
            f"{name} holds {len(data)} bytes; expected a whole number of {dtype} values."
        ) from None


def _normalized(regions: Regions) -> ndarray:
    """x1 y1 x2 y2 w h as parts of the picture."""
    boxes = np.asarray(regions.boxes, np.float32) / np.array(regions.size * 2, np.float32)
    return np.concatenate([boxes, boxes[:, 2:] - boxes[:, :2]], axis=1)
