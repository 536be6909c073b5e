"""The words of pictures that come without a text."""

from base64 import b64encode
from io import BytesIO

import pytest
from PIL import Image, ImageDraw, ImageFont

from diptych.detect.ocr import Line, ReaderDied
from diptych.serve.words import PictureWords, picture_words


class Reader:
    """Finds a caption and a watermark, and dies of black pictures."""

    def identity(self):
        return "reader 1"

    def read(self, pictures):
        if pictures[0].getpixel((0, 0)) == (0, 0, 0):
            raise ReaderDied("a crash")
        lines = [("cat.example", 90.0, 8.0), ("WHAT A", 10.0, 30.0), ("DAY", 50.0, 30.0)]
        return [[Line(text=text, box=(5.0, y, 95.0, y + h), score=0.9, height=h) for text, y, h in lines]]


def png(color, size=(100, 100)):
    stored = BytesIO()
    Image.new("RGB", size, color).save(stored, "PNG")
    return {"bytes": b64encode(stored.getvalue()).decode()}


def test_the_captions_are_the_text(serve):
    ask = serve("pixels", words=PictureWords([Reader()]))
    answer = ask.score({"image": png("white")}).json()
    assert (answer["read"]["text"], answer["read"]["text_source"]) == ("WHAT A DAY", "ocr")
    assert answer["raw"] == ask.score({"image": png("white"), "text": "WHAT A DAY"}).json()["raw"]
    given = ask.score({"image": png("white"), "text": "other"}).json()["read"]
    assert (given["text"], given["text_source"]) == ("other", "given")
    always = {"image": png("white"), "text": "other", "options": {"ocr": "always"}}
    assert ask.score(always).json()["read"]["text"] == "WHAT A DAY"
    assert PictureWords([Reader()], lines="all").text(Image.new("RGB", (9, 9), "white")).endswith("example")


def test_a_picture_that_kills_the_reader_leaves_it_to_others(serve):
    ask = serve("pixels", words=PictureWords([Reader()]))
    for _ in range(2):
        dead = ask.score({"image": png("black")})
        assert (dead.status_code, dead.json()["type"]) == (422, "/problems/no-text")
    assert ask.score({"image": png("white")}).json()["read"]["text_source"] == "ocr"
    record = next(iter(reversed(ask.service.recent.values())))
    assert record["ocr"] == "reader 1, captions"


def test_rapidocr_reads_for_the_service(serve):
    pytest.importorskip("rapidocr")
    image = Image.new("RGB", (320, 120), "white")
    ImageDraw.Draw(image).text((20, 30), "what a day", fill="black", font=ImageFont.load_default(48))
    stored = BytesIO()
    image.save(stored, "PNG")
    with picture_words(1, patience=60.0) as words:
        ask = serve("pixels", words=words)
        answer = ask.score({"image": {"bytes": b64encode(stored.getvalue()).decode()}}).json()
    assert answer["read"]["text"].lower() == "what a day"
    assert answer["timing_ms"]["ocr"] > 0
