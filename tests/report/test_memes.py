"""What stands on the page, in which order, and that nothing about a meme can spoil it."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diptych.errors import ConfigError
from diptych.report import MemeItem, meme_page
from diptych.report.memes import Judge, _sections, read_picture

JUDGE = Judge(by="a", positive="hateful", threshold=0.5)


def card(score, target, **more):
    return MemeItem(image=None, text=f"scored {score}", target=target, scores={"a": score} | more)


def shown(items, *, count=16, columns=4):
    return [
        (heading, [item.scores["a"] for item in section])
        for heading, section in _sections(items, JUDGE, count=count, columns=columns)
    ]


def test_most_confident_mistakes_come_first_then_successes():
    items = [
        card(0.6, "benign"),
        card(0.1, "benign"),
        card(0.95, "hateful"),
        card(0.02, "hateful"),
        card(0.5, "hateful"),
    ]
    (wrong, first), (right, second) = shown(items)
    assert ("Wrong: 2 of 2" in wrong, first) == (True, [0.02, 0.6])
    assert ("Right: 3 of 3" in right, second) == (True, [0.95, 0.1, 0.5])


def test_half_of_the_page_is_wrong_where_there_are_enough():
    wrong = [card(0.5 + 0.01 * n, "benign") for n in range(20)]
    right = [card(0.5 + 0.01 * n, "hateful") for n in range(20)]
    assert [len(scores) for _, scores in shown(wrong + right, count=8)] == [4, 4]
    assert [len(scores) for _, scores in shown(wrong[:1] + right, count=9)] == [1, 8]
    assert [len(scores) for _, scores in shown(wrong[:1] + right, count=8)] == [1, 4]  # one full row
    assert [len(scores) for _, scores in shown(wrong + right[:2], count=8)] == [6, 2]
    assert [len(scores) for _, scores in shown(right, count=8)] == [8]


def test_memes_without_label_are_shown_but_not_judged():
    assert JUDGE.is_right(card(0.9, None), "a") is None
    assert shown([card(0.9, None), card(0.1, None)]) == [
        ("Without label: 2 of 2, most confident first", [0.9, 0.1])
    ]


def test_a_decision_is_right_at_and_above_the_threshold():
    assert JUDGE.is_right(card(0.5, "hateful"), "a")
    assert not JUDGE.is_right(card(0.5, "benign"), "a")
    assert JUDGE.is_right(card(0.4, "benign"), "a")
    assert JUDGE.is_right(card(0.9, "benign", b=0.1), "b")
    assert JUDGE.is_right(card(np.float64(0.9), "hateful"), "a") is True  # scores come from arrays


@pytest.fixture
def pictures(tmp_path):
    """Pictures of every awkward kind, by name."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name, mode, size in (
        ("rgb.png", "RGB", (64, 48)),
        ("dot.png", "RGB", (1, 1)),
        ("wide.png", "RGB", (3000, 2)),
        ("tall.png", "L", (2, 3000)),
        ("palette.png", "P", (30, 30)),
        ("cmyk.jpg", "CMYK", (30, 30)),
        ("deep.png", "I;16", (30, 30)),
    ):
        Image.new(mode, size, 100 if mode in "LPI;16" else None).save(folder / name)
    (folder / "text.png").write_bytes(b"no picture")
    (folder / "half.png").write_bytes((folder / "rgb.png").read_bytes()[:60])
    return folder


def test_pictures_of_any_kind_become_small_rgb(pictures):
    for name in ("rgb.png", "dot.png", "wide.png", "tall.png", "palette.png", "cmyk.jpg", "deep.png"):
        pixels = read_picture(pictures / name)
        assert isinstance(pixels, np.ndarray), name
        assert pixels.ndim == 3
        assert max(pixels.shape) <= 900


def test_transparency_is_white(tmp_path):
    Image.new("RGBA", (4, 4), (255, 0, 0, 0)).save(tmp_path / "clear.png")
    assert (read_picture(tmp_path / "clear.png") == 255).all()


def test_pictures_that_cannot_be_shown_say_why(pictures, monkeypatch):
    assert read_picture(None) == "no picture"
    assert read_picture(pictures / "nowhere.png") == "picture not found"
    assert read_picture(pictures / "text.png") == "picture unreadable"
    assert read_picture(pictures / "half.png") == "picture unreadable"
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    assert read_picture(pictures / "rgb.png") == "picture too large"


def test_the_page_takes_any_text_and_picture(pictures, tmp_path):
    texts = [
        "",
        "costs $5 and $6, \\frac{a}{b} _x_ ^y^ %",
        "word " * 10_000,
        "w" * 5_000,
        "two\nlines\tand tab",
        "\N{PILE OF POO} \N{CJK UNIFIED IDEOGRAPH-4E00} \N{HEBREW LETTER ALEF} e\N{COMBINING ACUTE ACCENT}",
    ]
    files = [None, *sorted(pictures.iterdir())]
    items = [
        MemeItem(
            image=files[n % len(files)],
            text=texts[n % len(texts)],
            target=("hateful", "benign", None)[n % 3],
            scores={"a $model$ with a very long name": n / 20, "b": 1 - n / 20},
        )
        for n in range(21)
    ]
    path = tmp_path / "new" / "page.png"
    meme_page(items, path, positive="hateful", title="All kinds of $trouble$", count=20)
    with Image.open(path) as page:
        assert page.format == "PNG"
        assert page.width == pytest.approx(150 * (2 * 0.35 + 4 * 3.1 + 3 * 0.24), abs=2)
        assert len(page.convert("RGB").getcolors(1 << 24)) > 100


def colors_of(path):
    with Image.open(path) as page:
        return {color for _, color in page.convert("RGB").getcolors(1 << 24)}


def test_right_and_wrong_differ_on_the_page(tmp_path):
    blue, vermilion = (0, 114, 178), (213, 94, 0)
    meme_page([card(0.9, "hateful")], tmp_path / "right.png", positive="hateful", title="Right")
    meme_page([card(0.9, "benign")], tmp_path / "wrong.png", positive="hateful", title="Wrong")
    right, wrong = colors_of(tmp_path / "right.png"), colors_of(tmp_path / "wrong.png")
    assert (blue in right, vermilion in right) == (True, False)
    assert (blue in wrong, vermilion in wrong) == (False, True)


def test_equal_input_gives_equal_bytes(tmp_path):
    items = [card(0.1 * n, "hateful") for n in range(10)]
    for name in ("a.png", "b.png"):
        meme_page(items, tmp_path / name, positive="hateful", title="Twice", columns=3)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_nothing_to_draw_and_unknown_models_are_refused(tmp_path):
    with pytest.raises(ConfigError):
        meme_page([], tmp_path / "page.png", positive="hateful", title="Empty")
    with pytest.raises(ConfigError, match=r"^1 .*'c'; .*\('a',\)"):
        meme_page([card(0.1, None)], tmp_path / "page.png", positive="hateful", title="Other", by="c")
    assert not list(Path(tmp_path).iterdir())
