"""The pipeline: examples to rows to batches."""

from diptych.data.boxes import BoxSource, GivenBoxes, bare_regions, open_regions, read_boxes
from diptych.data.collate import Collate, pad
from diptych.data.images import image_size, open_image, to_pixels
from diptych.data.module import DataModule
from diptych.data.prepare import Picture, Prepare
from diptych.data.processor import (
    Processor,
    Row,
    Sources,
    image_keys,
    require_sources,
    require_vocabulary,
)
from diptych.data.selection import Selection, with_regions

__all__ = [
    "BoxSource",
    "Collate",
    "DataModule",
    "GivenBoxes",
    "Picture",
    "Prepare",
    "Processor",
    "Row",
    "Selection",
    "Sources",
    "bare_regions",
    "image_keys",
    "image_size",
    "open_image",
    "open_regions",
    "pad",
    "read_boxes",
    "require_sources",
    "require_vocabulary",
    "to_pixels",
    "with_regions",
]
