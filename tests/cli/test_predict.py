import csv
import shutil
from pathlib import Path

import pytest
from PIL import Image

from diptych.cli import main
from diptych.datasets import HatefulMemes
from diptych.features import FeatureStore


def test_a_wrong_split_shows_before_the_first_is_scored(memes, pixel_run, tmp_path, refused) -> None:
    line = refused(["predict", pixel_run, "--splits", "dev_seen,dev_sen", "--out", tmp_path / "p"])
    assert "dev_sen.jsonl" in line
    assert "Did you mean 'dev_seen'?" in line
    assert "answers" not in line
    assert not (tmp_path / "p").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--device", "cudaa"], "'cudaa'"),
        (["--device", "meta:x"], "'meta:x'"),
        (["--batch-size", "0"], "batch_size is 0"),
        (["--workers", "-1"], "workers is -1"),
        (["--root", "nowhere"], "nowhere"),
        (["--image", "nowhere.png"], "nowhere.png"),
        (["--text", "no picture"], "Concat"),
    ],
)
def test_what_cannot_work_is_one_line(pixel_run, tmp_path, refused, words, message) -> None:
    assert message in refused(["predict", pixel_run, "--out", tmp_path / "p", *words])
    assert not (tmp_path / "p").exists()


def test_files_that_exist_are_kept_and_files_are_no_folders(pixel_run, tmp_path, refused) -> None:
    (tmp_path / "dev_seen.csv").write_text("mine")
    words = ["predict", pixel_run, "--splits", "dev_seen", "--out"]
    assert str(tmp_path / "dev_seen.csv") in refused([*words, tmp_path])
    assert f"{tmp_path / 'dev_seen.csv'} is a file" in refused([*words, tmp_path / "dev_seen.csv"])
    assert (tmp_path / "dev_seen.csv").read_text() == "mine"


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:900]), "the picture cannot be read"),
        (lambda path: path.write_text("<html>"), "not a picture in a known format"),
        (lambda path: Image.new("1", (9500, 9500)).save(path), "9500 x 9500"),
        (lambda path: path.unlink(), "1 of 48 "),
        (lambda path: (path.unlink(), path.mkdir()), "this is a folder; expected a picture file"),
    ],
)
def test_a_bad_picture_is_one_line_whoever_loads_it(
    spoiled, pictures, pixel_run, tmp_path, refused, spoil, message, workers
) -> None:
    spoil(pictures[0])
    words = ["--root", spoiled, "--splits", "train", "--out", tmp_path / "p", "--workers", workers]
    line = refused(["predict", pixel_run, *words])
    assert message in line
    assert pictures[0].name in line
    assert not (tmp_path / "p").exists()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]), "part-00000.arrow"),
        (lambda path: path.unlink(), "it is missing"),
    ],
)
def test_a_store_that_is_not_whole_is_refused(memes, region_run, tmp_path, refused, spoil, message) -> None:
    store = Path(shutil.copytree(memes / "features", tmp_path / "store"))
    spoil(store / "part-00000.arrow")
    words = ["--splits", "dev_seen", "--features", store, "--out", tmp_path / "p"]
    assert message in refused(["predict", region_run, *words])
    assert not (tmp_path / "p").exists()


def test_features_of_another_detector_are_refused(memes, region_run, tmp_path, refused) -> None:
    assert main(["import", str(memes / "features.tsv"), str(tmp_path / "s"), "--detector", "vgattr"]) == 0
    line = refused(["predict", region_run, "--features", tmp_path / "s", "--out", tmp_path / "p"])
    assert "'vgattr'" in line
    assert "'world'" in line


def test_end_to_end_a_split_and_one_meme_agree(memes, box_run, boxes, tmp_path, capsys) -> None:
    """With the grid of the run and with other boxes; the bundle needs neither features nor their names."""
    meme, found = HatefulMemes(memes, "dev_seen")[0], []
    for words in ([], ["--features", boxes]):
        out = tmp_path / str(len(words))
        command = ["predict", box_run, *words]
        assert main([str(word) for word in [*command, "--splits", "dev_seen", "--out", out]]) == 0
        with (out / "dev_seen.csv").open(encoding="utf-8") as file:
            found.append(float(next(csv.DictReader(file))["proba"]))
        capsys.readouterr()
        one = ["--image", memes / meme.pairs[0].files[0], "--text", meme.pairs[0].text]
        assert main([str(word) for word in [*command, *one]]) == 0
        assert f"hateful {found[-1]:.4f}" in capsys.readouterr().out
    assert found[0] != found[1]


def test_a_limit_predicts_the_first_images_as_the_whole_split_does(
    memes, region_run, tmp_path, refused
) -> None:
    words = ["predict", str(region_run), "--splits", "dev_seen", "--out"]
    found = {}
    for name, more in (("all", []), ("some", ["--limit", "3"])):
        assert main([*words, str(tmp_path / name), *more]) == 0
        with (tmp_path / name / "dev_seen.csv").open(encoding="utf-8") as file:
            found[name] = {row["id"]: float(row["proba"]) for row in csv.DictReader(file)}
    # As in the original, the first images are those of the store; this split is at none of its first places.
    split, store = HatefulMemes(memes, "dev_seen"), FeatureStore(memes / "features")
    places = dict(zip(split.ids, store.rows_of([one.pairs[0].image for one in split]), strict=True))
    first = sorted(places, key=places.__getitem__)[:3]
    assert min(places.values()) >= 3
    assert found["some"] == pytest.approx({key: found["all"][key] for key in first}, abs=1e-5)
    # A file of the first images is not taken for that of the whole split.
    assert str(tmp_path / "some") in refused([*words, tmp_path / "some"])


def test_end_to_end_missing_boxes_are_one_line(memes, box_run, boxes, tmp_path, refused) -> None:
    lines = boxes.read_text(encoding="utf-8").splitlines(keepends=True)
    boxes.write_text(lines[0], encoding="utf-8")
    words = ["predict", box_run, "--features", boxes, "--splits", "dev_seen", "--out", tmp_path / "p"]
    line = refused(words)
    assert str(boxes) in line
    other = sorted((memes / "img").glob("*.png"))[1]
    assert str(boxes) in refused([*words, "--image", other, "--text", "a"])
    assert "--image" in refused([*words, "--text", "a"])


def test_boxes_are_no_features(region_run, boxes, tmp_path, refused) -> None:
    line = refused(["predict", region_run, "--features", boxes, "--out", tmp_path / "p"])
    assert str(boxes) in line


def test_a_vocabulary_with_more_words_than_the_model_is_refused(pixel_run, tmp_path, refused) -> None:
    run = Path(shutil.copytree(pixel_run / "bundle", tmp_path / "bundle"))
    with (run / "files" / "vocabulary.txt").open("a", encoding="utf-8") as file:
        file.write("\nzebra\n")
    assert "model.vocab_size" in refused(["predict", run, "--out", tmp_path / "p"])


def test_a_damaged_bundle_is_one_line(pixel_run, tmp_path, refused) -> None:
    run = Path(shutil.copytree(pixel_run / "bundle", tmp_path / "bundle"))
    (run / "files" / "vocabulary.txt").unlink()
    assert "vocabulary.txt: " in refused(["predict", run])
    (run / "bundle.yaml").write_text("format: 1\nmodel: a\nprocessor: b\ntask: c\n")
    assert "bundle.yaml: model: " in refused(["predict", run])
    (run / "bundle.yaml").write_text("model: [1")
    assert "bundle.yaml: " in refused(["predict", run])


def test_a_full_disk_leaves_no_half_file(pixel_run, tmp_path, refused, full_disk) -> None:
    with full_disk(100):
        line = refused(["predict", pixel_run, "--splits", "train", "--out", tmp_path / "p"])
    assert str(tmp_path / "p") in line
    assert not (tmp_path / "p").exists()


def test_a_bundle_knows_no_folder_of_the_machine_and_its_run_does(
    memes, region_run, tmp_path, refused
) -> None:
    for name in ("bundle.yaml", "README.md"):
        text = (region_run / "bundle" / name).read_text()
        assert str(memes) not in text
        assert str(region_run) not in text
    assert main(["predict", str(region_run), "--splits", "dev_seen", "--out", str(tmp_path / "scores")]) == 0
    moved = shutil.copytree(region_run / "bundle", tmp_path / "moved")
    words = ["predict", moved, "--splits", "dev_seen", "--out", tmp_path / "others"]
    assert "--root FOLDER" in refused(words)
    assert "features=FOLDER" in refused([*words, "--root", memes])
    words += ["--root", memes, "--features", memes / "features"]
    assert main([str(word) for word in words]) == 0
    one, other = (tmp_path / place / "dev_seen.csv" for place in ("scores", "others"))
    assert one.read_text() == other.read_text()


@pytest.mark.parametrize("text", ["{", "[]", '{"root": 5}', '{"root": null}', '{"x": 1}'])
def test_odd_places_are_named(region_run, tmp_path, refused, text) -> None:
    run = shutil.copytree(region_run, tmp_path / "run")
    (run / "places.json").write_text(text)
    assert "places.json: " in refused(["predict", run, "--splits", "dev_seen", "--out", tmp_path / "p"])
