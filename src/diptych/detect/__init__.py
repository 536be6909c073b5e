"""Object detectors, and the extraction of region features from folders of images into stores."""

from diptych.detect.extract import ExtractReport, extract
from diptych.detect.extractor import ExtractSettings
from diptych.detect.faster_rcnn import FasterRcnn, build_detector
from diptych.detect.passes import passes
from diptych.detect.selection import BoxRule, Detection, describe, select

__all__ = [
    "BoxRule",
    "Detection",
    "ExtractReport",
    "ExtractSettings",
    "FasterRcnn",
    "build_detector",
    "describe",
    "extract",
    "passes",
    "select",
]
