"""MobileNetV2 and EfficientNet-Lite0: small image networks, with torchvision's names for MobileNetV2.

Sandler et al., 2018, https://arxiv.org/abs/1801.04381. EfficientNet-Lite0 is Google's EfficientNet-B0 (Tan
and Le, 2019, https://arxiv.org/abs/1905.11946) without squeeze-and-excitation and with ReLU6. Both are stacks
of one block, the inverted residual.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

# Of each stage: expansion, channels, blocks, stride of the first block, kernel.
V2 = ((1, 16, 1, 1, 3), (6, 24, 2, 2, 3), (6, 32, 3, 2, 3), (6, 64, 4, 2, 3), (6, 96, 3, 1, 3),
      (6, 160, 3, 2, 3), (6, 320, 1, 1, 3))  # fmt: skip
LITE0 = ((1, 16, 1, 1, 3), (6, 24, 2, 2, 3), (6, 40, 2, 2, 5), (6, 80, 3, 2, 3), (6, 112, 3, 1, 5),
         (6, 192, 4, 2, 5), (6, 320, 1, 1, 3))  # fmt: skip


class Convolution(nn.Conv2d):
    """A convolution without bias, padded by half the kernel, or as TensorFlow pads.

    Args:
        as_tensorflow: pad so that the output has `ceil(size / stride)` cells, with the odd pixel on the right
            and below: a stride of 2 then reads other pixels than with the padding of torch.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int, *, groups: int = 1, as_tensorflow: bool
    ) -> None:
        padding = 0 if as_tensorflow else kernel // 2
        super().__init__(inputs, outputs, kernel, stride, padding, groups=groups, bias=False)
        self.as_tensorflow = as_tensorflow

    def forward(self, x: Float[Tensor, "B d h w"]) -> Float[Tensor, "B D H W"]:
        if self.as_tensorflow:
            kernel, stride = self.kernel_size[0], self.stride[0]
            height, width = (max((-(-n // stride) - 1) * stride + kernel - n, 0) for n in x.shape[2:])
            x = F.pad(x, (width // 2, width - width // 2, height // 2, height - height // 2))
        return super().forward(x)


class InvertedResidual(nn.Module):
    """1x1 to more channels, a filter per channel, 1x1 to few channels without activation, a shortcut."""

    def __init__(
        self, inputs: int, outputs: int, stride: int, *, expansion: int, kernel: int, lite: bool, eps: float
    ) -> None:
        super().__init__()
        width = inputs * expansion
        parts = [_active(inputs, width, 1, 1, lite=lite, eps=eps)] if expansion > 1 else []
        parts.append(_active(width, width, kernel, stride, groups=width, lite=lite, eps=eps))
        last = (nn.Conv2d(width, outputs, 1, bias=False), nn.BatchNorm2d(outputs, eps=eps))
        self.conv = nn.Sequential(*parts, *last)
        self.shortcut = stride == 1 and inputs == outputs

    def forward(self, x: Float[Tensor, "B d h w"]) -> Float[Tensor, "B D H W"]:
        y: Tensor = self.conv(x)
        return x + y if self.shortcut else y


class MobileNet(nn.Module):
    """Image network from pixels to one vector: class logits, or the average features if it has no classifier.

    Args:
        classes: outputs of the classifier; None leaves it out.
        lite: TensorFlow's padding and batch norm, for EfficientNet-Lite.
    """

    def __init__(
        self, stages: Sequence[Sequence[int]], *, classes: int | None = None, lite: bool = False
    ) -> None:
        super().__init__()
        eps, channels = 1e-3 if lite else 1e-5, 32  # a stem of 32 channels
        parts: list[nn.Module] = [_active(3, channels, 3, 2, lite=lite, eps=eps)]
        for expansion, outputs, blocks, stride, kernel in stages:
            for number in range(blocks):
                step = 1 if number else stride
                sizes: dict[str, Any] = {"expansion": expansion, "kernel": kernel, "lite": lite, "eps": eps}
                parts.append(InvertedResidual(channels, outputs, step, **sizes))
                channels = outputs
        self.features = nn.Sequential(*parts, _active(channels, 1280, 1, 1, lite=lite, eps=eps))
        head = None if classes is None else nn.Sequential(nn.Dropout(0.2), nn.Linear(1280, classes))
        self.classifier = nn.Identity() if head is None else head
        self.dim = classes or 1280
        for part in self.modules():
            if isinstance(part, nn.Conv2d):
                # By the inputs: by the outputs, as torchvision does, the filters of one channel each start
                # near zero, and an untrained network in evaluation mode maps all pictures to one vector.
                nn.init.kaiming_normal_(part.weight, nonlinearity="relu")

    def forward(self, pixels: Float[Tensor, "B 3 h w"]) -> Float[Tensor, "B D"]:
        # Convolutions are fastest in this memory layout.
        x = self.features(pixels.contiguous(memory_format=torch.channels_last))
        vector: Tensor = self.classifier(x.mean((2, 3)))
        return vector


def _active(
    inputs: int, outputs: int, kernel: int, stride: int, *, groups: int = 1, lite: bool, eps: float
) -> nn.Sequential:
    conv = Convolution(inputs, outputs, kernel, stride, groups=groups, as_tensorflow=lite)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs, eps=eps), nn.ReLU6())


def mobilenet_v2(*, classes: int | None = None) -> MobileNet:
    """MobileNetV2: 2.2 M parameters, with a classifier of 1000 classes 3.5 M."""
    return MobileNet(V2, classes=classes)


def efficientnet_lite0(*, classes: int | None = None) -> MobileNet:
    """EfficientNet-Lite0: 3.4 M parameters, with a classifier of 1000 classes 4.7 M."""
    return MobileNet(LITE0, classes=classes, lite=True)
