"""Picture transforms: of detectors and end-to-end models (600 x at most 1000 pixels), and of CLIP."""

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
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
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


@dataclass(frozen=True, slots=True, kw_only=True)
class SquareTransform:
    """Resizes an RGB picture to a square and normalizes it, as CLIP and SigLIP do with Pillow.

    Args:
        size: pixels of each side.
        shape: `squash` distorts the picture, which keeps the margins of a meme, where its text is; the
            systems for memes do so. `crop` resizes the shorter side and cuts the middle out (CLIP).
        mean: means of the channels, of values in [0, 1]. The defaults are CLIP's; SigLIP's are 0.5.
        std: standard deviations of the channels.
        floor: compat: round the corner of a crop down, as Hugging Face does. It moves some crops by a pixel.

    Raises:
        ConfigError: the size is outside of 1 to 10,000, or a setting is unknown.
    """

    size: int = 224
    shape: str = "squash"
    mean: Sequence[int | float] = CLIP_MEAN
    std: Sequence[int | float] = CLIP_STD
    floor: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.size <= MOST or self.shape not in ("squash", "crop"):
            raise ConfigError(
                f"processor.square has size {self.size} and shape {self.shape!r}; expected a size from 1 to "
                f"{MOST}, and 'squash' or 'crop'."
            )
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise ConfigError(
                f"processor.square has the means {list(self.mean)} and the deviations {list(self.std)}; "
                "expected 3 of each, and deviations above 0."
            )

    def __call__(self, image: Image.Image) -> Float[Tensor, "3 size size"]:
        """Resize and normalize.

        Raises:
            FormatError: the picture is so long that the resized one would exceed 10,000 pixels.
        """
        width, height = self.resized(*image.size)
        if max(width, height) > MOST:
            raise FormatError(
                f"a picture of {image.width} x {image.height} pixels would become {width} x {height}; "
                f"expected at most {MOST} pixels per side. Set processor.square.shape=squash."
            )
        # On 8-bit values, as in the originals: resizing floats would give other numbers.
        small = (
            image
            if image.size == (width, height)
            else image.resize((width, height), Image.Resampling.BICUBIC)
        )
        left, top = (self._corner(side - self.size) for side in (width, height))
        small = small.crop((left, top, left + self.size, top + self.size))
        values = torch.from_numpy(np.array(small)).permute(2, 0, 1).to(torch.float32)
        mean, std = (torch.tensor(list(one))[:, None, None] for one in (self.mean, self.std))
        # In this order, in which the originals round.
        return values.div_(255).sub_(mean).div_(std).contiguous()

    def resized(self, width: int, height: int) -> tuple[int, int]:
        """Width and height of a picture of this size after resizing and before the crop."""
        if self.shape == "squash":
            return self.size, self.size
        short = min(width, height)
        # The longer side is rounded down, as torchvision does.
        return int(self.size * width / short), int(self.size * height / short)

    def _corner(self, margin: int) -> int:
        # Python rounds halves to even, and so does torchvision.
        return margin // 2 if self.floor else round(margin / 2)
