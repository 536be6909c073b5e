"""Reads picture files as RGB, and converts RGB to normalized pixels for ImageNet networks.

A picture may lie in a ZIP: `train_image.zip@/7.jpg` is its member `7.jpg`, or the file in the folder
`train_image` where the archive was unpacked. VL-BERT and MM-BERT write such paths.
"""

import io
import re
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from diptych.archives import member_size, read_member
from diptych.errors import FormatError
from diptych.files import require_file

MAX_PIXELS = 80_000_000  # Pillow warns of decompression bombs from 89 million
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
MAX_BYTES = 1 << 28  # of a picture in an archive
# Archives in several parts, `train.0.zip`, `train.1.zip`, are unpacked to one folder.
MEMBER = re.compile(r"(?P<archive>(?P<folder>.+?)(?P<part>\.\d+)?\.zip)@/(?P<name>.+)", re.DOTALL)
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


def picture_exists(path: Path | str) -> bool:
    """Whether a picture, or the archive that should hold it, is there; archives are not opened."""
    return any(place.exists() for place in _places(path))


def unpacked(path: Path) -> Path:
    """The file of a picture where its archive is unpacked; the path itself if it is nowhere."""
    return next((place for place in _places(path)[:-1] if place.is_file()), path)


def _places(path: Path | str) -> tuple[Path, ...]:
    """Where a picture may lie: the file itself, or behind unpacked folders the archive that has it."""
    if (found := MEMBER.fullmatch(str(path))) is None:
        return (Path(path),)
    folder, part, name = found["folder"], found["part"] or "", found["name"]
    return (Path(f"{folder}{part}", name), Path(folder, name), Path(found["archive"]))


def _member(path: Path | str) -> str:
    return str(path).partition(".zip@/")[2]


def picture_bytes(path: Path | str) -> int | None:
    """Size of the file of a picture, the same in an archive and out of it; None if it is nowhere.

    Raises:
        FormatError: the archive that should have it is damaged.
    """
    *_, place = _places(path)
    if (found := unpacked(Path(path))).is_file():
        return found.stat().st_size
    # The file itself was looked for above.
    inside = place != Path(path) and place.is_file()
    return member_size(place, _member(path)) if inside else None


def picture_source(path: Path | str) -> Path | io.BytesIO:
    """A file that Pillow can open.

    Raises:
        FormatError: it does not exist, or the archive that should have it does not have it.
    """
    *_, place = _places(path)
    if (found := unpacked(Path(path))).is_file():
        return found
    if place != Path(path):
        return io.BytesIO(read_member(require_file(place, "an archive"), _member(path), largest=MAX_BYTES))
    return require_file(place, "a picture file")


def open_image(
    image: Path | str | Image.Image,
    *,
    max_pixels: int = MAX_PIXELS,
    at_least: int | None = None,
    as_opencv: bool = False,
) -> Image.Image:
    """Open a picture as upright RGB.

    EXIF rotation is applied, transparency becomes white, and 16-bit gray is scaled to 8 bits. Palettes, CMYK
    and gray are converted. Animations give their first frame.

    Args:
        image: a file, or an already opened picture.
        max_pixels: larger pictures are rejected before they are decoded.
        at_least: decode JPEG at a half, quarter or eighth of its size if both sides keep at least this number
            of pixels. Several times faster for photographs; pixels differ slightly from a full decode.
        as_opencv: convert like `cv2.imread`, with which published features were made: the alpha channel is
            dropped, which shows hidden colors, and 16-bit gray is divided by 256.

    Raises:
        FormatError: the file is missing, unreadable, truncated or too large.
    """
    if isinstance(image, Image.Image):
        return _to_rgb(image, as_opencv)
    try:
        with Image.open(picture_source(image)) as file:
            require_small(file, image, max_pixels)
            if at_least is not None:
                # Only JPEG has this; other formats ignore it.
                file.draft("RGB", (at_least, at_least))
            return _upright(file, as_opencv)
    except Exception as error:  # decoders raise many kinds of errors
        raise explained(error, image, max_pixels) from error


def decode_image(
    data: bytes, *, formats: Sequence[str], name: str = "the picture", max_pixels: int = MAX_PIXELS
) -> tuple[Image.Image, bool]:
    """Decode a picture in memory as `open_image` does a file, to the same pixels.

    Args:
        data: an encoded picture; its content decides the format.
        formats: of Pillow, such as `JPEG`; decoders of others, of which Pillow has forty, are never asked.
        name: what errors call the picture.
        max_pixels: larger pictures are rejected before they are decoded.

    Returns:
        The upright picture as RGB, and whether it is the first frame of an animation.

    Raises:
        FormatError: as `open_image`.
    """
    try:
        with Image.open(BytesIO(data), formats=tuple(formats)) as file:
            require_small(file, name, max_pixels)
            animated = bool(getattr(file, "is_animated", False))
            return _upright(file), animated
    except Exception as error:  # decoders raise many kinds of errors
        raise explained(error, name, max_pixels) from error


def _upright(file: Image.Image, as_opencv: bool = False) -> Image.Image:
    # Before the pixels are loaded, which some formats drop the metadata after.
    turn = UPRIGHT.get(_orientation(file))
    file.load()
    rgb = _to_rgb(file, as_opencv)
    return rgb if turn is None else rgb.transpose(turn)


def image_size(path: Path | str, *, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """Read the width and height of the upright picture from the header of its file.

    Raises:
        FormatError: as `open_image`, for errors that the header shows.
    """
    try:
        with Image.open(picture_source(path)) as file:
            require_small(file, path, max_pixels)
            width, height = file.size
            # Orientations 5 to 8 turn the picture by 90 degrees.
            return (height, width) if _orientation(file) >= 5 else (width, height)
    except Exception as error:  # decoders raise many kinds of errors
        raise explained(error, path, max_pixels) from error


def to_pixels(image: Image.Image, size: int) -> Float[Tensor, "3 size size"]:
    """Resize a picture to `size` x `size` (distorting, antialiased) and normalize it as for ImageNet."""
    if image.size != (size, size):
        image = image.resize((size, size), Image.Resampling.BILINEAR)
    values = torch.from_numpy(np.array(image)).permute(2, 0, 1).to(torch.float32)
    std = torch.tensor(STD)[:, None, None]
    mean = torch.tensor(MEAN)[:, None, None]
    # (value / 255 - mean) / std in two passes, and in place.
    return values.mul_(1 / (255 * std)).sub_(mean / std).contiguous()


def _to_rgb(image: Image.Image, as_opencv: bool) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I;16") or image.mode == "I":
        step = 256 if as_opencv else 257  # 65535 / 257 = 255 exactly
        image = Image.fromarray((np.asarray(image).clip(0, 65535) // step).astype(np.uint8))
    if not as_opencv and image.has_transparency_data:
        image = image.convert("RGBA")
        # Dropping the alpha channel instead would show colors that nobody was meant to see.
        white = Image.new("RGB", image.size, "white")
        white.paste(image, mask=image.getchannel("A"))
        return white
    return image.convert("RGB")


def _orientation(file: Image.Image) -> int:
    """Read the EXIF orientation, 1 to 8, without decoding pixels; 1 if it is missing or damaged."""
    turned = file.format == "TIFF"  # Pillow's TIFF reader already applies it
    behind = file.format == "PNG" and "exif" not in file.info  # reading it would decode the pixels before it
    if turned or behind:
        return 1
    try:
        # Damaged metadata must not make a picture useless.
        value = file.getexif().get(ORIENTATION, 1)
    except (OSError, SyntaxError, ValueError, KeyError, TypeError):
        return 1
    return value if value in UPRIGHT else 1


def require_small(file: Image.Image, path: Path | str, max_pixels: int) -> None:
    """Check the size of a picture before it is decoded.

    Raises:
        FormatError: it has more than `max_pixels` pixels.
    """
    width, height = file.size
    if width * height > max_pixels:
        raise FormatError(
            f"{path}: the picture has {width} x {height} pixels; expected at most {max_pixels / 1e6:g} "
            "million in all. Shrink it."
        )


def explained(error: Exception, path: Path | str, max_pixels: int) -> Exception:
    """Convert an error of a decoder to one that names the file."""
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
