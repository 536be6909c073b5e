"""Memes of the tests' own making, whose captions are known."""

from functools import cache
from io import BytesIO
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

# Free fonts that matplotlib brings along.
FONTS = ("DejaVuSans-Bold", "DejaVuSans", "DejaVuSerif-Bold", "DejaVuSansMono-Bold", "STIXGeneralBol")
CAPTIONS = (
    ("when the code works", "on the first try"),
    ("nobody:", "my cat at 4 am"),
    ("one does not simply", "walk into a meeting on time"),
    ("it's 5 o'clock", "somewhere in the world"),
    ("I told them I would be there", "in 10 minutes"),
    ("brace yourselves", "winter sale is coming"),
    ("why are you like this?", "because I can, that's why"),
    ("my plants seeing me", "bring home another plant"),
    ("not sure if genius", "or just lucky"),
    ("keep calm", "and read the manual"),
    ("you had one job", "and it was this one"),
    ("the weather app said sunny", "the weather app lied"),
    ("look at this photograph", "every time I do it makes me laugh"),
    ("grandma on facebook", "who is this handsome man?"),
    ("when you finally sit down", "and the doorbell rings"),
    ("I don't always test", "but when I do, I do it live"),
    ("they said it was easy", "they were wrong"),
    ("monday morning", "again, already, why"),
    ("my bank account", "after 3 days of holiday"),
    ("such wow", "very dog, much bark"),
)


@cache
def font(name: str, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{name}.ttf", size)


def photograph(width: int, height: int, seed: int) -> Image.Image:
    """Soft blots of color, as a photograph that is out of focus."""
    noise = np.random.default_rng(seed).integers(40, 215, (height // 32, width // 32, 3), dtype=np.uint8)
    return (
        Image.fromarray(noise)
        .resize((width, height), Image.Resampling.BICUBIC)
        .filter(ImageFilter.BoxBlur(4))
    )


def meme(number: int) -> tuple[Image.Image, str]:
    """A meme and its caption: capitals on the picture, or plain letters in white panels; saved as JPEG."""
    rng = np.random.default_rng(number)
    top, bottom = CAPTIONS[number]
    width, height = int(rng.integers(320, 480)), int(rng.integers(240, 400))
    name, panels = FONTS[number % len(FONTS)], number % 10 == 9
    image = photograph(width, height, number)
    draw = ImageDraw.Draw(image)
    for text, upper in ((top, True), (bottom, False)):
        shown = text if panels else text.upper()
        size = min(int(0.12 * height), int(0.92 * width / font(name, 100).getlength(shown) * 100))
        y = int(0.03 * height) if upper else int(0.97 * height)
        if panels:
            draw.rectangle(
                (0, 0, width, 1.4 * size + y) if upper else (0, y - 1.4 * size, width, height), "white"
            )
        draw.text(
            (width / 2, y),
            shown,
            fill="black" if panels else "white",
            font=font(name, size),
            anchor="ma" if upper else "md",
            stroke_width=0 if panels else max(1, size // 14),
            stroke_fill="black",
        )
    saved = BytesIO()
    image.save(saved, "JPEG", quality=int(rng.integers(35, 90)))
    return Image.open(saved).convert("RGB"), f"{top} {bottom}"
