"""Bits equal to imagehash's, and the walk along the diagonal that Vilio takes."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diptych.datasets.hashes import crude_hash, fingerprint, perceptual_hash
from diptych.errors import FormatError


def noise(size: tuple[int, int], mode: str, seed: int) -> Image.Image:
    width, height = size
    channels = len(Image.new(mode, (1, 1)).getbands())
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)
    return Image.fromarray(pixels.squeeze())


def stripes(size: tuple[int, int], period: int) -> Image.Image:
    """Symmetric, so that most frequencies vanish and their bits are decided by rounding."""
    columns = (np.arange(size[0]) // period % 2 * 255).astype(np.uint8)
    return Image.fromarray(np.tile(columns, (size[1], 1)))


# str(imagehash.phash(picture)), imagehash 4.3.2
PEERS = {
    "rgb": (noise((400, 100), "RGB", 1), "fbb816b09701aba3"),
    "rgba": (noise((64, 97), "RGBA", 2), "e99f82b59ac4508f"),
    "gray": (noise((31, 32), "L", 3), "f23f2813c1ff1903"),
    "palette": (noise((90, 70), "RGB", 4).quantize(16), "d53b4e05c29d5e1c"),
    "stripes": (stripes((64, 64), 8), "8000000000000000"),
    "symmetric": (stripes((50, 30), 5), "8000000000000000"),
    "gradient": (Image.radial_gradient("L"), "ee989837e69ac819"),
    "white": (Image.new("RGB", (50, 50), "white"), "8000000000000000"),
    "flat": (Image.new("RGB", (50, 40), (3, 4, 5)), "8000000000000000"),
}


@pytest.mark.parametrize("name", PEERS)
def test_bits_equal_those_of_imagehash(name: str) -> None:
    picture, expected = PEERS[name]
    assert f"{perceptual_hash(picture):016x}" == expected


def test_scaled_pictures_stay_near_and_others_do_not() -> None:
    small = noise((8, 8), "RGB", 5)
    one, other = (small.resize(size, Image.Resampling.BICUBIC) for size in ((320, 240), (161, 200)))
    stranger = noise((8, 8), "RGB", 6).resize((320, 240), Image.Resampling.BICUBIC)
    assert (perceptual_hash(one) ^ perceptual_hash(other)).bit_count() <= 4
    assert (perceptual_hash(one) ^ perceptual_hash(stranger)).bit_count() > 15


def canvas(*colors: tuple[int, ...], size: tuple[int, int] = (5, 4)) -> np.ndarray:
    """A black picture with colors down the diagonal from its top right corner."""
    pixels = np.zeros((size[1], size[0], len(colors[0])), dtype=np.uint8)
    for step, color in enumerate(colors):
        pixels[step, size[0] - 1 - step] = color
    return pixels


@pytest.mark.parametrize(
    ("pixels", "expected"),
    [
        (canvas((9, 8, 7)), "45987"),
        (canvas((255, 8, 7), (1, 8, 7), (9, 9, 7), (9, 7, 7), size=(5, 5)), "55997"),  # the first inside
        (canvas((9, 9, 9), (2, 3, 2)), "45232"),  # red need not differ from blue
        (canvas((9, 8, 7, 0)), "45987"),  # transparency does not count
        (canvas((0,), (7,))[..., 0], "45777"),
        (canvas((0, 5), (7, 5)), "45777"),
        (canvas((0, 0, 0)), "45"),
        (np.tile(np.array([0, 0, 7, 7], np.uint8)[:, None, None], (1, 2, 3)), "42"),  # the walk leaves it
    ],
)
def test_the_first_telling_color_counts(pixels: np.ndarray, expected: str) -> None:
    assert crude_hash(pixels) == expected


def test_a_file_is_hashed_as_it_lies_there(tmp_path: Path) -> None:
    picture = noise((40, 30), "RGB", 7)
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.save(tmp_path / "turned.png", exif=exif)
    found = fingerprint(tmp_path / "turned.png")
    assert found.perceptual == perceptual_hash(picture)
    assert found.crude.startswith("3040")


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(FormatError, match=r"text\.png: "):
        fingerprint(tmp_path / "text.png")
    with pytest.raises(FormatError, match=r"gone\.png: "):
        fingerprint(tmp_path / "gone.png")
    noise((40, 30), "RGB", 7).save(tmp_path / "large.png")
    with pytest.raises(FormatError, match=r"large\.png: .* 40 x 30 "):
        fingerprint(tmp_path / "large.png", max_pixels=100)
