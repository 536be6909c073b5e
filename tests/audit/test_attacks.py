"""Attacks change what they are to change, and keep the rest."""

import unicodedata

import numpy as np
import pytest
from PIL import Image, ImageDraw

from diptych.audit.attacks import PICTURES, homoglyphs, leetspeak, move_caption, ocr_noise
from diptych.detect.ocr import Line
from diptych.metrics.characters import edits

TEXT = "The quick brown fox jumps over the lazy dog and says: I don't care. " * 40


def rng():
    return np.random.default_rng(0)


def test_ocr_noise_has_the_errors_of_a_mediocre_reader():
    assert 0.02 < edits(ocr_noise(TEXT, rng()), TEXT) / len(TEXT) < 0.09


def test_leetspeak_replaces_half_of_the_letters_it_can():
    changed = leetspeak("Easy Is It", rng())
    assert len(changed) == len("Easy Is It")
    share = sum(one.isdigit() for one in leetspeak("a" * 1000, rng())) / 1000
    assert 0.4 < share < 0.6
    assert leetspeak("xyz !", rng()) == "xyz !"


def test_homoglyphs_keep_case_and_are_cyrillic():
    changed = homoglyphs("Aa" * 500, rng())
    assert [one.isupper() for one in changed] == [True, False] * 500
    names = {unicodedata.name(one) for one in changed}
    assert names == {
        "LATIN CAPITAL LETTER A",
        "LATIN SMALL LETTER A",
        "CYRILLIC CAPITAL LETTER A",
        "CYRILLIC SMALL LETTER A",
    }


@pytest.fixture
def quarters():
    """A picture whose quarters have different colors."""
    image = Image.new("RGB", (64, 40), "white")
    image.paste("red", (0, 0, 32, 20))
    image.paste("lime", (32, 0, 64, 20))
    image.paste("blue", (0, 20, 32, 40))
    return image


@pytest.mark.parametrize(
    ("name", "size", "corner"),
    [
        ("JPEG", (64, 40), (250, 0, 0)),
        ("resize", (32, 20), (255, 0, 0)),
        ("crop", (58, 36), (255, 0, 0)),
        ("blur", (64, 40), (255, 0, 0)),
        ("mirror", (64, 40), (0, 255, 0)),
        ("upside down", (64, 40), (255, 255, 255)),
    ],
)
def test_attacks_on_pictures(quarters, name, size, corner):
    changed = PICTURES[name](quarters)
    assert changed.size == size
    assert changed.getpixel((2, 2)) == pytest.approx(corner, abs=12)
    assert {*PICTURES} >= {name}


@pytest.mark.parametrize("name", PICTURES)
def test_the_smallest_picture_survives(name):
    assert min(PICTURES[name](Image.new("RGB", (1, 1))).size) == 1


def test_captions_move_to_the_other_end():
    image = Image.new("RGB", (100, 80), "green")
    ImageDraw.Draw(image).rectangle((20, 5, 79, 14), "white")
    line = Line(text="top", box=(20.0, 5.0, 80.0, 15.0), score=1.0, height=10.0)
    sign = Line(text="s", box=(0.0, 40.0, 9.0, 44.0), score=1.0, height=4.0, scene=True)
    moved = move_caption(image, [line, sign])
    white = np.argwhere((np.asarray(moved) == 255).all(2))
    assert [*white.min(0)] == [65, 20]
    assert [*white.max(0)] == [74, 79]
    assert moved.getpixel((50, 10)) == image.getpixel((0, 0))
    outside = Line(text="edge", box=(-5.0, 70.0, 140.0, 90.0), score=1.0, height=10.0)
    assert move_caption(image, [outside]).size == image.size
