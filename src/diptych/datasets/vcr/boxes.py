"""Boxes, classes and silhouettes of VCR's objects, from the metadata file of each picture."""

from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import NotRequired

import numpy as np
from numpy import ndarray
from typing_extensions import TypedDict

from diptych.datasets.coco import coco_class
from diptych.datasets.vcr.polygons import silhouette
from diptych.documents import read_json
from diptych.errors import FormatError
from diptych.images import image_size
from diptych.types import FeatureMeta, Regions

MOST_CORNERS = 100_000  # of all polygons of a picture; those of a million would take minutes to draw
ADVICE = "Expected a metadata file of VCR."


class Metadata(TypedDict):
    """A metadata file; `boxes` are x1 y1 x2 y2 score, `segms` polygons of each object."""

    boxes: list[list[float]]
    segms: list[list[list[list[float]]]]
    names: NotRequired[list[str]]
    width: NotRequired[int]
    height: NotRequired[int]


class ObjectBoxes:
    """A region source of the objects of each picture, in the order in which texts number them.

    Args:
        folders: where metadata files may lie.
        cells: rows and columns of a silhouette; those of the pooled features of the model. 0 leaves
            silhouettes out.
    """

    def __init__(self, folders: tuple[Path, ...], *, cells: int) -> None:
        self.folders, self.cells, self.path = folders, cells, folders[0]
        self.meta = FeatureMeta(feature_dim=0, detector="none", box_rule=f"metadata of VCR, {cells} cells")

    def _find(self, key: str) -> Path | None:
        return next((path for one in self.folders if (path := one / f"{key}.json").is_file()), None)

    def __contains__(self, key: str) -> bool:
        return self._find(key) is not None

    def count(self, key: str) -> int:
        return len(self._read(key)[1]["boxes"])

    def __getitem__(self, key: str) -> Regions:
        """The objects of a picture.

        Raises:
            FormatError: the metadata file is missing or invalid; names the file and the object.
        """
        path, found = self._read(key)
        # Also of no object: the shape 0 x 5.
        rows = np.array(found["boxes"], np.float32).reshape(-1, 5)
        size = _size(path, found)
        regions = Regions(
            features=np.empty((len(rows), 0), np.float32),
            boxes=rows[:, :4],
            scores=rows[:, 4],
            size=size,
            labels=np.array([*map(coco_class, found["names"])], np.int64) if "names" in found else None,
        )
        try:
            regions.verify()
        except FormatError as error:
            raise FormatError(f"{path}: {error}") from error
        if not self.cells:
            return regions
        shapes = [self._drawn(path, found, number, size) for number in range(len(rows))]
        drawn = np.stack(shapes) if shapes else np.zeros((0, self.cells, self.cells), np.float32)
        return replace(regions, silhouettes=drawn)

    def _read(self, key: str) -> tuple[Path, Metadata]:
        path = self._find(key)
        if path is None:
            raise FormatError(f"{self.folders[0] / key}.json does not exist; expected the metadata of VCR.")
        found: Metadata = read_json(path, Metadata, advice=ADVICE)
        if odd := [number for number, box in enumerate(found["boxes"]) if len(box) != 5]:
            raise FormatError(
                f"{path}: box {odd[0]} has {len(found['boxes'][odd[0]])} numbers; expected x1 y1 x2 y2 score."
            )
        # They are joined by place, so one that is missing would shift all others.
        counts = len(found["boxes"]), len(found["segms"]), len(found.get("names", found["boxes"]))
        if len({*counts}) > 1:
            raise FormatError(f"{path}: {counts} boxes, segms and names; expected one of each per object.")
        return path, found

    def _drawn(self, path: Path, found: Metadata, number: int, size: tuple[int, int]) -> ndarray:
        polygons, box = found["segms"][number], np.array(found["boxes"][number][:4])
        # Once per picture, with its first object.
        if not number and sum(map(len, chain(*found["segms"]))) > MOST_CORNERS:
            raise FormatError(f"{path}: polygons of more than {MOST_CORNERS:,} corners in all.")
        if not polygons:  # nothing is known of its silhouette, so its box stands for it
            return np.ones((self.cells, self.cells), np.float32)
        if any(len(corner) != 2 for corner in chain(*polygons)):
            raise FormatError(f"{path}: a corner of object {number} is no pair of numbers; expected x y.")
        corners = [np.array(polygon, float).reshape(-1, 2) for polygon in polygons]
        every = np.concatenate(corners)
        # One pixel of tolerance, as for boxes. NaN fails every comparison, hence the negation.
        inside = ((every >= -1) & (every <= np.array(size) + 1)).all(1)
        if not inside.all():
            x, y = every[~inside][0]
            raise FormatError(
                f"{path}: a polygon of object {number} has the corner {x:g} {y:g}; expected it within the "
                f"picture of {size[0]} x {size[1]} pixels."
            )
        return silhouette(corners, box, cells=self.cells)


def _size(path: Path, found: Metadata) -> tuple[int, int]:
    """Width and height of the picture, from the file itself if the metadata lack them."""
    if "width" in found and "height" in found:
        return found["width"], found["height"]
    return image_size(path.with_suffix(".jpg"))
