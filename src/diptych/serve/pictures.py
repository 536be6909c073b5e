"""Pictures of strangers: checked before they are decoded, decoded by four formats only."""

from dataclasses import dataclass
from hashlib import sha256
from io import BytesIO

from PIL import Image

from diptych.errors import FormatError
from diptych.images import decode_image
from diptych.serve.limits import Limits
from diptych.serve.problems import Problem

FORMATS = ("JPEG", "PNG", "WEBP", "GIF")
POINTER = "/image"


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoded:
    """A picture as the models read it.

    Args:
        image: upright RGB.
        sha256: of the encoded bytes.
        animated: whether it is the first frame of several.
    """

    image: Image.Image
    sha256: str
    animated: bool = False


def decode(data: bytes, limits: Limits) -> Decoded:
    """Decode a picture to the same pixels as `diptych predict` reads from a file of these bytes.

    Raises:
        Problem: `bad-picture` or `picture-too-big`.
    """
    if not data:
        raise Problem("bad-picture", "the picture is empty; send its bytes.", pointer=POINTER)
    if len(data) > limits.picture:
        raise too_big(f"the picture has {len(data)} bytes; expected at most {limits.picture}.")
    _require_small(data, limits)
    try:
        # Without the reduced decoding of JPEG: scores must equal those of the file on disk, bit for bit.
        image, animated = decode_image(data, formats=FORMATS, max_pixels=limits.pixels)
    except FormatError as error:
        raise _unreadable(error) from error
    return Decoded(image=image, sha256=sha256(data).hexdigest(), animated=animated)


def _require_small(data: bytes, limits: Limits) -> None:
    """Look at the size in the header; nothing is decoded for it."""
    try:
        with Image.open(BytesIO(data), formats=FORMATS) as file:
            width, height = file.size
    except Exception as error:  # decoders raise many kinds of errors
        if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
            raise too_big(f"the picture has more than {limits.pixels} pixels.") from error
        raise _unreadable(error) from error
    if width * height > limits.pixels or max(width, height) > limits.side:
        raise too_big(
            f"the picture has {width} x {height} pixels; expected at most {limits.pixels} in all and "
            f"{limits.side} on a side."
        )


def too_big(detail: str) -> Problem:
    """The problem of a picture beyond a limit."""
    return Problem("picture-too-big", f"{detail} Shrink it.", pointer=POINTER)


def _unreadable(error: Exception) -> Problem:
    known = isinstance(error, MemoryError)
    detail = "there is not enough memory" if known else "it is damaged, cut off, or in another format"
    # The decoder's own words may quote bytes of the picture.
    return Problem(
        "bad-picture",
        f"the picture cannot be read: {detail}; expected JPEG, PNG, WebP or GIF.",
        pointer=POINTER,
    )
