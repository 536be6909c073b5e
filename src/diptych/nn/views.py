"""Weak and strong views of pictures for consistency training: crops, and RandAugment with a cut-out.

Cubuk et al., 2019, https://arxiv.org/abs/1909.13719, in the variant of FixMatch's public PyTorch code, which
nav13n/multimodal-learning uses: every operation is applied with probability 1/2 and a random strength.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image, ImageDraw, ImageEnhance, ImageOps
from torch import Generator, Tensor
from torch.nn import functional as F

from diptych.images import MEAN, STD

MOST = 10  # strengths are whole numbers from 1 to 9
GREY = (127, 127, 127)
MARGIN = 4  # pixels that a crop may move
Change = Callable[[Image.Image, float], Image.Image]


def _enhance(kind: Callable[[Image.Image], Any]) -> Change:
    # Factors below 1 weaken color, contrast and so on, as in the original: 0.05 to 0.95.
    return lambda image, v: kind(image).enhance(v * 0.9 + 0.05)


def _affine(make: Callable[[Image.Image, float], Sequence[float]]) -> Change:
    """Shears and translations; what comes into the picture is black."""
    return lambda image, v: image.transform(image.size, Image.Transform.AFFINE, make(image, v))


# Each takes a strength in (0, 1); those of `SIGNED` also its negative.
SIGNED: dict[str, Change] = {
    "rotate": lambda image, v: image.rotate(30 * v),
    "shear_x": _affine(lambda _, v: (1, 0.3 * v, 0, 0, 1, 0)),
    "shear_y": _affine(lambda _, v: (1, 0, 0, 0.3 * v, 1, 0)),
    "translate_x": _affine(lambda image, v: (1, 0, 0.3 * v * image.width, 0, 1, 0)),
    "translate_y": _affine(lambda image, v: (1, 0, 0, 0, 1, 0.3 * v * image.height)),
}
OPERATIONS: dict[str, Change] = {
    "autocontrast": lambda image, v: ImageOps.autocontrast(image),
    "brightness": _enhance(ImageEnhance.Brightness),
    "color": _enhance(ImageEnhance.Color),
    "contrast": _enhance(ImageEnhance.Contrast),
    "equalize": lambda image, v: ImageOps.equalize(image),
    "identity": lambda image, v: image,
    "posterize": lambda image, v: ImageOps.posterize(image, int(4 * v) + 4),
    "sharpness": _enhance(ImageEnhance.Sharpness),
    "solarize": lambda image, v: ImageOps.solarize(image, 256 - int(256 * v)),
    **SIGNED,
}


def weak_views(
    pixels: Float[Tensor, "B 3 h w"], *, flip: int | float, generator: Generator | None
) -> Float[Tensor, "B 3 h w"]:
    """Move each picture by up to 4 pixels, with reflected margins, and mirror it with probability `flip`."""
    height, width = pixels.shape[2:]
    wide = F.pad(pixels, (MARGIN,) * 4, mode="reflect")
    places = torch.randint(2 * MARGIN + 1, (len(pixels), 2), generator=generator).tolist()
    mirrored = (torch.rand(len(pixels), generator=generator) < flip).tolist()
    views = [
        one[:, top : top + height, left : left + width] for one, (top, left) in zip(wide, places, strict=True)
    ]
    return torch.stack([view.flip(-1) if turn else view for view, turn in zip(views, mirrored, strict=True)])


def strong_views(
    pixels: Float[Tensor, "B 3 h w"],
    *,
    generator: Generator | None,
    operations: int = 2,
    mean: Sequence[int | float] = MEAN,
    std: Sequence[int | float] = STD,
) -> Float[Tensor, "B 3 h w"]:
    """Change each picture by some random operations, and paint a grey square on it.

    Args:
        mean: of the processor that normalized the pictures, like `std`; the operations work on 8-bit colors.
    """
    scale, shift = (torch.tensor(list(one), device=pixels.device)[:, None, None] for one in (std, mean))
    colors = ((pixels * scale + shift) * 255).round().clamp(0, 255).byte().cpu()
    changed = [_changed(one, operations, generator) for one in colors]
    return ((torch.stack(changed).to(pixels) / 255 - shift) / scale).to(pixels.dtype)


def _changed(colors: Tensor, operations: int, generator: Generator | None) -> Tensor:
    image = Image.fromarray(colors.permute(1, 2, 0).numpy())
    names = [*OPERATIONS]

    def draw(count: int) -> int:
        return int(torch.randint(count, (), generator=generator))

    for _ in range(operations):
        name, strength = names[draw(len(names))], (1 + draw(MOST - 1)) / MOST
        if draw(2):
            sign = -1 if name in SIGNED and draw(2) else 1
            image = OPERATIONS[name](image, sign * strength)
    # A seventh of the side: 16 of CIFAR's 32 pixels would hide half of the text of a meme.
    half, left, top = max(1, image.width // 14), draw(image.width), draw(image.height)
    image = image.copy()
    ImageDraw.Draw(image).rectangle((left - half, top - half, left + half - 1, top + half - 1), fill=GREY)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)
