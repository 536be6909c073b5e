"""Boxes without a detector: read from a file, or the cells of a grid."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32
from numpy import ndarray
from PIL import Image

from diptych.boxes import doubts
from diptych.data.processor import Processor
from diptych.errors import ConfigError, FormatError
from diptych.files import require_file
from diptych.images import image_size
from diptych.types import FeatureMeta, Regions, RegionSource

Place = Path | str | Mapping[str, Path | str] | None  # values that the setting `features` of a run may have


@dataclass(frozen=True, slots=True)
class GivenBoxes:
    """Boxes by image key, in pixels of the upright picture (after EXIF rotation)."""

    path: Path
    boxes: Mapping[str, Float32[ndarray, "_ 4"]]

    def checksum(self) -> str:
        """SHA-256 of all keys and boxes. The order of the lines does not matter."""
        # With the number of boxes, so that a box cannot move to the next key with the same checksum.
        digest = sha256()
        for key, boxes in sorted(self.boxes.items()):
            # JSON may hold lone surrogates, which plain UTF-8 refuses.
            digest.update(f"{key}\n{len(boxes)}\n".encode("utf-8", "surrogatepass"))
            digest.update(boxes.astype(np.float32).tobytes())
        return digest.hexdigest()

    def of(self, key: str, size: tuple[int, int]) -> Float32[ndarray, "R 4"]:
        """Return the boxes of a picture and check them against its size.

        Args:
            size: width and height of the picture in pixels.

        Raises:
            FormatError: the file has no record of the picture, or a box is inverted, outside of the picture
                or not in pixels.
        """
        boxes = self.find(key)
        if boxes is None:
            raise FormatError(f"{self.path} has no record with the id {key!r}.")
        try:
            bare_regions(boxes, size).verify()
            if "scaled" in doubts(boxes, size):
                raise FormatError(f"all {len(boxes)} boxes lie within 0..1 and look scaled; expected pixels.")
        except FormatError as error:
            raise FormatError(f"{self.path}: picture {key}: {error}") from error
        return boxes

    def find(self, key: str) -> Float32[ndarray, "R 4"] | None:
        """Return the boxes of a picture without checks, or None if the file has none."""
        # Image keys may have leading zeros (`01235`), which an id written as a JSON number has lost.
        number = (key.lstrip("0") or "0") if key.isascii() and key.isdigit() else key
        return self.boxes.get(key, self.boxes.get(number))


def read_boxes(path: Path | str) -> GivenBoxes:
    """Read JSON lines with the fields `id` and `boxes` (each x1 y1 x2 y2). Other fields are ignored.

    Raises:
        FormatError: the file cannot be read, or a line is invalid; the message names file and line.
    """
    path = Path(path)
    boxes: dict[str, ndarray] = {}
    try:
        lines = require_file(path, "JSON lines of boxes").read_bytes().split(b"\n")
    except OSError as error:
        raise FormatError(f"{path}: cannot be read ({error}); expected JSON lines of boxes.") from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            key, rows = _record(line)
        # deeply nested JSON raises RecursionError, integers beyond float32 raise OverflowError
        except (ValueError, TypeError, RecursionError, OverflowError) as error:
            raise FormatError(
                f'{path}:{number}: {error}; expected {{"id": ..., "boxes": [[x1, y1, x2, y2], ...]}}.'
            ) from error
        if key in boxes:
            raise FormatError(f"{path}:{number}: id {key!r} occurs a second time; expected unique ids.")
        boxes[key] = rows
    return GivenBoxes(path, boxes)


def _record(line: bytes) -> tuple[str, ndarray]:
    record: Any = json.loads(line)
    if not isinstance(record, dict) or not isinstance(record.get("id"), str | int):
        raise ValueError("the record has no `id`")
    rows = np.array(record.get("boxes"), np.float32)
    # A picture without boxes has the empty list, for which NumPy makes one dimension.
    if rows.shape != (0,) and (rows.ndim != 2 or rows.shape[1] != 4):
        raise ValueError(f"`boxes` has the shape {rows.shape}")
    return str(record["id"]), rows.reshape(-1, 4)


def bare_regions(boxes: Float32[ndarray, "R 4"], size: tuple[int, int]) -> Regions:
    """Wrap the boxes of a picture of (width, height) as regions without features."""
    return Regions(features=np.empty((len(boxes), 0), np.float32), boxes=boxes, size=size)


def grid_boxes(grid: Sequence[int], size: tuple[int, int]) -> Float32[ndarray, "R 4"]:
    """Cover a picture of (width, height) with equal cells; `grid` is (rows, columns). Cells go row by row."""
    rows, columns = grid
    # Example: grid (1, 2) on 100 x 50 pixels gives [0, 0, 50, 50] and [50, 0, 100, 50].
    y, x = np.mgrid[:rows, :columns].reshape(2, -1)
    cell = np.array([size[0] / columns, size[1] / rows] * 2)  # width, height, width, height
    boxes: ndarray = np.stack([x, y, x + 1, y + 1], 1) * cell
    return boxes.astype(np.float32)


class BoxSource:
    """A region source that has boxes only, for models that compute the features themselves.

    Args:
        images: picture files or opened pictures, by image key.
        given: boxes of each picture. None uses a grid.
        grid: rows and columns of the grid.
    """

    def __init__(
        self,
        images: Mapping[str, str | Path | Image.Image],
        *,
        given: GivenBoxes | None = None,
        grid: Sequence[int] = (4, 4),
    ) -> None:
        self.images, self.given, self.grid = images, given, grid
        self.path = "the pictures" if given is None else given.path
        rule = "x".join(map(str, grid)) if given is None else "given"
        checksum = "" if given is None else given.checksum()
        self.meta = FeatureMeta(feature_dim=0, detector="none", box_rule=rule, checksum=checksum)

    def __getitem__(self, key: str) -> Regions:
        image = self.images[key]
        size = image.size if isinstance(image, Image.Image) else image_size(image)
        boxes = grid_boxes(self.grid, size) if self.given is None else self.given.of(key, size)
        return bare_regions(boxes, size)

    def __contains__(self, key: str) -> bool:
        return key in self.images and (self.given is None or self.given.find(key) is not None)

    def count(self, key: str) -> int:
        boxes = None if self.given is None else self.given.find(key)
        return self.grid[0] * self.grid[1] if boxes is None else len(boxes)


class NoRegions:
    """The region source of examples without images; it has no image.

    Args:
        width: of the features that the model takes.
    """

    def __init__(self, width: int) -> None:
        self.meta = FeatureMeta(feature_dim=width)

    def __getitem__(self, key: str) -> Regions:
        raise KeyError(key)

    def __contains__(self, key: str) -> bool:
        return False

    def count(self, key: str) -> int:
        raise KeyError(key)


class OwnBoxes:
    """Boxes that data sets know themselves, each of its own pictures; the first that knows a picture counts.

    Args:
        sources: at least one.
    """

    def __init__(self, sources: Sequence[RegionSource]) -> None:
        self.sources, self.path = sources, "the data set"
        self.meta = sources[0].meta

    def _of(self, key: str) -> RegionSource:
        return next((source for source in self.sources if key in source), self.sources[0])

    def __getitem__(self, key: str) -> Regions:
        return self._of(key)[key]

    def __contains__(self, key: str) -> bool:
        return any(key in source for source in self.sources)

    def count(self, key: str) -> int:
        return self._of(key).count(key)


def open_regions(
    processor: Processor,
    place: Place,
    images: Mapping[str, str | Path | Image.Image],
    *,
    more: Path | str | None = None,
    merge: str = "vilio",
    stores: Collection[str] = (),
    without: int | None = None,
    own: Sequence[RegionSource | None] = (),
) -> RegionSource | None:
    """Open the region source that the setting `features` of a run names; None if the model reads no regions.

    Args:
        place: a feature store, or several by name. End-to-end models also take a `.jsonl` file of boxes (see
            `read_boxes`), or None for those of the data sets, else the processor's grid.
        images: picture files or opened pictures by image key, from which boxes alone take their sizes.
        more: a second store, which is merged into the first one.
        merge: rule of the merge; see `diptych.features.MergedStore`.
        stores: store names that the data sets use. All of them then mean the single store `place`.
        without: width of the model's features, if no example has an image; then `place` need not exist.
        own: boxes of the data sets, see `diptych.datasets.Split.regions`.

    Raises:
        ConfigError: the model needs another kind of source.
        FormatError: the store or the file cannot be read.
    """
    from diptych.features import FeatureStore, NamedStores, open_stores  # loads pyarrow

    if not processor.regions:
        return None
    if without is not None and not isinstance(place, Mapping) and not (place and Path(place).exists()):
        return NoRegions(without)
    if isinstance(place, Mapping):
        if more is not None:
            raise ConfigError(
                f"more_features={more} is given, but features names {len(place)} stores; give one store as "
                "features, or leave more_features out."
            )
        return NamedStores({name: FeatureStore(Path(folder)) for name, folder in place.items()})
    if place is not None and Path(place).suffix == ".jsonl":
        if processor.prepare is None:
            raise ConfigError(
                f"features={place} holds boxes, but the model reads features; give a feature store, or "
                "choose an end-to-end model."
            )
        return BoxSource(images, given=read_boxes(place))
    if place is not None:
        store = open_stores(place, more, merge)
        return NamedStores(dict.fromkeys(stores, store)) if stores else store
    if processor.prepare is not None and (known := [source for source in own if source is not None]):
        return OwnBoxes(known)
    if processor.grid is not None:
        return BoxSource(images, grid=processor.grid)
    raise ConfigError(
        "the model reads regions, but no source is given; set features=FOLDER (a feature store)"
        + (", features=boxes.jsonl or processor.grid=[4,4]." if processor.prepare is not None else ".")
    )
