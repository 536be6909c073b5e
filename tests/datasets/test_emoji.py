"""The world of emoji: words of a package, pictures of a font, splits that share nothing."""

import json
import tarfile

import numpy as np
import pytest
from tests.datasets.emoji_sources import emoji_sources, faces, packed, record

from diptych.cli import main
from diptych.convert import packages
from diptych.datasets import Emoji, fabricate, find_data
from diptych.datasets.emoji import drawing
from diptych.datasets.emoji.emojibase import Word, read_emojibase, related
from diptych.errors import ConfigError, FormatError
from diptych.images import open_image


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    return emoji_sources(tmp_path_factory.mktemp("sources"))


@pytest.fixture(scope="module")
def made(sources, tmp_path_factory):
    root = tmp_path_factory.mktemp("emoji") / "world"
    report = fabricate(root, "emoji", size=44, seed=2, sources=sources)
    assert sum(report.splits.values()) == 44
    return root


def test_a_picture_has_a_name_in_every_language(made):
    one = Emoji(made, "test", lang="en,de")
    assert one.ids == Emoji(made, "test").ids + Emoji(made, "test", lang=["de"]).ids
    for example in one:
        (pair,) = example.pairs
        place = int(str(pair.image), 16) - 0x1F600
        word = "Gesicht" if example.id.endswith("/de") else "face"
        assert (pair.text, example.target) == (f"{word} {place}", 1)
        assert open_image(one.images[pair.image]).size == (drawing.SIDE, drawing.SIDE)
    assert {example.pairs[0].text for example in Emoji(made, "val", words="tags", lang="de")} == {"Gesi"}
    assert find_data(made).kind is Emoji


def test_splits_share_no_picture(made):
    splits = {split: Emoji(made, split).ids for split in ("train", "val", "test")}
    assert len({*sum(splits.values(), ())}) == 44
    assert len(splits["test"]) == 9  # a fifth
    assert len(splits["val"]) == 5


def test_variants_of_a_person_belong_together():
    named = {
        "1F3C3": "person running",
        "1F418": "elephant",
        "1F3C3-200D-2640-FE0F": "woman running",
        "1F468-200D-1F3EB": "man teacher",
        "1F3EB": "school",
        "1F469-200D-1F3EB": "woman teacher",
        "1F1E9-1F1EA": "flag: Germany",
        "1F1EB-1F1F7": "flag: France",
        "1F468": "man",
        "1F469-200D-1F9B0": "woman: red hair",
    }
    words = [Word(key=key, text="", names={"en": name}, tags={"en": ()}) for key, name in named.items()]
    names = [*named.values()]
    groups = {frozenset(names[place] for place in group) for group in related(words)}
    assert groups == {
        frozenset({"person running", "woman running"}),
        frozenset({"elephant"}),
        frozenset({"man teacher", "woman teacher", "school"}),
        frozenset({"flag: Germany"}),
        frozenset({"flag: France"}),
        frozenset({"man", "woman: red hair"}),
    }


def test_components_and_what_a_language_lacks_are_left_out(tmp_path):
    skin, letter = record(0x1F3FB, "light skin", group=2), record(0x1F1E6, "A")
    letter.pop("group")
    english = [record(0x1F418, "elephant", skins=[{}]), record(0x1F41C, "ant"), skin, letter]
    german = [record(0x1F418, "Elefant")]
    german[0].pop("tags")
    (word,) = read_emojibase(packed(tmp_path / "p.tgz", {"en": english, "de": german}))
    assert (word.names, word.tags) == ({"en": "elephant", "de": "Elefant"}, {"en": ("elep",), "de": ()})
    # As a folder that npm has unpacked.
    with tarfile.open(tmp_path / "p.tgz") as tar:
        tar.extractall(tmp_path, filter="data")
    assert read_emojibase(tmp_path / "package") == [word]


@pytest.mark.parametrize(
    ("records", "found"),
    [
        ([{**record(1, "a"), "hexcode": "../../x"}], "record 0"),
        ([record(0x41, "a"), record(0x41, "a")], "record 1"),
        ([{**record(0x41, "a"), "label": " "}], "record 0"),
        ([{**record(0x41, "a"), "tags": "a"}], "record 0"),
        ({"a": 1}, "list"),
    ],
)
def test_words_that_are_damaged(tmp_path, records, found):
    with pytest.raises(FormatError, match=found) as error:
        read_emojibase(packed(tmp_path / "p.tgz", {"en": records}))
    assert str(tmp_path / "p.tgz") in str(error.value)


def test_archives_that_are_no_package(tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match="nowhere"):
        read_emojibase(tmp_path / "nowhere.tgz")
    (tmp_path / "text.tgz").write_bytes(b"no archive")
    german = packed(tmp_path / "german.tgz", {"de": faces("Gesicht")})
    for path in (tmp_path / "text.tgz", german):
        with pytest.raises(FormatError, match=path.name):
            read_emojibase(path)
    monkeypatch.setattr("diptych.datasets.emoji.emojibase.LARGEST", 100)
    with pytest.raises(FormatError, match="100 bytes"):
        read_emojibase(german)


def test_a_font_that_lacks_emoji(sources, tmp_path):
    draw = drawing.Drawer(sources["font"])
    assert draw("\U0001f600") is not None
    # DejaVu Sans draws neither an elephant nor a family of three as one picture.
    assert draw("\U0001f418") is None
    assert draw("\U0001f600\U0001f601\U0001f602") is None
    (tmp_path / "font.ttf").write_bytes(b"no font")
    with pytest.raises(FormatError, match=r"font\.ttf"):
        drawing.Drawer(tmp_path / "font.ttf")
    words = packed(tmp_path / "p.tgz", {"en": [record(0x1F400 + one, f"a{one}") for one in range(50)]})
    with pytest.raises(FormatError, match="50 emoji"):
        fabricate(tmp_path / "out", "emoji", sources={**sources, "emojibase": words})
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("record", "found"),
    [
        ({"split": "dev"}, "split"),
        ({"id": "1F601"}, "id"),
        ({"image": "../1F600.png"}, "image"),
        ({"names": {"de": "x"}}, "'en'"),
        ({"names": {"en": 3}}, "'en'"),
    ],
)
def test_a_record_that_is_wrong(tmp_path, record, found):
    good = {"id": "1F600", "image": "img/1F600.png", "split": "test", "names": {"en": "x"}}
    (tmp_path / "emoji.jsonl").write_text(json.dumps({**good, **record}))
    with pytest.raises(FormatError, match=rf"emoji\.jsonl:1.*{found}"):
        Emoji(tmp_path, "test")


def test_settings_that_do_not_exist(made, tmp_path):
    with pytest.raises(ConfigError, match="'labels'"):
        Emoji(made, "test", words="labels")
    with pytest.raises(ConfigError, match="'emojibase'"):
        fabricate(tmp_path / "out", "flickr30k", size=40, sources={"emojibase": tmp_path})


def test_the_command_says_what_is_missing(sources, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("DIPTYCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(packages, "_places", lambda *_: iter(()))
    command = ["world", str(tmp_path / "out"), "--data", "emoji", "--size", "40"]
    assert main(command) == 2
    assert "diptych fetch emojibase" in capsys.readouterr().err
    command += ["--emojibase", str(sources["emojibase"])]
    monkeypatch.setattr(drawing, "PLACES", (str(tmp_path),))
    assert main(command) == 2
    assert "fonts-noto-color-emoji" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert main([*command, "--font", str(sources["font"])]) == 0
    assert "train" in capsys.readouterr().out


def test_the_real_package_and_the_font_of_the_system(weights, tmp_path):
    """Not run where the words cannot be had, or Noto Color Emoji is not installed."""
    words = weights("emojibase")
    try:
        font = drawing.find_font(None)
    except ConfigError as error:
        pytest.skip(f"NOT RUN: {error}")
    with tarfile.open(words) as tar:
        for lang in ("en", "de"):  # all languages take seconds
            tar.extract(f"package/{lang}/data.json", tmp_path, filter="data")
    sources = {"emojibase": tmp_path / "package", "font": font}
    report = fabricate(tmp_path / "emoji", "emoji", size=60, sources=sources)
    assert sum(report.splits.values()) == 60
    line = json.loads((tmp_path / "emoji" / "emoji.jsonl").read_text(encoding="utf-8").splitlines()[0])
    assert line["names"].keys() == {"en", "de"}
    picture = open_image(tmp_path / "emoji" / line["image"])
    assert len(np.unique(np.asarray(picture).reshape(-1, 3), axis=0)) > 20  # colors
    elephant = drawing.Drawer(font)("\U0001f418")
    assert elephant is not None
