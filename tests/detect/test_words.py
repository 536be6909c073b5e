"""Folders of pictures become files of words, whatever happens in between."""

import json
from pathlib import Path

import pytest
from PIL import Image

from diptych.detect.listing import list_pictures
from diptych.detect.ocr import Line, ReaderDied
from diptych.detect.words import read_records, read_words
from diptych.errors import ConfigError, FormatError

LINE = {
    "text": "a",
    "box": [0.0, 0.0, 1.0, 1.0],
    "score": 1.0,
    "height": 1.0,
    "scene": False,
    "turned": False,
}


class Colors:
    """A reader of text whose words are the colors of pictures; it dies of red ones."""

    def __init__(self, name="colors 1"):
        self.name, self.seen = name, []

    def identity(self):
        return self.name

    def read(self, pictures):
        found = []
        for picture in pictures:
            color = picture.getpixel((0, 0))
            self.seen.append(color)
            if color == (255, 0, 0):
                raise ReaderDied("the engine ended.")
            text = "x".join(map(str, color))
            box = (0.0, 0.0, 9.0, 4.0)
            found.append([Line(text=text, box=box, score=1.0, height=4.0)] if color != (0, 0, 0) else [])
            found[-1] += [Line(text="sign", box=box, score=1.0, height=1.0)] if found[-1] else []
        return found


def pictures(folder, *colors):
    for number, color in enumerate(colors):
        Image.new("RGB", (9, 4), color).save(folder / f"{number}.png")
    return list_pictures(folder)


@pytest.fixture
def out(tmp_path):
    return tmp_path / "words" / "ocr.jsonl"


def test_a_file_has_the_words_of_every_picture(tmp_path, out):
    (tmp_path / "img").mkdir()
    steps = []
    reader = Colors()
    every = pictures(tmp_path / "img", "blue", "black", "lime", "blue")
    report = read_words(every, out, reader, progress=lambda *step: steps.append(step))
    records = [*read_records(out)]
    assert report.texts == {"0": "0x0x255", "1": "", "2": "0x255x0", "3": "0x0x255"}
    assert [record["text"] for record in records] == [*report.texts.values()]
    assert records[0]["img"] == "../img/0.png"
    assert [line["scene"] for line in records[0]["lines"]] == [False, True]
    assert (report.computed, report.empty, report.bad) == (3, 1, ())  # two are equal
    assert steps == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert not list(out.parent.glob("*.partial"))
    assert read_words(every, out.with_name("all.jsonl"), Colors(), chosen="all").texts["0"] == "0x0x255 sign"


def test_a_stopped_run_continues(tmp_path, out):
    every = pictures(tmp_path, "blue", "lime", "red", "white")
    with pytest.raises(ReaderDied, match=r"2\.png.*ended.*resume=true"):
        read_words(every, out, Colors())
    partial = out.with_name("ocr.jsonl.partial")
    assert len(partial.read_text().splitlines()) == 2
    assert not out.exists()
    with pytest.raises(ConfigError, match="resume=true"):
        read_words(every, out, Colors())
    partial.write_bytes(partial.read_bytes()[:-9])  # killed while it wrote
    Image.new("RGB", (9, 4), "gray").save(tmp_path / "2.png")
    reader = Colors()
    report = read_words(every, out, reader, resume=True)
    assert [len(report.texts), report.computed, len(reader.seen)] == [4, 3, 3]
    assert not partial.exists()


def test_new_pictures_join_a_finished_file(tmp_path, out):
    read_words(pictures(tmp_path, "blue", "lime"), out, Colors())
    with pytest.raises(ConfigError, match="exists"):
        read_words(list_pictures(tmp_path), out, Colors())
    every, reader = pictures(tmp_path, "blue", "white", "gray"), Colors()
    assert read_words(every, out, reader, resume=True).texts["2"] == "128x128x128"
    assert len(reader.seen) == 2
    other = Colors("colors 2")  # another reader may read other words
    assert read_words(every, out, other, resume=True).computed == 3
    again = Colors("colors 2")
    assert read_words(every, out, again, overwrite=True).computed == 3


def test_bad_pictures_are_skipped_or_stop_the_run(tmp_path, out):
    every = pictures(tmp_path, "blue", "red", "lime")
    (tmp_path / "2.png").write_bytes(b"no picture")
    report = read_words(every, out, Colors(), bad="skip")
    assert [fault.id for fault in report.bad] == ["1", "2"]
    assert [*report.texts] == ["0"]
    with pytest.raises(FormatError, match=r"2\.png.*bad=skip"):
        read_words(every[2:], out.with_name("other.jsonl"), Colors())
    with pytest.raises(FormatError, match=r"none of 1 .*2\.png"):
        read_words(every[2:], out.with_name("other.jsonl"), Colors(), bad="skip")
    assert {path.name for path in out.parent.iterdir()} == {"ocr.jsonl"}


def test_a_reader_that_dies_again_and_again_stops_the_run(tmp_path, out):
    every, reader = pictures(tmp_path, "red", "red", "red", "blue"), Colors()
    with pytest.raises(ReaderDied, match=r"3 times.*2\.png"):
        read_words(every, out, reader, bad="skip")
    assert len(reader.seen) == 3


@pytest.mark.parametrize("setting", ["resume", "overwrite"])
def test_other_files_are_kept(tmp_path, out, setting):
    out.parent.mkdir()
    out.write_text('{"id": 1, "text": "mine"}\n')
    with pytest.raises(ConfigError, match=r"ocr\.jsonl is not a file of read words"):
        read_words(pictures(tmp_path, "blue"), out, Colors(), **{setting: True})
    assert out.read_text() == '{"id": 1, "text": "mine"}\n'


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"sha256": 7}, "sha256"),
        ({"lines": [{"text": "a"}]}, "box"),
        ({"more": 1}, "more"),
        ({"lines": [{**LINE, "box": [1.0]}]}, "four numbers"),
    ],
)
def test_damaged_records_name_their_line(tmp_path, out, change, said):
    read_words(pictures(tmp_path, "blue", "lime"), out, Colors())
    first, second = out.read_text().splitlines()
    out.write_text(first + "\n" + json.dumps({**json.loads(second), **change}) + "\n")
    with pytest.raises(FormatError, match=rf"ocr\.jsonl:2: .*{said}"):
        [*read_records(out)]
    with pytest.raises(FormatError, match=r"ocr\.jsonl:2"):
        read_words(list_pictures(tmp_path), out, Colors(), resume=True)


def test_the_file_is_a_table(tmp_path):
    from diptych.datasets import named_data

    (tmp_path / "img").mkdir()
    out = tmp_path / "ocr.jsonl"
    read_words(pictures(tmp_path / "img", "blue", "lime"), out, Colors())
    table = named_data("table").open(tmp_path, "ocr")
    assert [example.pairs[0].text for example in table] == ["0x0x255", "0x255x0"]
    assert [Path(path).name for path in table.images.values()] == ["0.png", "1.png"]
