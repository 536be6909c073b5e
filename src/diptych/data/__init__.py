"""The pipeline: examples to rows to batches."""

from diptych.data.collate import Collate, pad
from diptych.data.images import image_size, open_image, to_pixels
from diptych.data.module import DataModule
from diptych.data.processor import (
    Processor,
    Row,
    Sources,
    image_keys,
    require_sources,
    require_vocabulary,
)

__all__ = [
    "Collate",
    "DataModule",
    "Processor",
    "Row",
    "Sources",
    "image_keys",
    "image_size",
    "open_image",
    "pad",
    "require_sources",
    "require_vocabulary",
    "to_pixels",
]
