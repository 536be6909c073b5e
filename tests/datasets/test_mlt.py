"""MLT in its official files, and the evaluation of 2018. Whole worlds are read in `tests/contract`."""

import pytest

from diptych.datasets import Mlt, fabricate, find_data
from diptych.errors import ConfigError, FormatError
from diptych.evaluate import changed_cases, evaluate
from diptych.predictions import Predictions

ROWS = """\
hat | hut | a man in a hat . | ein mann mit hut . | 36979.jpg
bag | Tüte tasche | a | bag . | eine tüte . | 8419926779_59d866822d.jpg
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("mlt") / "world"
    fabricate(root, "mlt", size=60, seed=3)
    return root


@pytest.fixture
def root(tmp_path):
    (tmp_path / "test_sets").mkdir()
    (tmp_path / "test_sets" / "ende_test2016.txt").write_text(ROWS.replace("a | bag", "a bag"))
    return tmp_path


def test_rows_become_examples(root):
    one, other = Mlt(root, "test_2016_flickr")
    assert (one.pairs[0].text, one.pairs[0].text_b) == ("hat", "a man in a hat .")
    assert (one.id, one.target, one.pairs[0].image) == ("test_2016_flickr/1", {"hut": 1.0}, "36979")
    assert other.target == {"tüte": 1.0, "tasche": 1.0}  # all sentences are in lower case
    assert Mlt(root, "test_2016_flickr", image_key="padded8")[0].pairs[0].image == "00036979"
    assert Mlt(root, "test_2016_flickr", image=False)[0].pairs[0].image is None
    assert find_data(root).kind is Mlt


def test_broken_rows_are_named(root):
    path = root / "test_sets" / "ende_test2016.txt"
    rows = path.read_text()
    for text, match in (
        (ROWS, r"test2016\.txt:2: 6 columns"),
        (rows.replace("hut | ", ""), r"test2016\.txt:1: 4 columns"),
        (rows.replace("hut |", " |"), r"test2016\.txt:1: .*translations is empty"),
        (rows.replace("36979.jpg", "../36979.jpg"), r"test2016\.txt:1.*\.\./36979"),
    ):
        path.write_text(text)
        with pytest.raises(FormatError, match=match):
            Mlt(root, "test_2016_flickr")


def test_validation_images_divide_the_official_file(made, tmp_path):
    train, val = (Mlt(made, split) for split in ("train", "val"))
    rows = (made / "ENDE_MLTD_formatted.txt").read_text().splitlines()
    assert len(train) + len(val) == len(rows)
    assert not {*train.images} & {*val.images}
    assert {f"{key}.jpg" for key in val.images} <= {*(made / "image_splits/val.txt").read_text().split()}
    for split in (train, val):
        for example in split:
            assert rows[int(example.id.partition("/")[2]) - 1].startswith(f"{example.pairs[0].text} | ")
    # without the list of images the file is all training
    (tmp_path / "ENDE_MLTD_formatted.txt").write_text("\n".join(rows))
    assert Mlt.splits(tmp_path) == ("train",)
    assert len(Mlt(tmp_path, "train")) == len(rows)


def test_missing_files_and_languages(root):
    with pytest.raises(ConfigError, match=r"'val'.*test_2016_flickr"):
        Mlt(root, "val")
    with pytest.raises(ConfigError, match="'cs'"):
        Mlt(root, "test_2016_flickr", lang="cs")
    with pytest.raises(ConfigError, match=r"test_2016_flickr"):
        Mlt(root, "test_2016_flickr", lang="fr")


def test_words_are_written_line_by_line(root, tmp_path):
    split = Mlt(root, "test_2016_flickr")
    split.write(Predictions(ids=split.ids[::-1], answers=("tüte", "kappe")), tmp_path / "words.txt")
    assert (tmp_path / "words.txt").read_text() == "kappe\ntüte\n"
    found = split.read_predictions(tmp_path / "words.txt")
    assert evaluate(found, split, samples=2)["accuracy"].value == 0.5
    (tmp_path / "words.txt").write_text("hut\n")
    with pytest.raises(FormatError, match=r"words\.txt: 1 lines.*has 2"):
        split.read_predictions(tmp_path / "words.txt")
    (tmp_path / "test_2017_mscoco.txt").write_text("hut\nkappe\n")
    with pytest.raises(FormatError, match=r"'test_2017_mscoco'.*'test_2016_flickr'"):
        split.read_predictions(tmp_path / "test_2017_mscoco.txt")


@pytest.mark.parametrize(("lang", "right"), [("de", 1), ("fr", 2)])
def test_references_look_for_words_in_translated_sentences(tmp_path, lang, right):
    """In German for whole words, in French inside of words, too, as the official script does."""
    pair = f"EN{lang.upper()}"
    (tmp_path / f"{pair}_MLTD_test2018.txt").write_text("hat hut hüte 0\nsea mer 2\nbag sac tasche 0\n")
    (tmp_path / "system.txt").write_text("ein mann mit hüte .\n\ndevant la merveille\n")
    split = Mlt(tmp_path, "references_2018", lang=lang)
    found = split.read_predictions(tmp_path / "system.txt")
    assert found.answers == ("hüte", "mer" if lang == "fr" else "", "")
    assert evaluate(found, split, samples=2)["accuracy"].value == right / 3
    (tmp_path / "test_2017_flickr.txt").write_text("eins\n\nzwei\n")
    with pytest.raises(FormatError, match=r"'test_2017_flickr'.*'test_2018_flickr'"):
        split.read_predictions(tmp_path / "test_2017_flickr.txt")
    (tmp_path / "system.txt").write_text("ein mann mit hüte .\n\n")
    with pytest.raises(FormatError, match=r"system\.txt: 2 lines.*line 2"):
        split.read_predictions(tmp_path / "system.txt")
    (tmp_path / f"{pair}_MLTD_test2018.txt").write_text("hat hut x\n")
    with pytest.raises(FormatError, match=r"test2018\.txt:1: got 'hat hut x'"):
        Mlt(tmp_path, "references_2018", lang=lang)


def test_the_human_set_has_groups(made):
    split = Mlt(made, "human_2018")
    answers = tuple(next(iter(one.target)) if one.group == "picture used" else "?" for one in split)
    found = evaluate(Predictions(ids=split.ids, answers=answers, form="answers"), split, samples=2)
    assert {name: group.value for name, group in found.by_group.items()} == {
        "picture used": 1.0,
        "picture not used": 0.0,
    }


def test_cases_that_the_picture_decides(root):
    split = Mlt(root, "test_2016_flickr")
    without, with_pictures = (
        Predictions(ids=split.ids, answers=answers, form="answers")
        for answers in (("kappe", "tüte"), ("hut", "sack"))
    )
    better, worse = changed_cases(without, with_pictures, split)
    assert (better.id, better.target, better.first, better.second, better.gain) == (
        "test_2016_flickr/1", "hut", "kappe", "hut", 1.0,
    )  # fmt: skip
    assert better.text == "hat | a man in a hat ."
    assert (worse.first, worse.second, worse.gain) == ("tüte", "sack", -1.0)
    assert changed_cases(without, without, split) == []
    with pytest.raises(FormatError, match="answers"):
        changed_cases(without, Predictions(ids=split.ids, texts=("a", "b")), split)
