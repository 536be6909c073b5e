"""Computes the regions of all stores from image files: the settings, and the network that they name."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from diptych.convert.detector import fill_detector, sizes_of
from diptych.convert.load import read_weights
from diptych.convert.resnet import load_resnet
from diptych.data.boxes import GivenBoxes, read_boxes
from diptych.data.transform import DetectorTransform, Picture
from diptych.detect.faster_rcnn import PRESETS, FasterRcnn, build_detector
from diptych.detect.grid import (
    FOREIGN,
    MapEncoder,
    StageEncoder,
    box_regions,
    build_map_encoder,
    grid_regions,
)
from diptych.detect.listing import PictureFile
from diptych.detect.selection import BoxRule, describe, select
from diptych.errors import ConfigError, FormatError, nearest
from diptych.images import open_image
from diptych.types import FeatureMeta, Regions

GRID = "grid"
SEED = 0  # of random weights, so that all processes have the same weights


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtractSettings:
    """Settings of an extraction.

    Args:
        detector: a preset of `build_detector`, or `grid` for features without a detector.
        weights: None means random weights; the names of the stores then say `random`.
        rules: box rules, one store each; see `BoxRule.parse`.
        mode: how rules select boxes; see `BoxRule`.
        given: file of boxes to use instead of rules or a grid; see `read_boxes`.
        padded: pad the images of a batch to a common size, as Vilio did for `vg`.
        backbone: for `grid`, as `stage` and `size`; see `build_map_encoder`.
        cells: rows and columns of the grid; None keeps those of the feature map.
        classes: names of the detector's classes, or empty; `attributes` likewise.
        dtype: type of the stored features, `float16` or `float32`.
        precision: precision of the convolutions, `32` or `bf16`.
        batch: number of images whose regions go through the head together.
    """

    detector: str = "vgattr"
    weights: Path | None = None
    rules: tuple[str, ...] = ("36",)
    mode: str = "max-class"
    given: Path | None = None
    padded: bool = False
    backbone: str = "resnet50"
    stage: int = 4
    size: int = 448
    cells: tuple[int, int] | None = None
    classes: tuple[str, ...] = ()
    attributes: tuple[str, ...] = ()
    dtype: Literal["float16", "float32"] = "float32"
    precision: str = "32"
    batch: int = 4

    def __post_init__(self) -> None:
        for name, allowed in (("detector", (*PRESETS, GRID)), ("precision", ("32", "bf16"))):
            if (got := getattr(self, name)) not in allowed:
                known = ", ".join(allowed)
                raise ConfigError(f"{name} {got!r}: expected one of {known}.{nearest(got, allowed)}")
        if self.batch < 1:
            raise ConfigError(f"batch {self.batch}: expected at least 1 image.")
        if len(set(self.rules)) < len(self.rules):
            raise ConfigError(f"rules {', '.join(self.rules)}: expected unique rules.")

    @property
    def name(self) -> str:
        """Name of detector and weights, for `FeatureMeta.detector`."""
        if self.detector == GRID and self.backbone.startswith(FOREIGN):  # never random
            return Path(self.backbone.removeprefix(FOREIGN)).name
        name = f"{self.backbone}-stage{self.stage}" if self.detector == GRID else self.detector
        return f"{name}-random" if self.weights is None else name

    def stores(self) -> dict[str, tuple[str, int]]:
        """Per store name: `FeatureMeta.box_rule`, and the least number of boxes that an image should have."""
        if self.given is not None:
            return {f"{self.name}-given": ("given", 0)}
        if self.detector == GRID:
            cells = "" if self.cells is None else f"{self.cells[0]}x{self.cells[1]}"
            return {f"{self.name}-grid{cells}": (f"grid {cells}".strip(), 0)}
        rules = [BoxRule.parse(text, self.mode) for text in self.rules]
        way = "" if self.mode == "max-class" else f" {self.mode}"
        return {  # names of folders: `10:100` becomes `10-100`
            re.sub("[: ]", "-", f"{self.name}{rule}{way}"): (f"{rule}{way}", rule.least) for rule in rules
        }


@dataclass(frozen=True, slots=True)
class Item:
    """A prepared image; `boxes` are the given boxes, if there are any."""

    key: str
    picture: Picture
    boxes: Float[Tensor, "R 4"] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Extractor:
    """A loaded network with everything that is needed to extract regions.

    Args:
        stores: provenance by store name.
        prepare: turns an upright RGB image into the input of the network.
        find: computes, for every item, the regions of every store.
    """

    stores: dict[str, FeatureMeta]
    prepare: DetectorTransform
    find: Callable[[Sequence[Item]], list[list[Regions]]]
    given: GivenBoxes | None
    batch: int
    device: torch.device
    precision: str

    def read(self, source: PictureFile) -> Item:
        """Decode and prepare one image.

        Raises:
            FormatError: it is unreadable, truncated, too large or too long, or its given boxes are invalid.
        """
        image = open_image(source.path)  # its errors name the file, those of `prepare` do not
        try:
            picture = self.prepare(image)
        except FormatError as error:
            raise FormatError(f"{source.path}: {error}") from error
        boxes = None
        if self.given is not None:
            boxes = torch.from_numpy(self.given.of(source.key, picture.size))
        return Item(source.key, picture, boxes)

    @torch.inference_mode()
    def __call__(self, items: Sequence[Item]) -> list[list[Regions]]:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            return self.find(items)


def build_extractor(settings: ExtractSettings, *, device: str = "cpu") -> Extractor:
    """Build the network and load its weights.

    Raises:
        ConfigError: settings contradict each other.
        FormatError, CheckpointMismatch: the weights do not fit the network.
    """
    given = None if settings.given is None else read_boxes(settings.given)
    network: FasterRcnn | MapEncoder
    with torch.random.fork_rng(devices=[]):  # leaves the generator of the caller as it was
        torch.manual_seed(SEED)
        if settings.detector == GRID:
            network = _map_encoder(settings).to(device)
            find = partial(_on_map, network, settings.cells)
        else:
            network = _detector(settings).to(device)
            rules = [BoxRule.parse(text, settings.mode) for text in settings.rules]
            find = partial(_detected, network, rules, settings.padded)
    metas = {
        name: FeatureMeta(
            feature_dim=network.dim,
            detector=settings.name,
            box_rule=rule,
            classes=settings.classes,
            attributes=settings.attributes,
            dtype=settings.dtype,
        )
        for name, (rule, _) in settings.stores().items()
    }
    return Extractor(
        stores=metas,
        prepare=network.prepare,
        find=find,
        given=given,
        batch=settings.batch,
        device=torch.device(device),
        precision=settings.precision,
    )


def _detector(settings: ExtractSettings) -> FasterRcnn:
    """The network of a preset, with the sizes of the weights."""
    # weights are read first, because class counts and widths follow from them
    weights = None if settings.weights is None else read_weights(settings.weights)
    sizes = {} if weights is None else sizes_of(weights, where=settings.weights)
    # weights with an attribute head also fit a preset without one, which does not use it
    if PRESETS[settings.detector].get("attributes") is None:
        sizes.pop("attributes", None)
    detector = build_detector(settings.detector, **sizes)
    head = detector.predictor
    counts = {
        "classes": head.classes.out_features - 1,  # without the background
        "attributes": 0 if head.attributes is None else head.attributes.out_features - 1,
    }
    for name, count in counts.items():
        if (got := len(getattr(settings, name))) not in (0, count):
            raise ConfigError(f"got {got} names of {name}; detector {settings.detector!r} has {count}.")
    if weights is not None:
        fill_detector(detector, weights, where=settings.weights)
    return detector


def _map_encoder(settings: ExtractSettings) -> MapEncoder:
    encoder = build_map_encoder(settings.backbone, stage=settings.stage, size=settings.size)
    if settings.weights is not None:
        if not isinstance(encoder, StageEncoder):
            raise ConfigError(f"{settings.backbone} has its own weights; remove the weights setting.")
        load_resnet(encoder.network, settings.weights)
    return encoder


def _detected(
    detector: FasterRcnn, rules: Sequence[BoxRule], padded: bool, items: Sequence[Item]
) -> list[list[Regions]]:
    pictures = [item.picture for item in items]
    boxes = [item.boxes for item in items if item.boxes is not None]
    if not boxes:  # without `given`, no item has boxes; with it, all have
        return [select(detection, rules) for detection in detector(pictures, padded=padded)]
    detections = detector(pictures, boxes=boxes, padded=padded)
    return [[describe(detection, given)] for detection, given in zip(detections, boxes, strict=True)]


def _on_map(encoder: MapEncoder, cells: tuple[int, int] | None, items: Sequence[Item]) -> list[list[Regions]]:
    return [[_of_map(encoder, cells, item)] for item in items]


def _of_map(encoder: MapEncoder, cells: tuple[int, int] | None, item: Item) -> Regions:
    pixels = item.picture.pixels[None].to(next(encoder.parameters()).device)
    features = encoder(pixels)[0].float()
    if item.boxes is None:
        return grid_regions(features, item.picture, cells)
    return box_regions(features, item.picture, item.boxes)
