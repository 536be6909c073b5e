"""The pipeline: examples to rows to batches."""

from diptych.data.boxes import BoxSource, GivenBoxes, Place, bare_regions, open_regions, read_boxes
from diptych.data.checks import require_sources, require_vocabulary
from diptych.data.collate import Collate, pad
from diptych.data.module import DataModule
from diptych.data.prepare import Picture, Prepare
from diptych.data.processor import Processor, Row, Sources, image_keys
from diptych.data.selection import Selection, with_regions

__all__ = [
    "BoxSource",
    "Collate",
    "DataModule",
    "GivenBoxes",
    "Picture",
    "Place",
    "Prepare",
    "Processor",
    "Row",
    "Selection",
    "Sources",
    "bare_regions",
    "image_keys",
    "open_regions",
    "pad",
    "read_boxes",
    "require_sources",
    "require_vocabulary",
    "with_regions",
]
