import json

import pytest

from diptych.cli import main


def explain(*words):
    return main(["explain", *map(str, words)])


@pytest.fixture(scope="module")
def meme(memes):
    return json.loads((memes / "dev_seen.jsonl").read_text().splitlines()[0])


def test_a_picture_and_its_text(region_run, memes, meme, tmp_path, capsys):
    page = tmp_path / "why.html"
    words = [region_run, "--attention", memes / meme["img"], "--text", meme["text"], "--out", page]
    assert explain(*words, "--maps", tmp_path / "maps") == 0
    assert "2 layers, 8 heads" in capsys.readouterr().out
    assert page.read_text().startswith("<!doctype html>")
    assert (tmp_path / "why-head.png").is_file()
    assert (tmp_path / "maps" / "both-both.npy").is_file()
    (tmp_path / "why-head.png").write_text("mine")
    assert explain(*words) == 2
    assert explain(*words, "--overwrite") == 2  # the PNG is the user's
    assert (tmp_path / "why-head.png").read_text() == "mine"
    (tmp_path / "why-head.png").unlink()
    assert explain(*words, "--overwrite") == 0


def test_examples_of_a_split(region_run, memes, meme, tmp_path):
    ids = [json.loads(line)["id"] for line in (memes / "dev_seen.jsonl").read_text().splitlines()[:2]]
    words = [region_run, "--attention", "--ids", ",".join(map(str, ids)), "--split", "dev_seen"]
    assert explain(*words, "--out", tmp_path / "why.html") == 0
    assert (tmp_path / "why-2-heads.png").is_file()


def test_a_detector_finds_the_regions_of_a_new_picture(region_run, memes, meme, tmp_path, refused):
    words = ["explain", region_run, "--attention", memes / meme["img"], "--text", "a", "--detector", "grid"]
    words += ["--backbone", "resnet_tiny", "--grid", "2x2", "--out", tmp_path / "why.html"]
    assert "resnet_tiny-stage4-random" in refused(words)  # not the features that this model reads


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "--text"),
        (["--attention", "--text", "a"], "takes 1 picture(s) with a text; got 0"),
        (["--attention", "nowhere.png", "--text", "a"], "nowhere.png"),
        (["--attention", "nowhere.png"], "--text"),
        (["--attention", "--ids", "7"], "--split"),
        (["--attention", "--split", "dev_seen", "--text", "a"], "--ids"),
        (["--attention", "--ids", "nobody", "--split", "dev_seen"], "'nobody'"),
    ],
)
def test_what_cannot_be_shown_is_one_line(region_run, tmp_path, refused, words, message):
    assert message in refused(["explain", region_run, *words, "--out", tmp_path / "why.html"])
    assert not [*tmp_path.iterdir()]
