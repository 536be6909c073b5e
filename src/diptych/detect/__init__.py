"""Detectors: from pictures to regions."""

from diptych.detect.faster_rcnn import FasterRcnn, build_detector
from diptych.detect.selection import BoxRule, Detection, describe, select

__all__ = [
    "BoxRule",
    "Detection",
    "FasterRcnn",
    "build_detector",
    "describe",
    "select",
]
