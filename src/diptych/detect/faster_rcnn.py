"""Faster R-CNN of bottom-up attention: three stages of ResNet-101 on the image, the fourth on every region.

Anderson et al., 2017, https://arxiv.org/abs/1707.07998. Original: peteanderson80/bottom-up-attention; in
PyTorch airsplay/py-bottom-up-attention, which computed LXMERT's and Vilio's features. Difference: images are
not padded to a common size unless requested, because padding changes the proposals. detectron2's C4 models
for COCO are the same network with other options.
"""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from diptych.data.transform import CAFFE_MEAN, COCO_MEAN, DetectorTransform, Picture
from diptych.detect.selection import Detection
from diptych.errors import ConfigError, nearest
from diptych.nn.resnet import Bottleneck, ResNet
from diptych.nn.roi import anchors, clip_boxes, decode_boxes, has_area, nms, roi_align, roi_pool

STRIDE = 16  # pixels per cell of the feature map
HEAD_CHUNK = 64  # regions at a time: 0.4 GB in float32 at full size; more are not faster


class Proposer(nn.Module):
    """The region proposal network: scores every anchor as object or background, and refines its box.

    Args:
        before: number of anchors before suppression, best first; `after` is the maximum after it.
        threshold: IoU above which a box suppresses one with a lower score.
    """

    def __init__(
        self,
        inputs: int,
        hidden: int,
        *,
        sizes: Sequence[int],
        ratios: Sequence[int | float],
        before: int,
        after: int,
        threshold: float,
    ) -> None:
        super().__init__()
        self.sizes, self.ratios = tuple(sizes), tuple(ratios)
        self.before, self.after, self.threshold = before, after, threshold
        count = len(self.sizes) * len(self.ratios)
        self.conv = nn.Conv2d(inputs, hidden, 3, 1, 1)
        self.objectness = nn.Conv2d(hidden, count, 1)
        self.deltas = nn.Conv2d(hidden, 4 * count, 1)

    def forward(
        self, features: Float[Tensor, "D h w"], size: tuple[int, int]
    ) -> tuple[Float[Tensor, "R 4"], Float[Tensor, " R"]]:
        """Boxes in an image of `size` (width, height), and their logits, best first."""
        height, width = features.shape[1:]
        hidden = F.relu(self.conv(features[None]))
        # from (anchors per cell, h, w) to one row per anchor, in the order of `anchors`
        logits = self.objectness(hidden)[0].float().permute(1, 2, 0).flatten()
        deltas = self.deltas(hidden)[0].float().permute(1, 2, 0).reshape(-1, 4)
        grid = anchors(height, width, sizes=self.sizes, ratios=self.ratios, stride=STRIDE)
        # stable: ties keep their order, so that every device proposes the same boxes
        best = logits.argsort(descending=True, stable=True)[: self.before]
        boxes = clip_boxes(decode_boxes(grid.to(logits.device)[best], deltas[best]), size)
        real = has_area(boxes)  # clipping makes boxes outside of the image empty
        boxes, logits = boxes[real], logits[best][real]
        kept = nms(boxes, logits, self.threshold, limit=self.after)
        return boxes[kept], logits[kept]


class BoxHead(nn.Module):
    """Predicts class, box and attribute of a region; the attribute depends on the likeliest class."""

    def __init__(self, dim: int, classes: int, attributes: int | None) -> None:
        super().__init__()
        self.classes = nn.Linear(dim, classes + 1)
        self.deltas = nn.Linear(dim, 4 * classes)
        self.class_vectors = self.attribute_hidden = self.attributes = None
        if attributes is not None:
            # 256 and 512 for the 2048 channels of the published weights
            self.class_vectors = nn.Embedding(classes + 1, dim // 8)
            self.attribute_hidden = nn.Linear(dim + dim // 8, dim // 4)
            self.attributes = nn.Linear(dim // 4, attributes + 1)

    def forward(
        self, features: Float[Tensor, "R D"]
    ) -> tuple[Float[Tensor, "R C"], Float[Tensor, "R E"], Float[Tensor, "R A"] | None]:
        logits, deltas = self.classes(features), self.deltas(features)
        if self.class_vectors is None or self.attribute_hidden is None or self.attributes is None:
            return logits, deltas, None
        vectors = self.class_vectors(logits.argmax(1))  # the background is a class here
        hidden = F.relu(self.attribute_hidden(torch.cat([features, vectors], 1)))
        return logits, deltas, self.attributes(hidden)


class FasterRcnn(nn.Module):
    """Computes detections from images that `prepare` has prepared; `select` turns them into regions.

    Under autocast, only the convolutions run in lower precision. All parameters are frozen, and there is no
    training loss.

    Args:
        attributes: number of attributes; None means no attribute head.
        blocks: blocks per stage of the ResNet; for `stem`, `width`, `outputs` and `groups` see `ResNet`.
        rpn_hidden: channels of the proposal network; None means those of the feature map.
        before: see `Proposer`, also for `proposal_threshold`.
        proposals: maximum number of regions per image.
        pool: `max` is RoIPool, `align` is RoIAlign; the result has `pool_size` cells per side.
        stride_first: see `ResNet`; detectron2's `STRIDE_IN_1X1`.
        caffe: pooling and dilation of Caffe's models; otherwise those of detectron2's own.
        dilate: dilate the last stage instead of halving its resolution; None means the value of `caffe`.
    """

    def __init__(
        self,
        *,
        classes: int = 1600,
        attributes: int | None = None,
        blocks: tuple[int, int, int, int] = (3, 4, 23, 3),
        stem: int = 64,
        width: int = 64,
        outputs: int | None = None,
        groups: int = 1,
        stride_first: bool = True,
        rpn_hidden: int | None = 512,
        anchor_sizes: Sequence[int] = (64, 128, 256, 512),
        anchor_ratios: Sequence[int | float] = (0.5, 1, 2),
        before: int = 6000,
        proposals: int = 300,
        proposal_threshold: float = 0.7,
        pool: Literal["max", "align"] = "max",
        pool_size: int = 14,
        caffe: bool = True,
        dilate: bool | None = None,
        prepare: DetectorTransform | None = None,
    ) -> None:
        super().__init__()
        self.prepare = prepare or DetectorTransform(mean=CAFFE_MEAN if caffe else COCO_MEAN)
        self.pool, self.pool_size = pool, pool_size
        self.resnet = ResNet(
            Bottleneck,
            blocks,
            width=width,
            outputs=outputs,
            groups=groups,
            stem=stem,
            classes=None,
            stride_first=stride_first,
            caffe_pool=caffe,
            dilate_last=caffe if dilate is None else dilate,
            freeze_batch_norm=True,
        )
        self.proposer = Proposer(
            self.resnet.body_dim,
            rpn_hidden or self.resnet.body_dim,
            sizes=anchor_sizes,
            ratios=anchor_ratios,
            before=before,
            after=proposals,
            threshold=proposal_threshold,
        )
        self.dim = self.resnet.dim
        self.predictor = BoxHead(self.dim, classes, attributes)
        self._init()
        self.eval().requires_grad_(False)

    def forward(
        self,
        pictures: Sequence[Picture],
        *,
        boxes: Sequence[Float[Tensor, "_ 4"]] | None = None,
        padded: bool = False,
    ) -> list[Detection]:
        """Compute one detection per image. Images go through the body one by one, their regions together.

        Args:
            boxes: boxes of every image, in pixels of the original image; None means proposals.
            padded: put the images into one batch, padded with zeros, as Vilio did for `vg` with 4 images at a
                time in the order of the folder. The regions of an image then depend on the others.
        """
        if not pictures:
            return []
        maps = self._maps(pictures, padded)
        if boxes is None:
            proposals = [self.proposer(x, p.resized) for x, p in zip(maps, pictures, strict=True)]
            places, objectness = [boxes for boxes, _ in proposals], [logits for _, logits in proposals]
        else:
            # given boxes are in pixels of the original image, proposals in those of the resized one
            places = [_shrink(given, p).to(maps[0].device) for given, p in zip(boxes, pictures, strict=True)]
            objectness = [None] * len(places)
        features = self.features(maps, places)
        # scores are compared with thresholds later, so they are computed in single precision
        with torch.autocast(features.device.type, enabled=False):
            results = self.predictor(features)
        counts = [len(place) for place in places]
        # per image: class logits, deltas and, if there are any, attribute logits
        parts = zip(
            *([None] * len(counts) if part is None else part.split(counts) for part in results), strict=True
        )
        return [
            Detection(
                size=picture.size,
                resized=picture.resized,
                boxes=place,
                objectness=strength,
                features=vectors,
                class_logits=logits,
                deltas=deltas,
                attribute_logits=attributes,
            )
            for picture, place, strength, vectors, (logits, deltas, attributes) in zip(
                pictures, places, objectness, features.split(counts), parts, strict=True
            )
        ]

    def features(
        self, maps: Sequence[Float[Tensor, "D _ _"]], boxes: Sequence[Float[Tensor, "_ 4"]]
    ) -> Float[Tensor, "R F"]:
        """One vector per box of all images, in their order; boxes are in pixels of the resized images."""
        operator = roi_pool if self.pool == "max" else roi_align
        pooled = torch.cat(
            [
                operator(x, at, size=self.pool_size, scale=1 / STRIDE)
                for x, at in zip(maps, boxes, strict=True)
            ]
        )
        # In chunks: the pooled regions of one image alone take a quarter of a gigabyte.
        parts = (part.contiguous(memory_format=torch.channels_last) for part in pooled.split(HEAD_CHUNK))
        return torch.cat([self.resnet.layer4(part).float().mean((2, 3)) for part in parts])

    def _init(self) -> None:
        """Initialize as detectron2: boxes of an untrained network are close to the anchors."""
        nn.init.constant_(self.resnet.bn1.weight, 0.02)  # inputs are pixels up to 255, not of unit variance
        parts = (self.proposer.conv, self.proposer.objectness, self.proposer.deltas, self.predictor.classes)
        for part, std in (*((part, 0.01) for part in parts), (self.predictor.deltas, 0.001)):
            nn.init.normal_(part.weight, std=std)
            nn.init.zeros_(part.bias)  # type: ignore[arg-type]

    def _maps(self, pictures: Sequence[Picture], padded: bool) -> list[Float[Tensor, "D _ _"]]:
        device = self.predictor.classes.weight.device
        if not padded:
            return [self.resnet.body(picture.pixels[None].to(device))[0] for picture in pictures]
        # padding is on the right and below, so boxes need no shift
        wide, high = (max(side) for side in zip(*(picture.resized for picture in pictures), strict=True))
        room = [(0, wide - width, 0, high - height) for width, height in (p.resized for p in pictures)]
        batch = [F.pad(picture.pixels, more) for picture, more in zip(pictures, room, strict=True)]
        return list(self.resnet.body(torch.stack(batch).to(device)))


def _shrink(boxes: Float[Tensor, "R 4"], picture: Picture) -> Float[Tensor, "R 4"]:
    """Scale boxes from pixels of the original image to those of the resized one."""
    (width, height), (wide, high) = picture.size, picture.resized
    return boxes.float() * torch.tensor([wide / width, high / height] * 2, device=boxes.device)


PRESETS: dict[str, dict[str, Any]] = {
    "vg": {},
    "vgattr": {"attributes": 400},
    "vgattr-original": {"attributes": 400},
    "coco": {  # detectron2's COCO-Detection/faster_rcnn_R_101_C4_3x
        "classes": 80,
        "rpn_hidden": None,
        "anchor_sizes": (32, 64, 128, 256, 512),
        "pool": "align",
        "caffe": False,
    },
    "tiny": {
        "classes": 20,
        "attributes": 5,
        "blocks": (1, 1, 1, 1),
        "stem": 16,
        "width": 8,
        "rpn_hidden": 32,
        "proposals": 60,
        "pool_size": 6,
        "prepare": DetectorTransform(least=120, most=200),
    },
}


def build_detector(preset: str, **overrides: Any) -> FasterRcnn:
    """Build the network of published weights; `convert.fill_detector` loads them.

    `vg` has Visual Genome's 1600 classes, `vgattr` also its 400 attributes; `vgattr-original` is the same
    network for other weights, meant for 10 to 100 boxes. `coco` is detectron2's R-101-C4. `tiny` has no
    published weights; it is for tests and tutorials.

    Raises:
        ConfigError: the name is unknown.
    """
    if preset not in PRESETS:
        raise ConfigError(
            f"detector {preset!r}: expected one of {', '.join(PRESETS)}.{nearest(preset, PRESETS)}"
        )
    return FasterRcnn(**{**PRESETS[preset], **overrides})
