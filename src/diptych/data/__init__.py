"""The data pipeline: examples become rows, rows become batches."""

from diptych.data.boxes import BoxSource, GivenBoxes, OwnBoxes, Place, bare_regions, open_regions, read_boxes
from diptych.data.checks import refuse_unread, require_sources, require_vocabulary
from diptych.data.collate import Collate, pad
from diptych.data.limit import first_images, image_limit
from diptych.data.mirrored import Mirrored
from diptych.data.module import DataModule
from diptych.data.negatives import Negatives
from diptych.data.processor import Processor, Row, Sources, image_keys
from diptych.data.reworded import Reworded
from diptych.data.stream import has_images
from diptych.data.subset import Subset, with_regions
from diptych.data.transform import DetectorTransform, Picture, SquareTransform

__all__ = [
    "BoxSource",
    "Collate",
    "DataModule",
    "DetectorTransform",
    "GivenBoxes",
    "Mirrored",
    "Negatives",
    "OwnBoxes",
    "Picture",
    "Place",
    "Processor",
    "Reworded",
    "Row",
    "Sources",
    "SquareTransform",
    "Subset",
    "bare_regions",
    "first_images",
    "has_images",
    "image_keys",
    "image_limit",
    "open_regions",
    "pad",
    "read_boxes",
    "refuse_unread",
    "require_sources",
    "require_vocabulary",
    "with_regions",
]
