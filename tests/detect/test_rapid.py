"""RapidOCR in its process: what it reads, and what happens when the process does not answer."""

import sys

import pytest
from PIL import Image
from tests.detect.captioned import meme

from diptych.detect.ocr import ReaderDied, arranged, words
from diptych.detect.rapid import RapidReader
from diptych.errors import ConfigError
from diptych.metrics import character_errors


@pytest.fixture(scope="module")
def reader():
    with RapidReader() as one:
        yield one


def speaking(code, patience=60.0):
    """A reader whose engine is a line of Python."""
    return RapidReader(command=(sys.executable, "-c", f"import os, sys, time; {code}"), patience=patience)


@pytest.fixture
def blank():
    return Image.new("RGB", (8, 4))


def test_captions_of_twenty_memes(reader):
    made = [meme(number) for number in range(20)]
    read = [words(arranged(lines)) for lines in reader.read([image for image, _ in made])]
    errors = character_errors(read, [caption for _, caption in made])
    assert errors.rate <= 0.02, list(zip(read, made, strict=True))


def test_boxes_and_heights_are_pixels_of_the_picture(reader):
    image, _ = meme(0)
    large = image.resize((5 * image.width, 5 * image.height))  # more than the engine gets
    small, big = (reader.read([one])[0][0] for one in (image, large))
    assert big.text == small.text
    assert big.box == pytest.approx([5 * side for side in small.box], abs=0.02 * large.width)
    assert big.height == pytest.approx(5 * small.height, rel=0.2)


def test_an_upside_down_picture_is_read_from_its_end(reader):
    image, _ = meme(0)
    upright, turned = (arranged(reader.read([one])[0]) for one in (image, image.rotate(180)))
    assert [line.text for line in turned] == [line.text for line in upright]
    assert all(line.turned for line in turned)
    x1, y1, x2, y2 = upright[0].box
    assert turned[0].box == pytest.approx(
        (image.width - x2, image.height - y2, image.width - x1, image.height - y1), abs=6
    )


def test_a_picture_without_words_has_none(reader, blank):
    assert reader.read([blank, Image.new("RGB", (300, 200), "white")]) == [[], []]


def test_the_worker_does_not_load_torch():
    code = "import runpy, sys; sys.argv = ['w', '480']; runpy.run_path(sys.orig_argv[-1], run_name='x')"
    code += "; assert not any(name.startswith(('torch', 'diptych')) for name in sys.modules)"
    import subprocess

    from diptych.detect.rapid import WORKER

    assert subprocess.run([sys.executable, "-P", "-c", code, str(WORKER)], check=False).returncode == 0


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("sys.exit('no memory for the model')", "no memory for the model"),
        ("os.kill(os.getpid(), 9)", "exit code -9"),
        ("print('[1, 2', flush=True); time.sleep(60)", "answer"),
        ("print('[[1]]', flush=True); time.sleep(60)", "answer"),
        ("os.close(1); time.sleep(60)", "ended"),
        ("sys.stderr.write('x' * 200000); sys.exit(3)", "exit code 3"),
    ],
)
def test_a_dead_engine_is_one_error(code, said, blank):
    with speaking(code) as reader, pytest.raises(ReaderDied, match="rapidocr") as error:
        reader.read([blank])
    assert said in str(error.value)


def test_a_silent_engine_is_ended(blank):
    with speaking("time.sleep(60)", patience=0.3) as reader, pytest.raises(ReaderDied, match=r"0\.3 s"):
        # more bytes than a pipe holds, so that writing waits, too
        reader.read([Image.new("RGB", (400, 400))])


def test_an_engine_starts_again(tmp_path, blank):
    mark = tmp_path / "died"
    code = (
        f"m = {str(mark)!r}; first = not os.path.exists(m); open(m, 'w').close(); first and sys.exit(1); "
        "[print('[]', flush=True) for _ in iter(sys.stdin.buffer.readline, b'')]"
    )
    with speaking(code) as reader:
        with pytest.raises(ReaderDied):
            reader.read([blank])
        assert reader.read([blank]) == [[]]


def test_without_rapidocr_the_error_says_what_to_install(monkeypatch):
    from importlib.metadata import PackageNotFoundError

    from diptych.detect import rapid

    def absent(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(rapid, "version", absent)
    with pytest.raises(ConfigError, match=r"diptych\[ocr\]"):
        RapidReader()
