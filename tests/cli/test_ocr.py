"""Words in pictures as a person asks for them: `ocr`, `score`, `predict` and `extract`."""

import json
import shutil
from importlib.metadata import PackageNotFoundError

import pytest
from tests.detect.captioned import meme

from diptych.cli import main
from diptych.detect import rapid
from diptych.detect.words import read_records
from diptych.predictions import Predictions


@pytest.fixture(scope="module")
def captioned(tmp_path_factory):
    """Three memes in the layout of the challenge; the texts of the first two are given."""
    root = tmp_path_factory.mktemp("captioned")
    (root / "img").mkdir()
    lines = []
    for number in range(3):
        image, caption = meme(number)
        image.save(root / "img" / f"{number}.png")
        text = caption if number < 2 else ""
        lines.append(
            json.dumps({"id": number, "img": f"img/{number}.png", "text": text, "label": number % 2})
        )
    (root / "dev_seen.jsonl").write_text("\n".join(lines))
    return root


@pytest.fixture
def fast(monkeypatch, tmp_path):
    """An engine that starts at once and finds the same line in every picture."""
    line = {"text": "WHAT A DAY", "x1": 1.0, "y1": 1.0, "x2": 9.0, "y2": 5.0, "height": 4.0, "score": 1.0}
    worker = tmp_path / "worker.py"
    worker.write_text(f"""
import json, sys
while head := sys.stdin.buffer.readline():
    size = json.loads(head)
    sys.stdin.buffer.read(3 * size["width"] * size["height"])
    print(json.dumps([{line}]), flush=True)
""")
    monkeypatch.setattr(rapid, "WORKER", worker)


@pytest.fixture
def absent(monkeypatch):
    """As if the extra was not installed."""

    def version(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(rapid, "version", version)


def test_a_folder_is_read_and_compared_with_given_texts(captioned, tmp_path, capsys, refused):
    out = tmp_path / "ocr.jsonl"
    words = ["ocr", captioned / "img", "--out", out, "--root", captioned, "--split", "dev_seen"]
    assert main([*map(str, words), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["computed"], found["empty"], found["errors"]["count"]) == (3, 0, 2)
    assert found["errors"]["rate"] < 0.05
    assert [record["id"] for record in read_records(out)] == ["0", "1", "2"]
    assert str(out) in refused(words)
    assert main([*map(str, words), "resume=true"]) == 0
    shown = capsys.readouterr().out
    assert "0 pictures read" in shown
    assert "character error rate" in shown


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--side", "8"], "--side is 8"),
        (["--split", "dev_seen"], "--root and --split"),
        (["--root", "nowhere", "--split", "dev_seen"], "nowhere"),
    ],
)
def test_what_cannot_work_is_one_line(captioned, tmp_path, refused, words, message):
    assert message in refused(["ocr", captioned / "img", "--out", tmp_path / "o.jsonl", *words])
    assert not (tmp_path / "o.jsonl").exists()


@pytest.mark.usefixtures("fast")
def test_a_meme_without_text_is_read_first(captioned, pixel_run, capsys, refused):
    words = ["score", captioned / "img" / "0.png", "--model", pixel_run]
    assert main([*map(str, words), "--json"]) == 0
    read = json.loads(capsys.readouterr().out)
    assert (read["read"]["text_source"], read["read"]["reader"][:8]) == ("ocr", "rapidocr")
    text = read["read"]["text"]
    assert text == "WHAT A DAY"
    assert main([*map(str, words), "--text", text, "--json"]) == 0
    given = json.loads(capsys.readouterr().out)
    assert given["read"] == {"text": text, "text_source": "given"}
    assert given["scores"] == read["scores"]
    assert main(["predict", str(pixel_run), "--image", str(words[1]), "--ocr"]) == 0
    shown = capsys.readouterr().out
    assert f"text, read from the picture: {text}   (rapidocr" in shown
    assert f"{given['scores']['hateful']:.4f}" in shown
    assert "--ocr and --text" in refused([*words, "--text", text, "--ocr"])


@pytest.mark.usefixtures("fast")
def test_lost_spaces_come_back_by_the_words_of_the_model(captioned, pixel_run, tmp_path, capsys, monkeypatch):
    worker = rapid.WORKER.read_text().replace("WHAT A DAY", "WHATADAYMEMES")
    monkeypatch.setattr(rapid, "WORKER", tmp_path / "glued.py")
    rapid.WORKER.write_text(worker)
    words = [captioned / "img" / "0.png", "--model", pixel_run, "--json"]
    known = tmp_path / "known.txt"
    known.write_text("a\nday\nwhat\nmemes\n")
    for more, expected in (([], "WHATADAYMEMES"), (["--words", known], "WHAT A DAY MEMES")):
        assert main(["score", *map(str, words), *map(str, more)]) == 0
        read = json.loads(capsys.readouterr().out)["read"]
        assert read["text"] == expected
        # Also where nothing was cut, who reads is another reader.
        assert "spaces by" in read["reader"]
    out = tmp_path / "ocr.jsonl"
    assert main(["ocr", str(captioned / "img"), "--out", str(out), "--words", str(known)]) == 0
    assert {record["text"] for record in read_records(out)} == {"WHAT A DAY MEMES"}


@pytest.mark.usefixtures("absent")
def test_without_rapidocr_one_line_says_what_to_do(captioned, pixel_run, tmp_path, refused):
    picture = captioned / "img" / "0.png"
    line = refused(["score", picture, "--model", pixel_run])
    assert "diptych[ocr]" in line
    assert "--text" in line
    assert "diptych[ocr]" in refused(["ocr", captioned / "img", "--out", tmp_path / "o.jsonl"])
    extract = ["extract", captioned / "img", tmp_path / "f", "--detector", "tiny", "--ocr"]
    assert "diptych[ocr]" in refused(extract)
    assert not (tmp_path / "f").exists()


@pytest.mark.usefixtures("fast")
def test_memes_of_a_split_without_text_are_read(captioned, pixel_run, tmp_path, capsys, refused):
    words = ["predict", pixel_run, "--splits", "dev_seen", "--out", tmp_path / "p", "--root", captioned]
    assert main([*map(str, words), "--ocr"]) == 0
    assert "1 of 3 memes have no text; words were found in 1" in capsys.readouterr().out
    [record] = read_records(tmp_path / "p" / "dev_seen.ocr.jsonl")
    read = Predictions.load(tmp_path / "p" / "dev_seen.npz")
    assert read.meta["made_of"]["ocr"].startswith("rapidocr")
    # without --ocr, these are other predictions
    assert "ocr differ" in refused(words)
    root = shutil.copytree(captioned, tmp_path / "copy")
    lines = [json.loads(line) for line in (root / "dev_seen.jsonl").read_text().splitlines()]
    lines[2]["text"] = record["text"]
    (root / "dev_seen.jsonl").write_text("\n".join(map(json.dumps, lines)))
    words[4:] = ["--out", tmp_path / "q", "--root", root]
    assert main([*map(str, words)]) == 0
    written = Predictions.load(tmp_path / "q" / "dev_seen.npz")
    assert (written.scores == read.scores).all()


@pytest.mark.usefixtures("fast")
def test_extraction_also_reads_words(captioned, tmp_path, capsys, refused):
    words = ["extract", captioned / "img", tmp_path / "f", "--detector", "tiny", "--boxes", "4", "--ocr"]
    assert main([*map(str, words)]) == 0
    assert "ocr.jsonl: 3 pictures, 0 without words" in capsys.readouterr().out
    assert [record["id"] for record in read_records(tmp_path / "f" / "ocr.jsonl")] == ["0", "1", "2"]
