"""Pictures as the detectors take them: shorter side 600, longer side at most 1000, BGR less its mean."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from diptych.errors import FormatError

CAFFE_MEAN = (102.9801, 115.9465, 122.7717)  # blue, green, red
COCO_MEAN = (103.53, 116.28, 123.675)
LEAST = 3  # pixels, of which the network still makes a cell


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """One picture, resized; `size` is the (width, height) that it came with."""

    pixels: Float[Tensor, "3 h w"]
    size: tuple[int, int]

    @property
    def resized(self) -> tuple[int, int]:
        """Width and height of the pixels."""
        height, width = self.pixels.shape[1:]
        return width, height


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepare:
    """From an RGB picture to what a detector takes; small enough to travel to loader workers.

    Equal to the original's chain of `cv2.imread` and Pillow's antialiased resize of 8-bit values, given the
    same RGB values. The original drops transparency, whereas `data.open_image` lays pictures on white.

    Args:
        least: pixels of the shorter side, unless the longer one would exceed `most`.
        mean: subtracted from blue, green, red; then all is divided by `std`.
        blue_first: order of `mean`, `std` and the pixels; off, it is red, green, blue.
        square: every picture gets `least` x `least` pixels, which distorts it.
    """

    least: int = 600
    most: int = 1000
    mean: tuple[int | float, int | float, int | float] = CAFFE_MEAN
    std: tuple[int | float, int | float, int | float] = (1, 1, 1)
    blue_first: bool = True
    square: bool = False

    def __call__(self, image: Image.Image) -> Picture:
        """Resize and normalize.

        Raises:
            FormatError: the picture is so long that nothing of its shorter side would remain.
        """
        width, height = self.resized(*image.size)
        if min(width, height) < LEAST:
            raise FormatError(
                f"a picture of {image.width} x {image.height} pixels would become {width} x {height}; "
                f"expected at least {LEAST} pixels on the shorter side. Cut it into parts."
            )
        small = image.resize((width, height), Image.Resampling.BILINEAR)
        values = np.asarray(small, np.float32)[:, :, :: -1 if self.blue_first else 1]
        scaled = np.divide(values - np.array(self.mean, np.float32), np.array(self.std, np.float32))
        pixels = torch.from_numpy(np.ascontiguousarray(scaled.transpose(2, 0, 1)))
        return Picture(pixels=pixels, size=image.size)

    def resized(self, width: int, height: int) -> tuple[int, int]:
        """Width and height that a picture of this size gets."""
        if self.square:
            return self.least, self.least
        scale = self.least / min(width, height)
        wide, high = (scale * width, self.least) if height < width else (self.least, scale * height)
        if max(wide, high) > self.most:
            scale = self.most / max(wide, high)
            wide, high = wide * scale, high * scale
        return int(wide + 0.5), int(high + 0.5)
