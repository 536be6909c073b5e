"""Picture files to RGB, and RGB to what an ImageNet network takes."""

import re
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from diptych.errors import FormatError
from diptych.files import require_file

MAX_PIXELS = 80_000_000  # below the 89 million from which Pillow itself warns of decompression bombs
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
ORIENTATION = 0x0112  # the EXIF tag
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def open_image(
    image: Path | str | Image.Image,
    *,
    max_pixels: int = MAX_PIXELS,
    at_least: int | None = None,
    as_opencv: bool = False,
) -> Image.Image:
    """The picture as upright RGB.

    EXIF rotation is undone, transparency becomes white, of an animation the first frame counts, 16-bit gray
    is scaled to 8 bits; palettes, CMYK and gray are converted.

    Args:
        image: a file, or a picture that somebody has opened already.
        max_pixels: larger pictures are refused before they are decoded.
        at_least: let JPEG decode to a half, quarter or eighth of the size as long as both sides keep this
            many pixels. Several times faster for photographs; pixels differ slightly from a full decode.
        as_opencv: as `cv2.imread`, through which the published features went: transparency is dropped and
            shows its hidden colors, 16-bit gray is divided by 256.

    Raises:
        FormatError: names the file that is missing, unreadable, cut off or too large.
    """
    if isinstance(image, Image.Image):
        return _to_rgb(image, as_opencv)
    try:
        with Image.open(require_file(image, "a picture file")) as file:
            require_small(file, image, max_pixels)
            turn = UPRIGHT.get(_orientation(file))
            if at_least is not None:
                file.draft("RGB", (at_least, at_least))
            file.load()
            rgb = _to_rgb(file, as_opencv)
            return rgb if turn is None else rgb.transpose(turn)
    except Exception as error:  # decoders raise whatever they stumble over
        raise explained(error, image, max_pixels) from error


def image_size(path: Path | str, *, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """Width and height of the upright picture, from the head of the file only.

    Raises:
        FormatError: as `open_image`, as far as the head of the file shows it.
    """
    try:
        with Image.open(require_file(path, "a picture file")) as file:
            require_small(file, path, max_pixels)
            width, height = file.size
            return (height, width) if _orientation(file) >= 5 else (width, height)
    except Exception as error:  # decoders raise whatever they stumble over
        raise explained(error, path, max_pixels) from error


def to_pixels(image: Image.Image, size: int) -> Float[Tensor, "3 size size"]:
    """The picture resized to `size` x `size` (distorting, antialiased) and normalized as for ImageNet."""
    if image.size != (size, size):
        image = image.resize((size, size), Image.Resampling.BILINEAR)
    values = torch.from_numpy(np.array(image)).permute(2, 0, 1).to(torch.float32)
    std = torch.tensor(STD)[:, None, None]
    mean = torch.tensor(MEAN)[:, None, None]
    return values.mul_(1 / (255 * std)).sub_(mean / std).contiguous()


def _to_rgb(image: Image.Image, as_opencv: bool) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I;16") or image.mode == "I":
        step = 256 if as_opencv else 257
        image = Image.fromarray((np.asarray(image).clip(0, 65535) // step).astype(np.uint8))
    if not as_opencv and image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGB", image.size, "white")
        white.paste(image, mask=image.getchannel("A"))
        return white
    return image.convert("RGB")


def _orientation(file: Image.Image) -> int:
    """EXIF orientation 1 to 8, 1 where there is none or its block is broken; never decodes pixels."""
    turned = file.format == "TIFF"  # by Pillow, as only its TIFF reader does
    behind = file.format == "PNG" and "exif" not in file.info  # to look there, Pillow would decode the pixels
    if turned or behind:
        return 1
    try:
        value = file.getexif().get(ORIENTATION, 1)
    except (OSError, SyntaxError, ValueError, KeyError, TypeError):
        return 1
    return value if value in UPRIGHT else 1


def require_small(file: Image.Image, path: Path | str, max_pixels: int) -> None:
    """Refuse a picture before it is decoded.

    Raises:
        FormatError: it has more pixels.
    """
    width, height = file.size
    if width * height > max_pixels:
        raise FormatError(
            f"{path}: the picture has {width} x {height} pixels; expected at most {max_pixels / 1e6:g} "
            "million in all. Shrink it."
        )


def explained(error: Exception, path: Path | str, max_pixels: int) -> Exception:
    """What a decoder stumbled over, as an error that names the file."""
    match error:
        case FormatError() | MemoryError():
            return error
        case Image.DecompressionBombError() | Image.DecompressionBombWarning():
            pixels = next(iter(re.findall(r"\d+", str(error))), "too many")
            return FormatError(
                f"{path}: the picture has {pixels} pixels; expected at most {max_pixels / 1e6:g} million in "
                "all. Shrink it."
            )
        case UnidentifiedImageError():
            return FormatError(f"{path}: not a picture in a known format; expected PNG, JPEG, WebP, GIF, ...")
        case _:
            return FormatError(
                f"{path}: the picture cannot be read ({error}). Is the file damaged or cut off?"
            )
