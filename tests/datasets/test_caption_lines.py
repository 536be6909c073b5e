"""MM-BERT's JSON lines of Multi30k and MLT, with pictures in archives."""

import json
import zipfile

import pytest
from PIL import Image

from diptych import images
from diptych.data.inputs import picture_checksum
from diptych.datasets import ConceptualCaptions, Mlt, Multi30k, find_data
from diptych.errors import FormatError
from diptych.images import image_size, open_image, picture_exists
from diptych.recipe import compose, run_recipe

COLORS = {"101.png": (200, 10, 10), "0102.png": (10, 200, 10)}
CAPTIONS = [("a red hat", "ein roter hut"), ("a green bag", ["eine", "grüne", "tasche"])]
WORDS = [("hat", "hut"), ("bag", "tasche")]


@pytest.fixture
def pictures(tmp_path):
    """The pictures by name, loose."""
    folder = tmp_path / "loose"
    folder.mkdir()
    for name, color in COLORS.items():
        Image.new("RGB", (32, 24), color).save(folder / name)
    return folder


@pytest.fixture
def root(tmp_path, pictures):
    """Files of Multi30k as MM-BERT has them, with pictures in an archive."""
    place = tmp_path / "root"
    place.mkdir()
    rows = [
        {
            "image": f"train_image.zip@/{name}",
            "frcnn": f"train_frcnn.0.zip@/{int(name[:-4]):08d}.json",
            "caption_en": english,
            "caption_de": german,
        }
        for name, (english, german) in zip(COLORS, CAPTIONS, strict=True)
    ]
    for split in ("train", "val"):
        write(place / f"{split}_frcnn.json", rows)
    pack(place / "train_image.zip", pictures)
    return place


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def pack(path, pictures):
    with zipfile.ZipFile(path, "w") as archive:
        for name in COLORS:
            archive.write(pictures / name, name)


def test_captions_and_translations(root):
    assert find_data(root).kind is Multi30k
    assert Multi30k.splits(root) == ("train", "val")
    assert ConceptualCaptions.splits(root) == (), "its files have the same names"
    one, other = Multi30k(root, "train", lang="de")
    assert (one.id, one.pairs[0].text, one.pairs[0].image) == ("train/1/de", "ein roter hut", "101")
    assert other.pairs[0].text == "eine grüne tasche"
    assert [one.pairs[0].text for one in Multi30k(root, "train", lang="en,de")][::2] == [
        "a red hat",
        "ein roter hut",
    ]
    (paired, _) = Multi30k(root, "val", task="translation_retrieval", image=False)
    assert (paired.id, paired.pairs[0].text_b, paired.pairs[0].image) == (
        "val/1/en-de",
        "ein roter hut",
        None,
    )
    keys = [example.pairs[0].image for example in Multi30k(root, "val", image_key="padded8")]
    assert keys == ["00000101", "00000102"], "the names of the regions"


def test_official_files_come_first(root):
    (root / "train.en").write_text("A cat .\n")
    (root / "train.images").write_text("7.jpg\n")
    assert [one.pairs[0].text for one in Multi30k(root, "train", lang="en")] == ["A cat ."]


def test_descriptions_of_task_2(root):
    (root / "train_frcnn.json").rename(root / "train_frcnn_5captions_both.json")
    assert Multi30k(root, "train", descriptions=5, lang="en").ids == ("train/1/en", "train/2/en")


def test_ambiguous_words(root):
    for path in root.glob("*_frcnn.json"):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        write(path, [row | {"word_en": en, "word_de": de} for row, (en, de) in zip(rows, WORDS, strict=True)])
    assert find_data(root).kind is Mlt
    assert Multi30k.splits(root) == ()
    split = Mlt(root, "train")
    assert [(one.pairs[0].text, one.pairs[0].text_b, one.target) for one in split] == [
        ("hat", "a red hat", {"hut": 1.0}),
        ("bag", "a green bag", {"tasche": 1.0}),
    ]
    assert open_image(split.images["0102"]).getpixel((0, 0)) == COLORS["0102.png"]


@pytest.mark.parametrize("place", ["packed", "train_image", "loose"])
def test_pictures_packed_unpacked_or_loose(root, pictures, place):
    if place != "packed":
        (root / "train_image.zip").unlink()
        pictures.rename(root / ("images" if place == "loose" else place))
    split = Multi30k(root, "val")
    for name, color in COLORS.items():
        path = split.images[name.removesuffix(".png")]
        assert picture_exists(path)
        assert image_size(path) == (32, 24)
        assert open_image(path).getpixel((3, 3)) == color


@pytest.mark.parametrize("kind", [Multi30k, Mlt])
def test_a_folder_before_the_name_of_a_picture(root, pictures, kind):
    pictures.rename(root / "photos")
    for path in root.glob("*_frcnn.json"):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        named = [row | {"image": row["image"].replace("train_image.zip@/", "photos/")} for row in rows]
        words = [{"word_en": en, "word_de": de} if kind is Mlt else {} for en, de in WORDS]
        write(path, [row | word for row, word in zip(named, words, strict=True)])
    split = kind(root, "train")
    assert [one.pairs[0].image for one in split] == ["101", "0102"]
    assert split.images["101"] == root / "photos" / "101.png"
    assert open_image(split.images["0102"]).getpixel((0, 0)) == COLORS["0102.png"]


def test_two_pictures_of_one_key_are_named(root, pictures):
    rows = [json.loads(line) for line in (root / "train_frcnn.json").read_text().splitlines()]
    write(root / "train_frcnn.json", [row | {"image": f"{n}/7.png"} for n, row in enumerate(rows)])
    with pytest.raises(FormatError, match=r"train_frcnn\.json.*'0/7\.png'.*'1/7\.png'.*'7'"):
        Multi30k(root, "train").image_path("7")


def test_checksum_of_pictures_is_that_of_the_unpacked_ones(root, pictures):
    images = {name: root / "train_image.zip@" / name for name in COLORS}
    packed = picture_checksum(images)
    assert packed != picture_checksum({"101.png": images["101.png"]})
    pack(root / "train_image.zip", pictures)
    assert packed == picture_checksum(images)
    Image.new("RGB", (64, 48)).save(pictures / "101.png")
    pack(root / "train_image.zip", pictures)
    changed = picture_checksum(images)
    assert changed != packed
    (root / "train_image.zip").unlink()
    assert picture_checksum(images) == picture_checksum({})
    pictures.rename(root / "train_image")
    assert picture_checksum(images) == changed


def test_parts_of_an_archive_are_unpacked_to_one_folder(tmp_path, pictures):
    pictures.rename(tmp_path / "train_image")
    assert open_image(tmp_path / "train_image.1.zip@" / "101.png").getpixel((0, 0)) == COLORS["101.png"]


def test_training_from_pixels_in_an_archive(root, tmp_path):
    words = ["model=clip_tiny", "task=contrast", "data=multi30k", "data.batch_size=2", "trainer.max_steps=1"]
    words += [f"root={root}", f"out={tmp_path / 'out'}", "progress=false", "loggers=[]", "vocabulary_size=60"]
    assert run_recipe(compose(words)).metrics


def test_what_an_archive_lacks_is_named(root, pictures, monkeypatch):
    path = Multi30k(root, "val").images["101"]
    monkeypatch.setattr(images, "MAX_BYTES", 10)
    with pytest.raises(FormatError, match=r"train_image\.zip.*101\.png.* 10"):
        open_image(path)
    monkeypatch.undo()
    with zipfile.ZipFile(root / "train_image.zip", "w") as archive:
        archive.write(pictures / "0102.png", "0102.png")
    with pytest.raises(FormatError, match=r"train_image\.zip.*'101\.png'"):
        open_image(path)
    (root / "train_image.zip").write_bytes(b"PK, cut off")
    with pytest.raises(FormatError, match=r"train_image\.zip"):
        open_image(path)
    (root / "train_image.zip").unlink()
    assert not picture_exists(path)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"caption_de": ""}, "caption_de"),
        ({"caption_de": [1]}, "caption_de"),
        ({"image": "train_image.zip@/../../101.png"}, "image"),
        ({"image": "/etc/101.png"}, "image"),
        ({"image": "../101.png"}, "image"),
        ({"image": "train_image.zip@/"}, "image"),
    ],
    ids=["empty", "number", "out", "absolute", "above", "nothing"],
)
def test_broken_records_are_named(root, change, named):
    path = root / "train_frcnn.json"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    write(path, [rows[0], rows[1] | change])
    with pytest.raises(FormatError, match=rf"train_frcnn\.json:2: {named} "):
        Multi30k(root, "train")
