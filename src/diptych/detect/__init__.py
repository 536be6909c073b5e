"""Detectors: from pictures to regions."""

from diptych.data.prepare import Picture, Prepare
from diptych.detect.faster_rcnn import FasterRcnn, build_detector
from diptych.detect.selection import BoxRule, Detection, describe, select

__all__ = [
    "BoxRule",
    "Detection",
    "FasterRcnn",
    "Picture",
    "Prepare",
    "build_detector",
    "describe",
    "select",
]
