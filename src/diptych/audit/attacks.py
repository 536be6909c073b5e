"""Changes of memes that a person sees through: what a classifier must survive.

An attack on words changes the text that a model reads, an attack on pictures the picture. Both keep the
meaning, so a right answer stays right.
"""

from collections.abc import Callable, Mapping, Sequence
from io import BytesIO

import numpy as np
from numpy.random import Generator
from PIL import Image, ImageFilter

from diptych.detect.ocr import Box, Line

WordAttack = Callable[[str, Generator], str]
PictureAttack = Callable[[Image.Image], Image.Image]

# What readers of text mistake for each other.
CONFUSED: Mapping[str, str] = {
    **{"o": "0", "0": "o", "l": "1", "1": "l", "i": "l", "s": "5", "5": "s", "b": "6", "g": "9", "z": "2"},
    **{"m": "rn", "w": "vv", "e": "c", "c": "e", "u": "v", "n": "h", "h": "n", "t": "f", "a": "o"},
}
LEET: Mapping[str, str] = {"a": "4", "e": "3", "i": "1", "o": "0", "s": "5", "t": "7", "b": "8", "g": "9"}
# Cyrillic letters that look like Latin ones; the names keep the difference visible in this file.
HOMOGLYPHS: Mapping[str, str] = {
    "a": "\N{CYRILLIC SMALL LETTER A}",
    "c": "\N{CYRILLIC SMALL LETTER ES}",
    "e": "\N{CYRILLIC SMALL LETTER IE}",
    "i": "\N{CYRILLIC SMALL LETTER BYELORUSSIAN-UKRAINIAN I}",
    "o": "\N{CYRILLIC SMALL LETTER O}",
    "p": "\N{CYRILLIC SMALL LETTER ER}",
    "s": "\N{CYRILLIC SMALL LETTER DZE}",
    "x": "\N{CYRILLIC SMALL LETTER HA}",
    "y": "\N{CYRILLIC SMALL LETTER U}",
}
NOISE = 0.05  # errors per character, the rate of a mediocre reader
LOST = 0.4  # share of those errors at which the character disappears
SWAPPED = 0.5  # share of letters that leetspeak and homoglyphs replace
QUALITY = 15  # of JPEG: that of a picture that was sent on many times
CROPPED = 0.1  # share of each side that is cut off, half of it at each end
BLURRED = 0.01  # radius, as share of the shorter side


def ocr_noise(text: str, generator: Generator) -> str:
    """Make the errors of a reader of text: letters are confused or lost, spaces disappear."""
    return "".join(_misread(one, generator) for one in text)


def leetspeak(text: str, generator: Generator) -> str:
    """Write digits for letters."""
    return _replaced(text, LEET, generator)


def homoglyphs(text: str, generator: Generator) -> str:
    """Write Cyrillic letters that look like the Latin ones."""
    return _replaced(text, HOMOGLYPHS, generator)


def jpeg(image: Image.Image) -> Image.Image:
    """Compress strongly."""
    saved = BytesIO()
    image.save(saved, "JPEG", quality=QUALITY)
    with Image.open(saved) as file:
        return file.convert("RGB")


def resize(image: Image.Image) -> Image.Image:
    """Reduce to half of both sides."""
    return image.resize((max(1, image.width // 2), max(1, image.height // 2)), Image.Resampling.BILINEAR)


def crop(image: Image.Image) -> Image.Image:
    """Cut off the edges."""
    x, y = (int(CROPPED / 2 * side) for side in image.size)
    return image.crop((x, y, image.width - x, image.height - y))


def blur(image: Image.Image) -> Image.Image:
    """Put it out of focus."""
    return image.filter(ImageFilter.GaussianBlur(BLURRED * min(image.size)))


def mirror(image: Image.Image) -> Image.Image:
    """Flip left and right."""
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


def upside_down(image: Image.Image) -> Image.Image:
    """Turn by 180 degrees."""
    return image.transpose(Image.Transpose.ROTATE_180)


WORDS: Mapping[str, WordAttack] = {
    "OCR noise": ocr_noise,
    "leetspeak": leetspeak,
    "homoglyphs": homoglyphs,
}
PICTURES: Mapping[str, PictureAttack] = {
    "JPEG": jpeg,
    "resize": resize,
    "crop": crop,
    "blur": blur,
    "mirror": mirror,
    "upside down": upside_down,
}


def move_caption(image: Image.Image, lines: Sequence[Line]) -> Image.Image:
    """Move captions to the opposite height of the picture; what they covered is filled in roughly."""
    moved, boxes = image.copy(), [_inside(line.box, image.size) for line in lines if not line.scene]
    patches = [image.crop(box) for box in boxes]
    # All gaps are filled first: a caption may move to the place of another one.
    for box in boxes:
        moved.paste(_filling(image, box), box)
    for (x1, _, _, y2), patch in zip(boxes, patches, strict=True):
        moved.paste(patch, (x1, image.height - y2))
    return moved


def _inside(box: Box, size: tuple[int, int]) -> tuple[int, int, int, int]:
    (x1, y1, x2, y2), (width, height) = map(round, box), size
    x1, y1 = min(max(x1, 0), width - 1), min(max(y1, 0), height - 1)
    return x1, y1, max(min(x2, width), x1 + 1), max(min(y2, height), y1 + 1)


def _filling(image: Image.Image, box: tuple[int, int, int, int]) -> Image.Image:
    """Blend the rows above and below a box, which is what a caption usually covers."""
    x1, y1, x2, y2 = box
    pixels = np.asarray(image)[:, x1:x2]
    above, below = pixels[max(y1 - 1, 0)], pixels[min(y2, image.height - 1)]
    share = np.linspace(0, 1, y2 - y1)[:, None, None]
    return Image.fromarray(((1 - share) * above + share * below).astype(np.uint8))


def _misread(character: str, generator: Generator) -> str:
    if generator.random() >= NOISE:
        return character
    other = CONFUSED.get(character.lower())
    if other is None or generator.random() < LOST:
        return ""
    return other.upper() if character.isupper() else other


def _replaced(text: str, letters: Mapping[str, str], generator: Generator) -> str:
    # One number per character, so that every letter has its own chance.
    draws = generator.random(len(text))
    both = zip(text, draws, strict=True)
    return "".join(_as(one, letters) if draw < SWAPPED else one for one, draw in both)


def _as(character: str, letters: Mapping[str, str]) -> str:
    other = letters.get(character.lower(), character)
    return other.upper() if character.isupper() else other
