import io
import os
import re
import struct
import zlib
from contextlib import suppress

import numpy as np
import pytest
import torch
from PIL import Image

from diptych.datasets.hashes import fingerprint
from diptych.errors import FormatError
from diptych.images import UPRIGHT, image_size, open_image, to_pixels

RED, WHITE = (255, 0, 0), (255, 255, 255)


def noise(size=(31, 20), seed=0):
    width, height = size
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


def saved(tmp_path, image, name="picture.png", **options):
    path = tmp_path / name
    image.save(path, **options)
    return path


def bomb(width, height):
    """The head of a PNG that claims a size."""
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", head), (b"IDAT", zlib.compress(b"\0" * 100)), (b"IEND", b"")]
    body = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tiff", "a.webp"])
def test_rgb_is_kept_as_it_is(tmp_path, name):
    path = saved(tmp_path, noise(), name, **({"lossless": True} if name.endswith("webp") else {}))
    image = open_image(path)
    assert image.mode == "RGB"
    assert np.array_equal(image, noise())
    assert image_size(str(path)) == (31, 20)


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "YCbCr", "LAB", "HSV", "I", "I;16", "F", "RGBX"])
def test_every_mode_becomes_rgb(mode):
    image = Image.new(mode, (5, 4))
    opened = open_image(image)
    assert (opened.mode, opened.size) == ("RGB", (5, 4))


def test_palette_keeps_its_colors(tmp_path):
    path = saved(tmp_path, Image.new("RGB", (4, 4), RED).convert("P", palette=Image.Palette.ADAPTIVE))
    with Image.open(path) as file:
        assert file.mode == "P"
    assert open_image(path).getpixel((0, 0)) == RED


def test_cmyk_jpeg_keeps_its_colors(tmp_path):
    path = saved(tmp_path, Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "a.jpg", quality=95)
    assert np.abs(np.subtract(open_image(path).getpixel((8, 8)), RED)).max() < 8


@pytest.mark.parametrize("name", ["a.png", "a.tiff"])
def test_sixteen_bit_gray_is_scaled_not_clipped(tmp_path, name):
    values = np.array([[0, 257 * 100, 65535]], dtype=np.uint16)
    path = saved(tmp_path, Image.fromarray(values), name)
    assert np.array_equal(np.asarray(open_image(path))[..., 0], [[0, 100, 255]])


@pytest.mark.parametrize(
    "image",
    [
        Image.new("RGBA", (3, 3), (0, 0, 0, 0)),
        Image.new("LA", (3, 3), (0, 0)),
        Image.new("PA", (3, 3)),
        Image.new("RGBA", (3, 3), (0, 0, 0, 0)).convert("RGBa"),
    ],
    ids=lambda image: image.mode,
)
def test_transparent_becomes_white(image):
    assert open_image(image).getpixel((1, 1)) == WHITE


def test_half_transparent_is_mixed_with_white(tmp_path):
    path = saved(tmp_path, Image.new("RGBA", (3, 3), (*RED, 128)))
    assert open_image(path).getpixel((0, 0)) == (255, 127, 127)


@pytest.mark.parametrize(("mode", "color"), [("RGB", (1, 2, 3)), ("L", 7), ("P", 0)])
def test_transparent_color_of_a_png_becomes_white(tmp_path, mode, color):
    path = saved(tmp_path, Image.new(mode, (3, 3), color), transparency=color)
    assert open_image(path).getpixel((0, 0)) == WHITE


@pytest.mark.parametrize("name", ["a.gif", "a.png", "a.webp"])
def test_first_frame_of_an_animation(tmp_path, name):
    frames = [Image.new("RGB", (8, 8), color) for color in (RED, (0, 0, 255))]
    path = saved(tmp_path, frames[0], name, save_all=True, append_images=frames[1:], duration=100)
    with Image.open(path) as file:
        assert file.n_frames == 2
    assert np.abs(np.subtract(open_image(path).getpixel((4, 4)), RED)).max() < 8


@pytest.mark.parametrize("orientation", range(9))
@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.tiff"])
def test_exif_rotation_is_undone(tmp_path, orientation, name):
    """What a viewer shows is the picture as it was before the camera was turned."""
    upright = Image.new("RGB", (48, 32), WHITE)
    upright.paste(RED, (0, 0, 16, 16))
    undo = {Image.Transpose.ROTATE_270: Image.Transpose.ROTATE_90}
    undo |= {there: back for back, there in undo.items()}
    turn = UPRIGHT.get(orientation)
    stored = upright if turn is None else upright.transpose(undo.get(turn, turn))
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(tmp_path, stored, name, exif=exif)
    opened = open_image(path)
    assert opened.size == image_size(path) == (48, 32)
    assert np.abs(np.asarray(opened).astype(int) - np.asarray(upright)).mean() < 3


def test_broken_exif_is_no_reason_to_refuse_a_picture(tmp_path):
    path = saved(tmp_path, noise(), "a.jpg", exif=b"Exif\0\0garbage that is no TIFF")
    assert open_image(path).size == image_size(path) == (31, 20)


def test_one_pixel(tmp_path):
    path = saved(tmp_path, Image.new("RGB", (1, 1), RED))
    assert image_size(path) == (1, 1)
    assert to_pixels(open_image(path), 8).shape == (3, 8, 8)


@pytest.mark.parametrize("read", [open_image, image_size])
def test_missing_file_is_named(tmp_path, read):
    with pytest.raises(FormatError, match=r"none\.png: "):
        read(tmp_path / "none.png")


@pytest.mark.parametrize("read", [open_image, image_size])
@pytest.mark.parametrize(
    "content", [b"", b"not a picture", b"\x89PNG\r\n\x1a\n", b"<svg></svg>", b"\xff\xd8\xff"]
)
def test_file_that_is_no_picture_is_named(tmp_path, read, content):
    path = tmp_path / "picture.png"
    path.write_bytes(content)
    with pytest.raises(FormatError, match=r"picture\.png: "):
        read(path)


@pytest.mark.parametrize("read", [open_image, image_size, fingerprint])
def test_what_is_no_file_is_refused_and_not_waited_for(tmp_path, read):
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(FormatError, match=r"pipe\.png: "):
        read(tmp_path / "pipe.png")
    with pytest.raises(FormatError, match=r"^/dev/zero: "):
        read("/dev/zero")
    with pytest.raises(FormatError, match=r"a.*\.png: "):
        read(str(tmp_path / "a\0.png"))


@pytest.mark.parametrize("read", [open_image, image_size])
def test_folder_is_named(tmp_path, read):
    with pytest.raises(FormatError, match=re.escape(f"{tmp_path}: ")):
        read(tmp_path)


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.gif", "a.webp", "a.tiff", "a.bmp"])
def test_truncated_file_is_named(tmp_path, name):
    path = saved(tmp_path, noise((64, 64)), name)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    with pytest.raises(FormatError, match=rf"{name}: "):
        open_image(path)


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.gif", "a.webp", "a.tiff"])
def test_damaged_bytes_give_a_picture_or_one_clear_error(tmp_path, name):
    content = saved(tmp_path, noise((40, 30)), name).read_bytes()
    generator = np.random.default_rng(0)
    path = tmp_path / f"damaged-{name}"
    for _ in range(60):
        damaged = bytearray(content)
        for place in generator.integers(len(content), size=3):
            damaged[place] = generator.integers(256)
        path.write_bytes(damaged)
        for read in (open_image, image_size):
            with suppress(FormatError):
                read(path)


@pytest.mark.parametrize("read", [open_image, image_size])
@pytest.mark.parametrize(("width", "height"), [(9000, 9000), (50_000, 50_000)])
def test_decompression_bomb_is_refused_before_it_is_decoded(tmp_path, read, width, height):
    path = tmp_path / "bomb.png"
    path.write_bytes(bomb(width, height))
    with pytest.raises(FormatError, match=r"bomb\.png: .* 80 million"):
        read(path)


def test_limit_of_pixels_can_be_set(tmp_path):
    path = saved(tmp_path, noise((20, 10)))
    assert open_image(path, max_pixels=200).size == (20, 10)
    with pytest.raises(FormatError, match=r" 20 x 10 .* 0\.000199 million"):
        open_image(path, max_pixels=199)


def test_at_least_shrinks_large_jpegs_only(tmp_path):
    photo = Image.effect_noise((800, 600), 40).convert("RGB")
    jpeg, png = saved(tmp_path, photo, "a.jpg"), saved(tmp_path, photo, "a.png")
    assert open_image(jpeg, at_least=128).size == (200, 150)
    assert open_image(jpeg, at_least=500).size == (800, 600)
    assert open_image(png, at_least=128).size == (800, 600)


def test_open_image_closes_the_file(tmp_path):
    path = saved(tmp_path, noise(), "a.jpg")
    image = open_image(path)
    path.unlink()
    assert image.getpixel((0, 0)) is not None


def test_to_pixels_is_the_imagenet_transform():
    image = noise((50, 40))
    resized = np.asarray(image.resize((24, 24), Image.Resampling.BILINEAR)) / 255
    expected = (resized - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    pixels = to_pixels(image, 24)
    assert (pixels.dtype, pixels.shape) == (torch.float32, (3, 24, 24))
    assert pixels.is_contiguous()
    assert np.abs(pixels.permute(1, 2, 0).numpy() - expected).max() < 1e-5


def test_to_pixels_averages_when_it_shrinks():
    """Antialiasing: a fine checkerboard becomes gray, not black or white."""
    board = Image.fromarray(np.indices((128, 128)).sum(0).astype(np.uint8) % 2 * 255).convert("RGB")
    gray = to_pixels(board, 16) * torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    gray += torch.tensor([0.485, 0.456, 0.406])[:, None, None]
    assert ((gray - 0.5).abs() < 0.02).all()


def test_to_pixels_leaves_the_picture_alone():
    image = noise((16, 16))
    before = image.tobytes()
    to_pixels(image, 16)
    assert image.tobytes() == before


def test_an_opened_picture_is_taken_as_well():
    buffer = io.BytesIO()
    noise().save(buffer, "PNG")
    assert np.array_equal(open_image(Image.open(buffer)), noise())


def test_opencv_drops_transparency_and_divides_by_256(tmp_path):
    clear = Image.new("RGBA", (2, 1), (10, 20, 30, 0))
    path = saved(tmp_path, clear, "clear.png")
    assert open_image(path).getpixel((0, 0)) == (255, 255, 255)
    assert open_image(path, as_opencv=True).getpixel((0, 0)) == (10, 20, 30)
    assert open_image(clear, as_opencv=True).getpixel((0, 0)) == (10, 20, 30)
    deep = saved(tmp_path, Image.fromarray(np.array([[0, 256, 65535]], np.uint16)), "deep.png")
    shades = [open_image(deep, as_opencv=True).getpixel((x, 0))[0] for x in range(3)]
    assert shades == [0, 1, 255]
