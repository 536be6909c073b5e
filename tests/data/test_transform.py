import numpy as np
import pytest
import torch
from PIL import Image

from diptych.data import DetectorTransform, SquareTransform
from diptych.errors import ConfigError, FormatError
from diptych.images import open_image


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


def test_a_square_is_squashed_or_cut_out_of_the_middle():
    picture = Image.fromarray(np.repeat(np.arange(60, dtype=np.uint8)[None, :, None], 20, 0).repeat(3, 2))
    squashed = SquareTransform(size=20, mean=(0, 0, 0), std=(1, 1, 1))(picture) * 255
    middle = SquareTransform(size=20, shape="crop", mean=(0, 0, 0), std=(1, 1, 1))(picture) * 255
    assert squashed.shape == middle.shape == (3, 20, 20)
    assert squashed[0, 0, 0] < 3
    assert middle[0, 0].tolist() == pytest.approx(list(range(20, 40)))


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (300, 7)])
def test_pictures_of_any_size_and_of_gray_become_squares(size):
    picture = open_image(Image.new("L", size, 128))
    for shape in ("squash", "crop"):
        pixels = SquareTransform(size=8, shape=shape)(picture)
        assert pixels.shape == (3, 8, 8)
        assert pixels.isfinite().all()


def test_a_crop_of_an_endless_picture_is_refused():
    with pytest.raises(FormatError, match="1 x 200 pixels would become 224 x 44800"):
        SquareTransform(shape="crop")(Image.new("RGB", (1, 200)))


@pytest.mark.parametrize("options", [{"size": 0}, {"shape": "round"}, {"std": (1, 1, 0)}, {"mean": (1,)}])
def test_settings_of_a_square_out_of_range_are_refused(options):
    with pytest.raises(ConfigError, match="square"):
        SquareTransform(**options)
