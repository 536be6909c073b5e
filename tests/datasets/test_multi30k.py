"""Multi30k in the official tree and in one folder, its three forms, and its prediction files."""

import gzip
import re
import shutil
from dataclasses import replace

import pytest

from diptych.datasets import Multi30k, fabricate, find_data
from diptych.datasets.photographs import image_key, image_name
from diptych.errors import ConfigError, FormatError
from diptych.predict import predict_splits
from diptych.predictions import Predictions
from diptych.recipe import compose, run_recipe


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("multi30k") / "world"
    fabricate(root, "multi30k", size=40, seed=3)
    return root


@pytest.fixture
def flat(tmp_path):
    """One folder with `val.LANG` and `val.images`, as people pass it on."""
    texts = {
        "en": "A cat .\nA dog\u2028sleeps.",
        "de": "Eine Katze.\r\nEin Hund.\r\n",
        "images": "1.jpg\n0002_ab.jpg\n",
    }
    for name, text in texts.items():
        (tmp_path / f"val.{name}").write_bytes(text.encode())
    return tmp_path


def lines(path):
    return gzip.decompress(path.read_bytes()).decode().splitlines()


def test_captions_are_lines_of_the_official_files(made):
    raw = made / "data" / "task1"
    images = (raw / "image_splits" / "val.txt").read_text().split()
    for lang in ("en", "de"):
        split = Multi30k(made, "val", lang=lang)
        assert [one.pairs[0].text for one in split] == lines(raw / "raw" / f"val.{lang}.gz")
        assert [f"{one.pairs[0].image}.jpg" for one in split] == images
        assert split.ids == tuple(f"val/{line}/{lang}" for line in range(1, len(split) + 1))
        assert {one.target for one in split} == {1}
        assert all(path.is_file() for path in split.images.values())


def test_forms_of_translations(made):
    source, target = (Multi30k(made, "val", lang=lang) for lang in ("en", "de"))
    translated = Multi30k(made, "val", task="translation")
    paired = Multi30k(made, "val", task="translation_retrieval", image=False)
    for english, german, one, other in zip(source, target, translated, paired, strict=True):
        (pair,) = one.pairs
        assert (pair.text, pair.more_texts, one.target) == (
            english.pairs[0].text,
            (german.pairs[0].text,),
            german.pairs[0].text,
        )
        assert pair.image == english.pairs[0].image
        (pair,) = other.pairs
        assert (pair.text, pair.text_b, pair.image) == (english.pairs[0].text, german.pairs[0].text, None)
        assert one.id == other.id == english.id.replace("/en", "/en-de")


def test_several_languages_follow_each_other(made):
    split = Multi30k(made, "val", lang="en,de")
    assert split.ids == Multi30k(made, "val", lang="en").ids + Multi30k(made, "val", lang="de").ids
    assert Multi30k(made, "val", lang=["en", "de"]).settings == split.settings


def test_task_2_has_five_descriptions_of_a_picture(made):
    one, five = (Multi30k(made, "test_2016_flickr", descriptions=count) for count in (1, 5))
    assert len(five) == 5 * len(one)
    assert sorted({example.pairs[0].image for example in five}) == sorted(
        example.pairs[0].image for example in one
    )
    assert five.ids[-1] == f"test_2016_flickr/{len(one)}/de.5"
    with pytest.raises(ConfigError, match=r"descriptions.*translation"):
        Multi30k(made, "val", descriptions=5, task="translation")


def test_tokenized_files(made):
    raw, tokens = (Multi30k(made, "val", tokenized=value) for value in (False, True))
    assert [one.pairs[0].text for one in tokens] == [
        one.pairs[0].text.lower().replace(".", " .") for one in raw
    ]


def test_lists_of_images_keep_neither_caption_ids_nor_paths(made):
    split = Multi30k(made, "test_2017_mscoco")
    assert all(re.fullmatch(r"COCO_(train|val)2014_\d{12}", one.pairs[0].image) for one in split)
    assert image_name("photos/7.jpg#3") == "7.jpg"
    for line in ("../etc/passwd", "/etc/passwd", "../etc.zip@/passwd", "photos/../../etc/passwd"):
        with pytest.raises(FormatError, match=r"x\.txt:3.*etc.*passwd"):
            image_key(image_name(line), "stem", where="x.txt:3")


@pytest.mark.parametrize(
    ("name", "number", "padded"),
    [
        ("36979.jpg", "36979", "00036979"),
        ("0036979.jpg", "36979", "00036979"),
        ("8419926779_59d866822d.jpg", "8419926779", "8419926779"),
        ("COCO_val2014_000000310227.jpg", "310227", "00310227"),
    ],
)
def test_keys_of_other_feature_files(name, number, padded):
    assert image_key(name, "number", where="") == number
    assert image_key(name, "padded8", where="") == padded
    with pytest.raises(FormatError, match=r"list:1.*cat\.jpg"):
        image_key("cat.jpg", "number", where="list:1")


def test_one_folder_with_everything(flat):
    split = Multi30k(flat, "val", image_key="padded8")
    assert [one.pairs[0].text for one in split] == ["Eine Katze.", "Ein Hund."]
    assert [one.pairs[0].image for one in split] == ["00000001", "00000002"]
    assert split.image_path("00000002").name == "0002_ab.jpg"
    # U+2028 is no end of a line, and the last line has none
    assert Multi30k(flat, "val", lang="en")[1].pairs[0].text == "A dog\u2028sleeps."
    assert find_data(flat).kind is Multi30k


def test_a_folder_without_task_2_says_what_to_set(flat):
    with pytest.raises(ConfigError, match=r"data\.descriptions=1"):
        Multi30k(flat, "val", descriptions=5)


def test_unequal_numbers_of_lines_are_one_error(flat):
    (flat / "val.de").write_text("Eine Katze.\n")
    with pytest.raises(FormatError, match=r"val\.en has 2 lines and \S+val\.de 1;"):
        Multi30k(flat, "val", task="translation")


def test_an_empty_line_is_named(flat):
    (flat / "val.de").write_text("Eine Katze.\n \n")
    with pytest.raises(FormatError, match=r"val\.de:2"):
        Multi30k(flat, "val")


def test_a_long_caption_is_read(flat):
    (flat / "val.de").write_text("Katze " * 500 + "\nHund\n")
    assert len(Multi30k(flat, "val")[0].pairs[0].text.split()) == 500


@pytest.mark.parametrize(
    "content",
    [b"\x1f\x8b\x08broken", gzip.compress(b"Katze\n" * 999)[:-20], b"ja\n\xff\n"],
    ids=["no gzip", "cut gzip", "not UTF-8"],  # gzip writes the time, so the content is no name
)
def test_damaged_files(flat, content):
    (flat / "val.de").write_bytes(content)
    with pytest.raises(FormatError, match=r"val\.de"):
        Multi30k(flat, "val")


def test_missing_languages_and_lists_say_what_there_is(flat):
    with pytest.raises(ConfigError, match=r"'fr'.*en, de"):
        Multi30k(flat, "val", lang="fr")
    with pytest.raises(ConfigError, match=r"'dee'.*'de'"):
        Multi30k(flat, "val", lang="dee")
    with pytest.raises(ConfigError, match="'en'"):
        Multi30k(flat, "val", lang="en", task="translation")
    (flat / "val.images").unlink()
    with pytest.raises(ConfigError, match=r"val.*image=false"):
        Multi30k(flat, "val")
    assert Multi30k(flat, "val", image=False)[0].pairs[0].image is None


@pytest.mark.parametrize("name", ["out.txt", "MEMAD_1_TEXT_C.tsv"])
def test_translations_are_written_line_by_line(made, tmp_path, name):
    split = Multi30k(made, "test_2017_mscoco", task="translation")
    texts = ("", "zwei\nZeilen", *("ein Satz",) * (len(split) - 2))
    split.write(Predictions(ids=split.ids[::-1], texts=texts[::-1]), tmp_path / name)
    again = split.read_predictions(tmp_path / name)
    assert (again.ids, again.texts) == (split.ids, ("", "zwei Zeilen", *texts[2:]))
    if name.endswith(".tsv"):
        images = (made / "data/task1/image_splits/test_2017_mscoco.txt").read_text().split()
        rows = [line.split("\t") for line in (tmp_path / name).read_text().splitlines()]
        assert rows[1] == ["TEXT", images[1], "zwei Zeilen", "1", "C"]
        assert "#" in images[1]


def test_a_hypothesis_file_of_another_split_is_refused(made, tmp_path):
    split = Multi30k(made, "train", task="translation")
    (tmp_path / "val.txt").write_text("ein Satz\n" * 3)
    with pytest.raises(FormatError, match=rf"val\.txt: 3 lines.*'train' has {len(split)}"):
        split.read_predictions(tmp_path / "val.txt")


@pytest.fixture
def equal(tmp_path):
    """Two splits with equal numbers of lines."""
    for name in ("test_2016_flickr", "test_2017_flickr"):
        for lang in ("en", "de"):
            (tmp_path / f"{name}.{lang}").write_text("eins\nzwei\n")
        (tmp_path / f"{name}.images").write_text(f"{name[5:9]}1.jpg\n{name[5:9]}2.jpg\n")
    return Multi30k(tmp_path, "test_2016_flickr", task="translation")


@pytest.mark.parametrize("name", ["test_2017_flickr.txt", "ours.test_2017_flickr.lc.de", "val.txt"])
def test_a_hypothesis_file_that_is_called_as_another_split_is_refused(equal, tmp_path, name):
    (tmp_path / name).write_text("eins\nzwei\n")
    split = "val" if name == "val.txt" else "test_2017_flickr"
    with pytest.raises(FormatError, match=rf"{name}.*'{split}'.*test_2016_flickr.*--split {split}"):
        equal.read_predictions(tmp_path / name)


@pytest.mark.parametrize("name", ["ours.txt", "test_2016.de", "my_test_2017_flickr_model.txt"])
def test_a_hypothesis_file_of_any_other_name_is_read(equal, tmp_path, name):
    (tmp_path / name).write_text("eins\nzwei\n")
    (tmp_path / "ours.npz").write_text("no predictions")
    assert equal.read_predictions(tmp_path / name).texts == ("eins", "zwei")


def test_predictions_beside_a_hypothesis_file_tell_its_split(equal, tmp_path):
    """They are written together, so what they say counts more than the name."""
    (tmp_path / "test_2017_flickr.txt").write_text("eins\nzwei\n")
    saved = Predictions(ids=("1",), texts=("eins",), meta={"split": "test_2016_flickr"})
    saved.save(tmp_path / "test_2017_flickr.npz")
    assert len(equal.read_predictions(tmp_path / "test_2017_flickr.txt")) == 2
    (tmp_path / "ours.txt").write_text("eins\nzwei\n")
    replace(saved, meta={"split": "val"}).save(tmp_path / "ours.npz")
    with pytest.raises(FormatError, match=r"ours\.txt.*ours\.npz.*'val'.*test_2016_flickr"):
        equal.read_predictions(tmp_path / "ours.txt")


def test_a_submission_names_the_images_of_its_split(equal, tmp_path):
    path = tmp_path / "MEMAD_1_TEXT_C.tsv"
    path.write_text("TEXT\t20161.jpg\teins\t1\tC\nTEXT\t20172.jpg\tzwei\t1\tC\n")
    with pytest.raises(FormatError, match=r"tsv:2.*20172\.jpg.*20162\.jpg"):
        equal.read_predictions(path)


def test_rankings_are_kept(made, tmp_path):
    split = Multi30k(made, "val")
    rankings = tuple((one.pairs[0].image, "other") for one in split)
    split.write(Predictions(ids=split.ids, rankings=rankings), tmp_path / "val.json")
    assert split.read_predictions(tmp_path / "val.json").rankings == rankings
    (tmp_path / "other.json").write_text('[{"id": "val/1/de", "scores": {"matches": 2}}]')
    with pytest.raises(FormatError, match=r"other\.json: record 0.*matches.*2"):
        split.read_predictions(tmp_path / "other.json")


def test_a_copy_without_a_language_of_a_split(made, tmp_path):
    root = tmp_path / "copy"
    shutil.copytree(made / "data", root)
    (root / "task1" / "raw" / "val.de.gz").unlink()
    with pytest.raises(ConfigError, match=r"'val'.*it has en"):
        Multi30k(root, "val")


def test_a_model_of_regions_learns_from_texts_alone(flat, tmp_path):
    """With image=false it needs no feature store, neither for training nor for prediction."""
    for split in ("train", "test_2016_flickr"):
        for lang in ("en", "de"):
            shutil.copy(flat / f"val.{lang}", flat / f"{split}.{lang}")
    words = ["model=vlbert_tiny", "data=multi30k", "data.task=translation_retrieval", "image=false"]
    words += [f"root={flat}", f"out={tmp_path / 'run'}", "trainer.max_steps=1", "trainer.monitor=loss"]
    outcome = run_recipe(compose([*words, "loggers=[]", "progress=false"]))
    assert outcome.metrics["accuracy"] in (0, 0.5, 1)
    (files,) = predict_splits(tmp_path / "run", ["test_2016_flickr"])
    assert files.predictions.ids == ("test_2016_flickr/1/en-de", "test_2016_flickr/2/en-de")


def test_translations_are_learned_by_the_vocabulary(flat):
    split = Multi30k(flat, "val", task="translation")
    assert [*split.table.texts()] == ["A cat .", "Eine Katze.", "A dog\u2028sleeps.", "Ein Hund."]
