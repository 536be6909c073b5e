"""What a model does not read is refused by every verb that takes it."""

import pytest

MEME = ["--text", "a day"]


@pytest.fixture(scope="module")
def meme(memes):
    return min((memes / "img").glob("*.png"))


@pytest.mark.parametrize("option", [["--features", "store"], ["--more-features", "store"]])
def test_stores_for_a_model_of_pixels(pixel_run, memes, meme, tmp_path, refused, option):
    name = option[0].removeprefix("--").replace("-", "_")
    place = tmp_path / "out"
    memory = ["memory", "add", place, "--image", meme, *MEME, "--label", "hateful", "--model", pixel_run]
    verbs = [
        ["predict", pixel_run, "--splits", "dev_seen", "--out", place],
        ["predict", pixel_run, "--image", meme, *MEME],
        ["explain", pixel_run, meme, *MEME, "--out", place],
        memory,
    ]
    for words in verbs:
        line = refused([*words, *option])
        assert f"{name} is store" in line
        assert "pixels and text" in line
        assert not place.exists()


def test_regions_for_a_model_of_pixels(pixel_run, region_run, meme, tmp_path, refused):
    score = ["score", meme, *MEME, "--model", pixel_run]
    assert "features is store" in refused([*score, "--features", "store"])
    assert "more_features is store" in refused([*score, "--features", "more_features=store"])
    assert str(pixel_run) in refused([*score, "--weights", "tiny=random"])
    explain = ["explain", pixel_run, meme, *MEME, "--out", tmp_path / "why.html"]
    assert "detector is tiny" in refused([*explain, "--detector", "tiny"])
    explain[1] = region_run
    assert "--weights random" in refused([*explain, "--weights", "random"])
    robust = ["audit", pixel_run, "--robust", "--split", "dev_seen", "--features", "store"]
    assert "features is store" in refused(robust)


def test_a_store_for_training_on_pixels(memes, tmp_path, refused):
    words = ["experiment=hateful_memes/image_resnet_tiny", f"root={memes}", f"out={tmp_path / 'run'}"]
    line = refused(["train", *words, f"features={memes / 'other'}"])
    assert f"features is {memes / 'other'}" in line
    assert not (tmp_path / "run").exists()
