"""Detectors: from pictures to regions."""

from diptych.detect.faster_rcnn import FasterRcnn, faster_rcnn
from diptych.detect.prepare import Picture, Prepare
from diptych.detect.select import BoxRule, Detection, describe, select

__all__ = [
    "BoxRule",
    "Detection",
    "FasterRcnn",
    "Picture",
    "Prepare",
    "describe",
    "faster_rcnn",
    "select",
]
