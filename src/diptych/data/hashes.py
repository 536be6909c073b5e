"""Fingerprints of picture files, by which copies are found."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Shaped
from numpy import ndarray
from PIL import Image
from scipy.fft import dct

from diptych.data.images import MAX_PIXELS, explained, require_small
from diptych.files import require_file

SIDE, LOW = 32, 8  # pixels per side that are transformed, and lowest frequencies kept


class Fingerprint(NamedTuple):
    """What is kept of a picture.

    Args:
        perceptual: 64 bits that survive scaling and recompression; equal to `imagehash.phash`.
        crude: size and one color, which tell apart pictures that look alike; equal to that of Vilio.
    """

    perceptual: int
    crude: str


def fingerprint(path: Path | str, *, max_pixels: int = MAX_PIXELS) -> Fingerprint:
    """Read a picture and hash its pixels as they are in the file.

    Neither rotation nor transparency is applied and JPEGs are decoded in full, because the bits have to be
    those of `imagehash` on the open file.

    Raises:
        FormatError: names the file that is missing, unreadable, cut off or too large.
    """
    try:
        with Image.open(require_file(path, "a picture file")) as file:
            require_small(file, path, max_pixels)
            return Fingerprint(perceptual_hash(file), crude_hash(np.asarray(file)))
    except Exception as error:  # decoders raise whatever they stumble over
        raise explained(error, path, max_pixels) from error


def perceptual_hash(image: Image.Image) -> int:
    """Which of the 8 x 8 lowest cosine frequencies of the gray picture exceed their median, row by row.

    The highest bit is the first. scipy's transform, and no matrix product: on symmetric pictures the median
    is a rounding error, and every other order of the sums gives other bits.
    """
    gray = np.asarray(image.convert("L").resize((SIDE, SIDE), Image.Resampling.LANCZOS))
    low = dct(dct(gray, axis=0), axis=1)[:LOW, :LOW]
    return int.from_bytes(np.packbits(low > np.median(low)).tobytes(), "big")


def crude_hash(pixels: Shaped[ndarray, "H W *channels"]) -> str:
    """Height, width and the first telling color on the diagonal from the top right corner, in one string.

    Telling is a red strictly between 1 and 255 with red unlike green and green unlike blue; where there is
    none, such a red alone. Gray pictures and palettes give their one value three times. Where Vilio stops
    with an error, on pictures without any such value, the color is left out.
    """
    height, width = pixels.shape[:2]
    steps = np.arange(min(height, width))
    diagonal = pixels[steps, width - 1 - steps].astype(int).reshape(len(steps), -1)
    if diagonal.shape[1] < 3:
        diagonal = np.repeat(diagonal[:, :1], 3, axis=1)
    red, green, blue = diagonal.T[:3]
    inside = (red > 1) & (red < 255)
    colored = inside & (red != green) & (green != blue)
    found = np.flatnonzero(colored if colored.any() else inside)
    return f"{height}{width}" + "".join(map(str, diagonal[found[0], :3] if found.size else ()))
