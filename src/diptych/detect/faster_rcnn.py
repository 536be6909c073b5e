"""Faster R-CNN as bottom-up attention uses it: ResNet-101 to its third stage, the fourth on every region.

Anderson et al., 2017, https://arxiv.org/abs/1707.07998. Original: peteanderson80/bottom-up-attention, in
torch airsplay/py-bottom-up-attention, the source of LXMERT's and Vilio's features. Differs: pictures never
share a padded batch unless asked to, since the padding moves proposals. The network of detectron2's COCO
models of that kind is the same with other options.
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

STRIDE = 16
HEAD_CHUNK = 64  # regions at a time: 0.4 GB in single precision at full size, and no slower than more


class Proposer(nn.Module):
    """The region proposal network: how likely every anchor holds an object, and how to move it.

    Args:
        before: anchors that go into suppression, `after` come out at most.
        threshold: overlap from which a box suppresses a less likely one.
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
        """Boxes in a picture of (width, height) and their logits, best first."""
        height, width = features.shape[1:]
        hidden = F.relu(self.conv(features[None]))
        logits = self.objectness(hidden)[0].float().permute(1, 2, 0).flatten()
        deltas = self.deltas(hidden)[0].float().permute(1, 2, 0).reshape(-1, 4)
        grid = anchors(height, width, sizes=self.sizes, ratios=self.ratios, stride=STRIDE)
        best = logits.argsort(descending=True, stable=True)[: self.before]
        boxes = clip_boxes(decode_boxes(grid.to(logits.device)[best], deltas[best]), size)
        real = has_area(boxes)
        boxes, logits = boxes[real], logits[best][real]
        kept = nms(boxes, logits, self.threshold, limit=self.after)
        return boxes[kept], logits[kept]


class BoxHead(nn.Module):
    """Class, box and attribute of a region; the attribute looks at the likeliest class or background."""

    def __init__(self, dim: int, classes: int, attributes: int | None) -> None:
        super().__init__()
        self.classes = nn.Linear(dim, classes + 1)
        self.deltas = nn.Linear(dim, 4 * classes)
        self.class_vectors = self.attribute_hidden = self.attributes = None
        if attributes is not None:
            self.class_vectors = nn.Embedding(classes + 1, dim // 8)
            self.attribute_hidden = nn.Linear(dim + dim // 8, dim // 4)
            self.attributes = nn.Linear(dim // 4, attributes + 1)

    def forward(
        self, features: Float[Tensor, "R D"]
    ) -> tuple[Float[Tensor, "R C"], Float[Tensor, "R E"], Float[Tensor, "R A"] | None]:
        logits, deltas = self.classes(features), self.deltas(features)
        if self.class_vectors is None or self.attribute_hidden is None or self.attributes is None:
            return logits, deltas, None
        vectors = self.class_vectors(logits.argmax(1))
        hidden = F.relu(self.attribute_hidden(torch.cat([features, vectors], 1)))
        return logits, deltas, self.attributes(hidden)


class FasterRcnn(nn.Module):
    """Pictures to detections; `select` makes regions of them, `prepare` makes pictures.

    Under autocast only the convolutions are computed in the lower precision. Everything is frozen: there is
    no training loss.

    Args:
        attributes: None leaves the attribute head out.
        blocks: of the four stages of the ResNet; `stem`, `width`, `outputs` and `groups` are its channels.
        rpn_hidden: channels of the proposal network; None means those of the map.
        before: see `Proposer`, also for `proposal_threshold`; `proposals` is how many regions a picture has.
        pool: `max` is RoIPool, `align` is RoIAlign; `pool_size` cells on each side come out.
        stride_first: see `ResNet`; detectron2's `STRIDE_IN_1X1`.
        caffe: pool and dilate as Caffe's models do; without, as detectron2's own.
        dilate: dilate the last stage instead of halving its resolution; None means `caffe`.
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
        """One detection per picture. Pictures go through the body one by one, their regions together.

        Args:
            boxes: of every picture, in its own pixels; None lets the network propose them.
            padded: put the pictures into one batch, padded with zeros, as Vilio did for `vg` with 4 pictures
                at a time in the order of the folder. A picture's regions then depend on the others.
        """
        if not pictures:
            return []
        maps = self._maps(pictures, padded)
        if boxes is None:
            found = [self.proposer(one, p.resized) for one, p in zip(maps, pictures, strict=True)]
            places, objectness = [boxes for boxes, _ in found], [logits for _, logits in found]
        else:
            places = [_shrink(one, p).to(maps[0].device) for one, p in zip(boxes, pictures, strict=True)]
            objectness = [None] * len(places)
        features = self.features(maps, places)
        with torch.autocast(features.device.type, enabled=False):
            results = self.predictor(features)
        counts = [len(one) for one in places]
        parts = zip(
            *([None] * len(counts) if one is None else one.split(counts) for one in results), strict=True
        )
        return [
            Detection(
                size=picture.size,
                resized=picture.resized,
                boxes=place,
                objectness=one,
                features=vectors,
                class_logits=logits,
                deltas=deltas,
                attribute_logits=attributes,
            )
            for picture, place, one, vectors, (logits, deltas, attributes) in zip(
                pictures, places, objectness, features.split(counts), parts, strict=True
            )
        ]

    def features(
        self, maps: Sequence[Float[Tensor, "D _ _"]], boxes: Sequence[Float[Tensor, "_ 4"]]
    ) -> Float[Tensor, "R F"]:
        """One vector per box of all pictures, in their order; boxes in resized pixels."""
        operator = roi_pool if self.pool == "max" else roi_align
        pooled = torch.cat(
            [
                operator(one, at, size=self.pool_size, scale=1 / STRIDE)
                for one, at in zip(maps, boxes, strict=True)
            ]
        )
        # Part by part, for the regions of one picture take a quarter of a gigabyte as it is.
        parts = (part.contiguous(memory_format=torch.channels_last) for part in pooled.split(HEAD_CHUNK))
        return torch.cat([self.resnet.layer4(part).float().mean((2, 3)) for part in parts])

    def _init(self) -> None:
        """As detectron2: untrained, boxes are about the anchors. Pixels are many times larger than 1."""
        nn.init.constant_(self.resnet.bn1.weight, 0.02)
        parts = (self.proposer.conv, self.proposer.objectness, self.proposer.deltas, self.predictor.classes)
        for part, std in (*((one, 0.01) for one in parts), (self.predictor.deltas, 0.001)):
            nn.init.normal_(part.weight, std=std)
            nn.init.zeros_(part.bias)  # type: ignore[arg-type]

    def _maps(self, pictures: Sequence[Picture], padded: bool) -> list[Float[Tensor, "D _ _"]]:
        device = self.predictor.classes.weight.device
        if not padded:
            return [self.resnet.body(picture.pixels[None].to(device))[0] for picture in pictures]
        wide, high = (max(side) for side in zip(*(picture.resized for picture in pictures), strict=True))
        room = [(0, wide - width, 0, high - height) for width, height in (p.resized for p in pictures)]
        batch = [F.pad(picture.pixels, more) for picture, more in zip(pictures, room, strict=True)]
        return list(self.resnet.body(torch.stack(batch).to(device)))


def _shrink(boxes: Float[Tensor, "R 4"], picture: Picture) -> Float[Tensor, "R 4"]:
    """From the picture's pixels to those of the resized one."""
    (width, height), (wide, high) = picture.size, picture.resized
    return boxes.float() * torch.tensor([wide / width, high / height] * 2, device=boxes.device)


PRESETS: dict[str, dict[str, Any]] = {
    "vg": {},
    "vgattr": {"attributes": 400},
    "vgattr-original": {"attributes": 400},
    "coco": {
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
        "prepare": DetectorTransform(least=120, most=200),
    },
}


def build_detector(preset: str, **overrides: Any) -> FasterRcnn:
    """A detector of published weights, to be filled with `convert.load_detector`.

    `vg` has Visual Genome's 1600 classes, `vgattr` also its 400 attributes; `vgattr-original` is the same
    network with other weights, made for 10 to 100 boxes. `coco` is detectron2's R-101-C4. `tiny` has no
    published weights; it is for trying things out.

    Raises:
        ConfigError: another name.
    """
    if preset not in PRESETS:
        raise ConfigError(
            f"detector {preset!r}: expected one of {', '.join(PRESETS)}.{nearest(preset, PRESETS)}"
        )
    return FasterRcnn(**{**PRESETS[preset], **overrides})
