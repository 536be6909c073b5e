"""Decodes rows of Oscar's and VinVL's TSV files: an id, and features in JSON or plain base64.

Their features are 2054 wide: 2048 of the detector, then x1 y1 x2 y2 width height of the box as
fractions of the image.
"""

import binascii
from typing import Any

import numpy as np

from diptych.errors import FormatError
from diptych.features.fields import Record
from diptych.features.json_files import parse_record

OSCAR = "image_id num_boxes features"
# names of layouts
VINVL, PREDICTIONS, LABELS = "VinVL's features", "VinVL's predictions", "VinVL's labels"
INSIDE = (
    (b'"features"', VINVL),
    (b'"feature"', PREDICTIONS),
)  # a key in the JSON, and the layout that has it
BESIDE = (PREDICTIONS, LABELS)  # layouts of the other files in a folder of VinVL
ADVICE = "Import feature.tsv from the same folder, which has the boxes in its last six columns."


def oscar_record(row: Record) -> Record:
    """The record of a row with id, number of boxes and base64.

    Raises:
        FormatError: the last six columns of the features are not boxes.
    """
    try:
        count = int(row["num_boxes"])
    except ValueError as error:
        raise FormatError(f"num_boxes is {row['num_boxes']!r:.40}; expected a whole number.") from error
    return _with_boxes(row["features"], count)


def vinvl_record(text: bytes, layout: str) -> Record:
    """The record of a row whose second column is JSON.

    Raises:
        FormatError: the file has labels only, or the row lacks the image size.
    """
    if layout == LABELS:
        raise FormatError(f"this is a label file of Oscar or VinVL, without features. {ADVICE}")
    values = parse_record(text, "the second column")
    if layout == VINVL:
        if "boxes" in values or not isinstance(count := values.get("num_boxes"), int):
            return values
        # boxes are fractions; with the image size, if the row has it, they become pixels
        size = {name: values[name] for name in ("image_w", "image_h") if name in values}
        return {**_with_boxes(values.get("features"), count), **size}
    objects = values.get("objects")
    if not isinstance(objects, list) or not all(isinstance(item, dict) for item in objects):
        raise FormatError("`objects` is not a list of JSON objects.")
    if not {"image_w", "image_h"} <= values.keys():
        raise FormatError(f"this is a prediction file of VinVL without image sizes. {ADVICE}")
    # A list per object, and not one array: `rect` and `feature` of one object belong together.
    features = [_numbers(item.get("feature")) for item in objects]
    if len({len(row) for row in features}) > 1:
        raise FormatError("the objects have features of different widths.")
    return {
        "image_w": values["image_w"],
        "image_h": values["image_h"],
        "boxes": [item.get("rect") for item in objects],
        "features": features,
        "objects_conf": [item.get("conf", 1.0) for item in objects],
    }


def _with_boxes(features: Any, count: int) -> Record:
    numbers = _numbers(features)
    if count < 0 or (len(numbers) % count if count and len(numbers) else count or len(numbers)):
        raise FormatError(f"features hold {len(numbers)} numbers for {count} boxes.")
    rows = numbers.reshape(count, -1) if count else np.zeros((0, 6), np.float32)
    boxes = rows[:, -6:]
    x1, y1, x2, y2, width, height = boxes.T if boxes.shape[1] == 6 else np.zeros((6, 0))
    # no file says whether its features include boxes, so they are checked; extractors overshoot by rounding
    inside = (boxes >= -0.01).all() and (boxes <= 1.01).all() and boxes.shape[1] == 6
    if not inside or not (np.allclose(x2 - x1, width, atol=0.01) and np.allclose(y2 - y1, height, atol=0.01)):
        raise FormatError(
            f"the last 6 of {rows.shape[1]} columns are not boxes (x1 y1 x2 y2 width height within 0..1) "
            "as in Oscar, and there are no other boxes."
        )
    # the store keeps boxes apart from features; our Oscar model appends them again
    return {"features": rows[:, :-6], "norm_bb": boxes}


def _numbers(text: Any) -> np.ndarray:
    if not isinstance(text, (str, bytes)):
        raise FormatError("an object has no features in base64.")
    try:
        return np.frombuffer(binascii.a2b_base64(text, strict_mode=True), "<f4")
    except ValueError as error:
        raise FormatError(f"features are not base64 of float32 ({error}).") from error
