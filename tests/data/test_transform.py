import numpy as np
import pytest
import torch
from PIL import Image

from diptych.data import DetectorTransform
from diptych.errors import FormatError


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((800, 600), (800, 600)),
        ((640, 480), (800, 600)),
        ((480, 640), (600, 800)),
        ((500, 500), (600, 600)),
        ((1000, 300), (1000, 300)),
        ((2000, 500), (1000, 250)),
        ((1, 1), (600, 600)),
    ],
)
def test_the_shorter_side_is_600_unless_the_longer_one_would_exceed_1000(size, expected):
    assert DetectorTransform().resized(*size) == expected


def test_pixels_are_blue_first_less_the_mean():
    image = Image.new("RGB", (20, 10), (10, 20, 30))
    picture = DetectorTransform(least=5, most=100, mean=(1, 2, 3))(image)
    assert (picture.size, picture.resized) == ((20, 10), (10, 5))
    expected = torch.tensor([29.0, 18.0, 7.0])[:, None, None].expand(3, 5, 10)
    assert torch.equal(picture.pixels, expected)
    assert picture.pixels.is_contiguous()


def test_resizing_is_antialiased_and_rounds_to_bytes():
    stripes = np.zeros((8, 16, 3), np.uint8)
    stripes[:, ::2] = 255
    pixels = DetectorTransform(least=3, most=100, mean=(0, 0, 0))(Image.fromarray(stripes)).pixels
    assert torch.equal(pixels, pixels.round())
    assert ((pixels[:, :, 1:-1] - 127).abs() < 20).all(), "without antialiasing, stripes would remain"


def test_a_picture_of_which_nothing_would_remain_is_refused():
    with pytest.raises(FormatError, match=r"2000 x 2 .*1000 x 1\b.* 3 "):
        DetectorTransform()(Image.new("RGB", (2000, 2)))


def test_vlbert_cuts_the_fractions_of_sizes():
    assert DetectorTransform(truncate=True).resized(333, 500) == (600, 900)
    assert DetectorTransform().resized(333, 500) == (600, 901)


def test_settings_may_come_from_yaml():
    white = Image.new("RGB", (4, 4), "white")
    pixels = DetectorTransform(least=4, most=4, mean=[255, 0, 51.0], std=[1, 255, 2], blue_first=False)(
        white
    ).pixels
    assert pixels[:, 0, 0].tolist() == [0, 1, 102]
