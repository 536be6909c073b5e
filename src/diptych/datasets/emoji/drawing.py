"""Draws emoji with a font, and finds the font of the system."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont, features

from diptych.errors import ConfigError, FormatError

NAME = "NotoColorEmoji.ttf"
PLACES = ("/usr/share/fonts", "/usr/local/share/fonts", "~/.local/share/fonts", "~/.fonts")
SIZE = 109  # the only size of the pictures in Noto Color Emoji
SIDE = 136  # pixels; its pictures are 136 by 128
NOBODY = "\U0010ffff"  # a code point that never gets a character


def find_font(path: Path | None) -> Path:
    """The font that is given, or Noto Color Emoji in the folders of fonts.

    Raises:
        ConfigError: there is none; says what to install.
    """
    if path is not None:
        if not path.is_file():
            raise ConfigError(f"{path} is not a font file; expected one such as {NAME}.")
        return path
    for place in PLACES:
        if found := sorted(Path(place).expanduser().rglob(NAME)):
            return found[0]
    raise ConfigError(
        f"{NAME} is in none of {', '.join(PLACES)}. Install it (Debian, Ubuntu: apt install "
        "fonts-noto-color-emoji), or give another font with --font FILE."
    )


class Drawer:
    """Draws one emoji in the middle of a white square.

    Args:
        path: a font with pictures in color, or with outlines.

    Raises:
        ConfigError: Pillow cannot join code points to one emoji.
        FormatError: the file is no font.
    """

    def __init__(self, path: Path) -> None:
        # Without it, a family of three would be three people and two marks of missing characters.
        if not features.check("raqm"):
            raise ConfigError("this Pillow is built without Raqm, which joins code points; use its wheel.")
        try:
            self.font = ImageFont.truetype(str(path), SIZE, layout_engine=ImageFont.Layout.RAQM)
        except OSError as error:
            raise FormatError(f"{path}: no font that can draw at {SIZE} pixels ({error}).") from error
        self.missing = self._drawn(NOBODY)

    def __call__(self, text: str) -> Image.Image | None:
        """The picture; None if the font does not have it."""
        # A font that does not know a sequence draws its parts side by side.
        if self.font.getlength(text) > 1.5 * SIZE:
            return None
        picture = self._drawn(text)
        pixels = np.asarray(picture)
        unknown = np.array_equal(pixels, np.asarray(self.missing))
        return None if unknown or pixels.min() == 255 else picture

    def _drawn(self, text: str) -> Image.Image:
        picture = Image.new("RGB", (SIDE, SIDE), "white")
        left, top, right, bottom = self.font.getbbox(text)
        place = (SIDE - right - left) / 2, (SIDE - bottom - top) / 2
        ImageDraw.Draw(picture).text(place, text, fill="black", font=self.font, embedded_color=True)
        return picture
