"""The picture transform of detectors and end-to-end models, by default to 600 x at most 1000 pixels."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from diptych.errors import ConfigError, FormatError

CAFFE_MEAN = (102.9801, 115.9465, 122.7717)  # blue, green, red
COCO_MEAN = (103.53, 116.28, 123.675)
MOST = 10_000  # pixels per side; larger pictures would fill the memory
LEAST = 3  # pixels of the shorter side from which the network still makes one cell of its feature map


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """One resized picture; `size` is the (width, height) of the original."""

    pixels: Float[Tensor, "3 h w"]
    size: tuple[int, int]

    @property
    def resized(self) -> tuple[int, int]:
        """Width and height of the pixels."""
        height, width = self.pixels.shape[1:]
        return width, height


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectorTransform:
    """Resizes and normalizes an RGB picture for a detector. It can be pickled for loader workers.

    For equal RGB values, the result equals that of the originals, which use `cv2.imread` and Pillow's
    antialiased resize of 8-bit values. `open_image(path, as_opencv=True)` gives the RGB values of OpenCV.

    Args:
        least: pixels of the shorter side, unless the longer one would exceed `most`.
        most: largest number of pixels of the longer side.
        mean: means of the channels, subtracted before dividing by `std`.
        std: standard deviations of the channels.
        blue_first: the channels of `mean`, `std` and the pixels are blue, green, red; otherwise red, green,
            blue.
        square: resize every picture to `least` x `least` pixels, which distorts it.
        truncate: round sizes down, as VL-BERT does, instead of to the nearest number.

    Raises:
        ConfigError: a side is outside of 1 to 10,000, or there are not 3 means and 3 deviations.
    """

    least: int = 600
    most: int = 1000
    mean: Sequence[int | float] = CAFFE_MEAN
    std: Sequence[int | float] = (1, 1, 1)
    blue_first: bool = True
    square: bool = False
    truncate: bool = False

    def __post_init__(self) -> None:
        if not (1 <= self.least <= MOST and 1 <= self.most <= MOST and len(self.mean) == len(self.std) == 3):
            raise ConfigError(
                f"the picture transform has the sides {self.least} and {self.most}, {len(self.mean)} means "
                f"and {len(self.std)} deviations; expected sides from 1 to {MOST}, 3 means and 3 deviations."
            )

    def __call__(self, image: Image.Image) -> Picture:
        """Resize and normalize.

        Raises:
            FormatError: the picture is so long that its shorter side would have fewer than 3 pixels.
        """
        width, height = self.resized(*image.size)
        if min(width, height) < LEAST:
            raise FormatError(
                f"a picture of {image.width} x {image.height} pixels would become {width} x {height}; "
                f"expected at least {LEAST} pixels on the shorter side. Cut it into several pictures."
            )
        # On 8-bit values, as in the originals: resizing floats would give other numbers.
        small = image.resize((width, height), Image.Resampling.BILINEAR)
        values = np.asarray(small, np.float32)[:, :, :: -1 if self.blue_first else 1]
        scaled = np.divide(values - np.array(self.mean, np.float32), np.array(self.std, np.float32))
        pixels = torch.from_numpy(np.ascontiguousarray(scaled.transpose(2, 0, 1)))
        return Picture(pixels=pixels, size=image.size)

    def resized(self, width: int, height: int) -> tuple[int, int]:
        """Width and height of a picture of this size after resizing."""
        if self.square:
            return self.least, self.least
        if self.truncate:
            # This order of operations is VL-BERT's; another one would round differently.
            short, long = sorted((width, height))
            side = min(self.least, int(self.most / long * short))
            return int(side * width / short), int(side * height / short)
        # As detectron2's ResizeShortestEdge: first the shorter side, then the limit of the longer one.
        scale = self.least / min(width, height)
        wide, high = (scale * width, self.least) if height < width else (self.least, scale * height)
        if max(wide, high) > self.most:
            scale = self.most / max(wide, high)
            wide, high = wide * scale, high * scale
        return int(wide + 0.5), int(high + 0.5)  # `round` would round halves to even
