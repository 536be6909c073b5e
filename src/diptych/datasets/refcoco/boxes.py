"""Candidate boxes of RefCOCO's pictures: COCO's annotations, detections, or both."""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

import numpy as np

from diptych.datasets.coco import coco_number
from diptych.datasets.refcoco.records import Box, Instances, read_detections, read_instances, rows_of_boxes
from diptych.errors import FormatError
from diptych.types import FeatureMeta, Regions


class Candidates:
    """A region source of boxes without features. Files are read when the first picture is asked for.

    Args:
        instances: COCO's annotations, of which every one of a picture is a candidate; None for their sizes
            alone.
        detections: file of detections; None for none.
    """

    def __init__(self, instances: Path, *, annotated: bool, detections: Path | None) -> None:
        self.path, self.annotated, self.detections = instances, annotated, detections
        rule = f"{'annotated' if annotated else ''} {'detected' if detections else ''}".strip()
        self.meta = FeatureMeta(feature_dim=0, detector="none", box_rule=rule)

    @cached_property
    def _instances(self) -> Instances:
        return read_instances(self.path)

    @cached_property
    def _boxes(self) -> Mapping[int, list[Box]]:
        # Detected boxes first, as their file ranks them; annotated ones follow.
        boxes = {} if self.detections is None else read_detections(self.detections)
        for image, box in self._instances.boxes.values() if self.annotated else ():
            boxes.setdefault(image, []).append(box)
        return boxes

    def __contains__(self, key: str) -> bool:
        return bool(self._boxes.get(coco_number(key)))

    def count(self, key: str) -> int:
        return len(self._boxes[coco_number(key)])

    def __getitem__(self, key: str) -> Regions:
        """The candidates of a picture.

        Raises:
            FormatError: its size is unknown, or a box leaves the picture.
        """
        number = coco_number(key)
        if number not in self._instances.sizes:
            raise FormatError(
                f"{self.path}: `images` lacks the id {number}; expected the size of every picture."
            )
        boxes = rows_of_boxes(self._boxes[number])
        size = self._instances.sizes[number]
        # Width 0: the model computes the features from the picture and these boxes.
        regions = Regions(features=np.empty((len(boxes), 0), np.float32), boxes=boxes, size=size)
        try:
            regions.verify()
        except FormatError as error:
            raise FormatError(f"{self.detections or self.path}: picture {number}: {error}") from error
        return regions
