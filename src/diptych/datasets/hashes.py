"""Fingerprints of picture files, for finding copies."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Shaped
from numpy import ndarray
from PIL import Image
from scipy.fft import dct

from diptych.files import require_file
from diptych.images import MAX_PIXELS, explained, require_small

SIDE, LOW = 32, 8  # pixels per side before the transform; lowest frequencies kept per side


class Fingerprint(NamedTuple):
    """Hashes of a picture.

    Args:
        perceptual: 64 bits that do not change with scaling and recompression; equal to `imagehash.phash`.
        crude: size and one color, to distinguish pictures that look alike; equal to Vilio's hash.
    """

    perceptual: int
    crude: str


def fingerprint(path: Path | str, *, max_pixels: int = MAX_PIXELS) -> Fingerprint:
    """Read a picture and hash its pixels as stored in the file.

    EXIF rotation and transparency are ignored and JPEGs are decoded at full size, so that the bits equal
    those of `imagehash` on the opened file.

    Raises:
        FormatError: the file is missing, unreadable, truncated or too large.
    """
    try:
        with Image.open(require_file(path, "a picture file")) as file:
            require_small(file, path, max_pixels)
            return Fingerprint(perceptual_hash(file), crude_hash(np.asarray(file)))
    except Exception as error:  # decoders raise many kinds of errors
        raise explained(error, path, max_pixels) from error


def perceptual_hash(image: Image.Image) -> int:
    """Compare the 8 x 8 lowest cosine frequencies of the gray picture with their median, row by row.

    The highest bit is the first. The transform must be scipy's: on symmetric pictures the median is a
    rounding error, so sums in another order, as in a matrix product, give other bits.
    """
    # The steps of `imagehash.phash`; another filter would give other bits.
    gray = np.asarray(image.convert("L").resize((SIDE, SIDE), Image.Resampling.LANCZOS))
    low = dct(dct(gray, axis=0), axis=1)[:LOW, :LOW]
    return int.from_bytes(np.packbits(low > np.median(low)).tobytes(), "big")


def crude_hash(pixels: Shaped[ndarray, "H W *channels"]) -> str:
    """Join height, width and one color on the diagonal from the top right corner to a string, as Vilio does.

    It is the first color with red strictly between 1 and 255, red unequal to green and green unequal to blue.
    If there is none, only the condition on red counts. Gray pictures and palettes repeat their value three
    times. If no color qualifies, where Vilio stops with an error, the string has no color.
    """
    height, width = pixels.shape[:2]
    steps = np.arange(min(height, width))
    # All pixels of the walk at once: row by row down, column by column to the left.
    diagonal = pixels[steps, width - 1 - steps].astype(int).reshape(len(steps), -1)
    if diagonal.shape[1] < 3:
        diagonal = np.repeat(diagonal[:, :1], 3, axis=1)
    red, green, blue = diagonal.T[:3]
    inside = (red > 1) & (red < 255)
    colored = inside & (red != green) & (green != blue)
    # Without candidates, sizes alone are compared.
    candidates = np.flatnonzero(colored if colored.any() else inside)
    return f"{height}{width}" + "".join(map(str, diagonal[candidates[0], :3] if candidates.size else ()))
