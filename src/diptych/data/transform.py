"""Pictures as detectors and end-to-end models take them: shorter side 600, longer side at most 1000."""

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
MOST = 10_000  # pixels per side; more would fill the memory
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
class DetectorTransform:
    """From an RGB picture to what a detector takes; small enough to travel to loader workers.

    Equal to the original's chain of `cv2.imread` and Pillow's antialiased resize of 8-bit values, given the
    same RGB values, which `open_image(path, as_opencv=True)` gives.

    Args:
        least: pixels of the shorter side, unless the longer one would exceed `most`.
        mean: subtracted from blue, green, red; then all is divided by `std`.
        blue_first: order of `mean`, `std` and the pixels; off, it is red, green, blue.
        square: every picture gets `least` x `least` pixels, which distorts it.
        truncate: sizes lose their fractions, as in VL-BERT, instead of being rounded.
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
                f"pictures of {self.least} to {self.most} pixels with {len(self.mean)} means and "
                f"{len(self.std)} deviations; expected sides from 1 to {MOST}, and 3 of both."
            )

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
        if self.truncate:
            short, long = sorted((width, height))
            side = min(self.least, int(self.most / long * short))
            return int(side * width / short), int(side * height / short)
        scale = self.least / min(width, height)
        wide, high = (scale * width, self.least) if height < width else (self.least, scale * height)
        if max(wide, high) > self.most:
            scale = self.most / max(wide, high)
            wide, high = wide * scale, high * scale
        return int(wide + 0.5), int(high + 0.5)
