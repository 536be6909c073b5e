"""ResNet, in pure torch, with the parameter names of torchvision's weight files.

He et al., 2015, https://arxiv.org/abs/1512.03385. The default is v1.5, as in torchvision: a bottleneck that
halves the resolution does so in its 3x3 convolution. Caffe's original (v1) does it in the first 1x1.
Detectors use two parts: `body` gives the feature map of stride 16, `layer4` is applied to each region.
"""

from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F


class Basic(nn.Module):
    """Two 3x3 convolutions and a shortcut; for the arguments see `Bottleneck`."""

    expansion = 1

    def __init__(
        self,
        inputs: int,
        width: int,
        outputs: int,
        stride: int,
        *,
        stride_first: bool = False,
        dilation: int = 1,
        groups: int = 1,
    ) -> None:
        super().__init__()
        # No bias: the norm behind each convolution would subtract it again.
        self.conv1 = nn.Conv2d(inputs, width, 3, stride, dilation, dilation, groups, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, outputs, 3, 1, dilation, dilation, groups, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample = _shortcut(inputs, outputs, stride)

    def forward(self, x: Float[Tensor, "B d h w"]) -> Float[Tensor, "B D H W"]:
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = self.bn2(self.conv2(y))
        return F.relu(y + self.downsample(x), inplace=True)


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions and a shortcut.

    Args:
        width: channels of the 3x3 convolution.
        outputs: channels of the block's output.
        stride_first: reduce the resolution in the first convolution (v1) instead of the second (v1.5).
        dilation: dilation of the 3x3 convolution.
        groups: groups of the 3x3 convolution.
    """

    expansion = 4

    def __init__(
        self,
        inputs: int,
        width: int,
        outputs: int,
        stride: int,
        *,
        stride_first: bool = False,
        dilation: int = 1,
        groups: int = 1,
    ) -> None:
        super().__init__()
        first, second = (stride, 1) if stride_first else (1, stride)  # v1 or v1.5
        self.conv1 = nn.Conv2d(inputs, width, 1, first, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, second, dilation, dilation, groups, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.downsample = _shortcut(inputs, outputs, stride)

    def forward(self, x: Float[Tensor, "B d h w"]) -> Float[Tensor, "B D H W"]:
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = F.relu(self.bn2(self.conv2(y)), inplace=True)
        y = self.bn3(self.conv3(y))
        return F.relu(y + self.downsample(x), inplace=True)


def _shortcut(inputs: int, outputs: int, stride: int) -> nn.Module:
    if stride == 1 and inputs == outputs:
        return nn.Identity()
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))


class ResNet(nn.Module):
    """Image network from pixels to one vector: class logits, or the average features if it has no `fc`.

    Args:
        blocks: number of blocks in each of the four stages.
        width: channels inside the blocks of the first stage; every further stage doubles them.
        outputs: output channels of the first stage, doubled likewise; None means `block.expansion * width`.
            detectron2 calls this RES2_OUT_CHANNELS, and `width` is its NUM_GROUPS x WIDTH_PER_GROUP.
        groups: groups of the 3x3 convolutions.
        classes: outputs of `fc`; None leaves `fc` out.
        stride_first: v1 instead of v1.5, see `Bottleneck`.
        freeze_batch_norm: keep the statistics and scales of batch norms as loaded, for small batches.
        stem: channels of the first convolution; None means `width`.
        caffe_pool: the first pooling has no padding and rounds its output size up, as in Caffe.
        dilate_last: the last stage keeps the resolution and dilates its 3x3 convolutions instead.
        frozen: number of parts that are not trained: 1 freezes the first convolution, 2 the first stage too.
    """

    def __init__(
        self,
        block: type[Basic | Bottleneck],
        blocks: tuple[int, int, int, int],
        *,
        width: int = 64,
        outputs: int | None = None,
        groups: int = 1,
        classes: int | None = 1000,
        stride_first: bool = False,
        freeze_batch_norm: bool = False,
        stem: int | None = None,
        caffe_pool: bool = False,
        dilate_last: bool = False,
        frozen: int = 0,
    ) -> None:
        super().__init__()
        channels, first = stem or width, outputs or block.expansion * width
        self.conv1 = nn.Conv2d(3, channels, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.pool = nn.MaxPool2d(3, 2, 0 if caffe_pool else 1, ceil_mode=caffe_pool)  # Caffe's rounding
        make = partial(block, stride_first=stride_first, groups=groups)
        stages = []
        for stage, count in enumerate(blocks):
            dilation = 2 if dilate_last and stage == 3 else 1
            layers = []
            for number in range(count):
                # The first block of every stage but the first one halves the resolution, or dilates instead.
                stride = 2 if stage and not number and dilation == 1 else 1
                layers.append(make(channels, width << stage, first << stage, stride, dilation=dilation))
                channels = first << stage
            stages.append(nn.Sequential(*layers))
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.fc = nn.Identity() if classes is None else nn.Linear(channels, classes)
        self.dim = channels if classes is None else classes
        self.body_dim = channels // 2  # each stage doubles the channels
        self._init(freeze_batch_norm)
        # `frozen` counts the first convolution and its norm as one part, hence one more here.
        for part in [self.conv1, self.bn1, *stages][: frozen + 1 if frozen else 0]:
            part.requires_grad_(False)
        self.freeze_batch_norm = freeze_batch_norm
        if freeze_batch_norm:
            for norm in self._norms():
                norm.requires_grad_(False)

    def forward(self, pixels: Float[Tensor, "B 3 h w"]) -> Float[Tensor, "B D"]:
        vector: Tensor = self.fc(self.layer4(self.body(pixels)).mean((2, 3)))
        return vector

    def body(self, pixels: Float[Tensor, "B 3 h w"]) -> Float[Tensor, "B D H W"]:
        """Feature map of the third stage, one cell per 16 x 16 pixels."""
        # Convolutions are fastest in this memory layout; the weights keep theirs.
        x = pixels.contiguous(memory_format=torch.channels_last)
        x = self.pool(F.relu(self.bn1(self.conv1(x)), inplace=True))
        maps: Tensor = self.layer3(self.layer2(self.layer1(x)))
        return maps

    def train(self, mode: bool = True) -> "ResNet":
        super().train(mode)
        # Frozen norms use their stored statistics in training, too.
        if self.freeze_batch_norm:
            for norm in self._norms():
                norm.eval()
        return self

    def _norms(self) -> list[nn.BatchNorm2d]:
        return [part for part in self.modules() if isinstance(part, nn.BatchNorm2d)]

    def _init(self, frozen_norms: bool) -> None:
        for part in self.modules():
            if isinstance(part, nn.Conv2d):
                nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")
            elif frozen_norms and isinstance(part, Basic | Bottleneck):
                # Frozen norms of a random network do not normalize: without a small scale, the residual sums
                # explode over the blocks.
                nn.init.constant_((part.bn2 if isinstance(part, Basic) else part.bn3).weight, 0.3)


def resnet50(**overrides: Any) -> ResNet:
    """50 layers: 25.6 M parameters with `fc`."""
    return ResNet(Bottleneck, (3, 4, 6, 3), **overrides)


def resnet101(**overrides: Any) -> ResNet:
    """101 layers: 44.5 M parameters with `fc`."""
    return ResNet(Bottleneck, (3, 4, 23, 3), **overrides)


def resnet152(**overrides: Any) -> ResNet:
    """152 layers: 60.2 M parameters with `fc`."""
    return ResNet(Bottleneck, (3, 8, 36, 3), **overrides)


def resnet_tiny(**overrides: Any) -> ResNet:
    """10 layers, 16 to 128 channels, no `fc`: 0.3 M parameters, learns from scratch on small pictures."""
    return ResNet(Basic, (1, 1, 1, 1), **{"width": 16, "classes": None, **overrides})
