import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from diptych.check import CheckReport, check
from diptych.errors import ConfigError, FormatError
from diptych.types import FeatureMeta, Regions


def meme(number, **changes):
    values = {"id": number, "img": f"img/{number}.png", "label": number % 2, "text": f"text {number}"}
    return {key: value for key, value in (values | changes).items() if value != "drop"}


def write_split(root, name, *records):
    lines = [record if isinstance(record, str) else json.dumps(record) for record in records]
    (root / f"{name}.jsonl").write_text("\n".join(lines) + "\n")


def write_picture(root, number, size=(32, 24)):
    """Every number has its own pixels."""
    (root / "img").mkdir(exist_ok=True)
    values = np.random.default_rng(number).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(values).save(root / "img" / f"{number}.png")


@pytest.fixture
def folder(tmp_path):
    for number in range(12):
        write_picture(tmp_path, number)
    write_split(tmp_path, "train", *map(meme, range(8)))
    write_split(tmp_path, "dev_seen", *map(meme, range(8, 12)))
    return tmp_path


class Source:
    """Regions of one box for every picture but those left out."""

    box = (0, 0, 9, 9)

    def __init__(self, *, without=(), **changed):
        self.meta = FeatureMeta(feature_dim=4)
        self.without, self.changed = without, changed

    def __contains__(self, key):
        return key not in self.without

    def count(self, key):
        return len(self[key])

    def __getitem__(self, key):
        found = self.changed.get(f"of_{key}", 1)
        if isinstance(found, Exception):
            raise found
        if isinstance(found, tuple):
            return replace(self[""], size=found)
        return Regions(
            features=np.zeros((found, 4), np.float32),
            boxes=np.tile(np.array([self.box], np.float32), (found, 1)),
            size=(32, 24),
        )


def only(report: CheckReport):
    assert len(report.findings) == 1, report.findings
    return report.findings[0]


def test_sound_folder_has_no_findings(folder):
    report = check(folder, features=Source())
    assert report.ok
    assert report.findings == ()
    dev, train = report.splits
    assert (train.split, train.examples, train.pictures) == ("train", 8, 8)
    assert train.labels == {"benign": 4, "hateful": 4}
    assert (train.words, train.widths, train.heights, train.regions) == (
        (2,) * 3,
        (32,) * 3,
        (24,) * 3,
        (1,) * 3,
    )
    assert (dev.split, dev.examples) == ("dev_seen", 4)


def test_all_broken_records_are_reported(folder):
    write_split(
        folder, "train", "broken", meme(0), meme(1, text="drop"), meme(2, label=7), meme(3), '{"id": 9'
    )
    report = check(folder)
    finding = only(report)
    assert not report.ok
    assert (finding.severity, finding.what, finding.count) == ("error", "records that cannot be read", 4)
    assert [int(example.split(":")[1]) for example in finding.examples] == [1, 3, 4, 6]
    assert report.splits[1].examples == 2


def test_repeated_ids_are_reported_apart(folder):
    write_split(folder, "train", meme(0), meme(1), meme(1), meme(0))
    finding = only(check(folder))
    assert (finding.severity, finding.what, finding.count) == ("error", "ids that occur twice in a split", 2)


def test_missing_and_broken_pictures_are_reported(folder):
    (folder / "img/0.png").unlink()
    (folder / "img/1.png").write_bytes(b"no picture")
    content = (folder / "img/2.png").read_bytes()
    (folder / "img/2.png").write_bytes(content[: len(content) // 2])
    report = check(folder)
    finding = only(report)
    assert (finding.severity, finding.count) == ("error", 3)
    assert [example.split(": ")[0][-5:] for example in finding.examples] == ["0.png", "1.png", "2.png"]


def test_tiny_pictures_are_reported(folder):
    write_picture(folder, 3, (1, 1))
    finding = only(check(folder))
    assert (finding.severity, finding.examples) == ("warning", ("img/3.png (1 x 1)",))


def test_pictures_with_the_same_key_are_reported(folder):
    (folder / "other").mkdir()
    Image.new("RGB", (32, 32)).save(folder / "other" / "1.jpg")
    write_split(folder, "train", meme(0), meme(1), meme(2), meme(3, img="other/1.jpg"))
    assert only(check(folder)).examples == ("1: img/1.png, other/1.jpg",)


def test_missing_features_are_reported(folder):
    report = check(folder, features=Source(without={"3", "9"}))
    finding = only(report)
    assert (finding.severity, finding.what, finding.count) == ("error", "pictures without features", 2)
    assert not report.ok


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("features", np.full((1, 4), np.nan, np.float32), "NaN or infinite features"),
        ("boxes", np.full((1, 4), np.inf, np.float32), "NaN or infinite boxes"),
        ("boxes", np.array([[9, 9, 5, 5]], np.float32), "box 0 is inverted"),
        ("boxes", np.array([[0, 0, 99, 5]], np.float32), "leaves the image"),
        ("size", (0, 24), "at least 1 x 1 pixels"),
    ],
)
def test_numbers_of_features_are_looked_at(folder, monkeypatch, name, value, message):
    source = Source()
    good = Source.__getitem__(source, "")
    monkeypatch.setattr(
        Source, "__getitem__", lambda _, key: replace(good, **{name: value}) if key == "3" else good
    )
    report = check(folder, features=source)
    [finding] = [one for one in report.findings if one.what == "features that cannot be read"]
    assert finding.count == 1
    assert finding.examples[0].startswith("img/3.png: ")
    assert message in finding.examples[0]
    assert not report.ok


def test_the_spelling_of_foreign_keys_is_shown(folder, monkeypatch):
    monkeypatch.setattr(Source, "keys", lambda _: ("img/0.png", "img/1.png"), raising=False)
    report = check(folder, features=Source(without=set(map(str, range(12)))))
    assert "keys look like 'img/0.png', 'img/1.png'" in report.findings[0].advice


def test_ids_that_a_spreadsheet_would_run_are_named(folder):
    write_split(folder, "train", *(meme(1) | {"id": key} for key in ("=1+1", "@x", "-5", "a=b")))
    found = {one.what: one.examples for one in check(folder).findings}
    assert found["ids that a spreadsheet takes for formulas"] == ("=1+1", "@x", "-5")


def test_odd_features_are_reported(folder):
    damaged = FormatError("part-0 is damaged")
    report = check(folder, features=Source(of_1=0, of_2=damaged, of_4=(64, 48)))
    assert {finding.what: finding.examples for finding in report.findings} == {
        "features that cannot be read": ("part-0 is damaged",),
        "pictures in which nothing was detected": ("img/1.png",),
        "features of pictures of another size": ("img/4.png (features (64, 48), picture (32, 24))",),
    }
    assert report.splits[1].regions == (0, 1, 1)


def test_ids_in_two_splits_are_an_error(folder):
    write_split(folder, "test_seen", meme(3), meme(10), meme(7))
    report = check(folder)
    assert not report.ok
    assert {finding.what: (finding.severity, finding.examples) for finding in report.findings} == {
        "memes in both dev_seen and test_seen": ("error", ("10",)),
        "memes in both test_seen and train": ("error", ("3", "7")),
    }


def test_overlap_of_the_dev_splits_is_known(folder):
    write_split(folder, "dev_unseen", meme(8), meme(9))
    report = check(folder)
    assert report.ok
    finding = only(report)
    assert (finding.severity, finding.what, finding.count) == (
        "note",
        "memes in both dev_seen and dev_unseen",
        2,
    )


def test_equal_pixels_in_two_splits_are_found_under_other_names(folder):
    Image.open(folder / "img/2.png").save(folder / "img/copy.webp", lossless=True)
    write_split(
        folder, "dev_seen", meme(8), meme(9, img="img/copy.webp"), meme(10, img="img/5.png"), meme(11)
    )
    finding = only(check(folder))
    assert (finding.severity, finding.what) == ("warning", "pictures in both dev_seen and train")
    assert finding.examples == ("img/5.png", "img/copy.webp = img/2.png")


def test_empty_and_endless_texts_are_reported(folder):
    write_split(
        folder, "train", meme(0, text=""), meme(1, text=" \t"), meme(2, text="word " * 10_000), meme(3)
    )
    report = check(folder)
    assert report.ok
    assert [(finding.severity, finding.count) for finding in report.findings] == [
        ("warning", 2),
        ("warning", 1),
    ]
    assert report.findings[1].examples == ("train 2 (10000 words)",)
    assert report.splits[1].words == (0, 1, 10_000)


def test_label_balance_is_reported(folder):
    write_split(folder, "train", *(meme(number, label=0) for number in range(8)))
    finding = only(check(folder))
    assert (finding.severity, finding.examples) == ("warning", ("train (8 benign, 0 hateful)",))


def test_withheld_labels_are_a_note_except_for_training(folder):
    write_split(folder, "test_seen", meme(20, label="drop", img="img/test.png"))
    Image.new("RGB", (32, 32), "teal").save(folder / "img/test.png")
    report = check(folder)
    assert report.ok
    assert only(report).examples == ("test_seen",)
    assert report.splits[1].labels == {"unlabeled": 1}
    write_split(folder, "train", *(meme(number, label="drop") for number in range(8)))
    assert not check(folder).ok


def test_partly_labeled_split_is_reported(folder):
    write_split(folder, "train", meme(0), meme(1), meme(2, label="drop"))
    assert only(check(folder)).examples == ("train (1 of 3 without label)",)


def test_empty_split_is_an_error(folder):
    write_split(folder, "train")
    assert only(check(folder)).examples == ("train",)


def test_findings_come_worst_first_with_five_examples(folder):
    for number in range(7):
        (folder / f"img/{number}.png").unlink()
    write_split(folder, "dev_seen", meme(8, text=""), meme(9), meme(10), meme(11))
    report = check(folder)
    assert [finding.severity for finding in report.findings] == ["error", "warning"]
    assert report.findings[0].count == 7
    assert len(report.findings[0].examples) == 5
    assert all(finding.advice for finding in report.findings)


def test_other_json_lines_are_no_splits(folder):
    write_split(folder, "boxes", {"id": 1})
    write_split(folder, "test_seen.answers", {"id": 1, "label": 1})
    assert [split.split for split in check(folder).splits] == ["dev_seen", "train"]


def test_chosen_splits_only(folder):
    write_split(folder, "dev_seen", "broken")
    assert check(folder, splits=["train"]).ok
    with pytest.raises(ConfigError, match=r"tran\.jsonl .* 'train'\?"):
        check(folder, splits=["tran"])


def test_folder_without_annotations_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"--data .*hateful_memes"):
        check(tmp_path)
    with pytest.raises(ConfigError, match="nowhere"):
        check(tmp_path / "nowhere")


def test_progress_counts_every_picture_once(folder):
    write_split(folder, "dev_unseen", meme(8), meme(9))
    steps = []
    check(folder, progress=lambda done, total: steps.append((done, total)))
    assert steps == [(done, 12) for done in range(1, 13)]


@pytest.mark.parametrize(
    ("box", "what"), [([0, 0, 1, 1], "look scaled"), ([4, 4, 9, 4], "without width or height")]
)
def test_boxes_that_nobody_can_have_meant_are_counted(folder, box, what):
    source = Source()
    source.box = box
    finding = only(check(folder, features=source))
    assert (finding.severity, finding.count) == ("warning", 12)
    assert what in finding.what
