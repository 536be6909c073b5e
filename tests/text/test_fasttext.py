import builtins
import pickle
import random
import struct
from pathlib import Path
from typing import Any

import floret
import numpy as np
import pytest

from diptych.errors import ConfigError, FormatError
from diptych.text.fasttext import DRIVENDATA, NAV13N, FastText, train_fasttext


def corpus(lines: int = 300) -> list[str]:
    draw = random.Random(0)
    words = ["".join(draw.choices("abcdefghi", k=draw.randint(2, 6))) for _ in range(60)]
    return [" ".join(draw.choices(words, k=9)) for _ in range(lines)]


TEXTS = corpus()
SMALL = {"dim": 12, "bucket": 500, "epochs": 2}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("fasttext") / "vectors.bin"
    train_fasttext(TEXTS, path, **SMALL)
    return path


def genuine(content: bytes) -> bytes:
    """The bytes fastText itself would have written: without floret's mode and number of hashes."""
    assert struct.unpack_from("<2i", content, 52) == (1, 1)
    return content[:52] + content[60:]


def test_two_runs_give_equal_bytes(trained: Path, tmp_path: Path) -> None:
    train_fasttext(iter(TEXTS), tmp_path / "again.bin", **SMALL)
    assert (tmp_path / "again.bin").read_bytes() == trained.read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["again.bin"]


def test_sentence_vector_is_the_mean_of_unit_word_vectors(trained: Path) -> None:
    vectors, words = FastText(trained), floret.load_model(str(trained))
    for text in (TEXTS[0], "unseenword abc", "one", " spaces  and\ttabs "):
        each = np.array([words.get_word_vector(word) for word in text.split()])
        norms = np.linalg.norm(each, axis=1, keepdims=True)
        expected = (each[norms[:, 0] > 0] / norms[norms > 0, None]).mean(0)
        np.testing.assert_allclose(vectors.vector(text), expected, atol=1e-6)


CHANGES = [
    {"model": "skipgram"}, {"lr": 0.1}, {"window": 2}, {"negatives": 2}, {"min_n": 2}, {"max_n": 4},
    {"epochs": 3}, {"line_suffix": "/n"}, {"bucket": 400}, {"min_count": 50},
]  # fmt: skip


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_training_follows_every_setting(trained: Path, tmp_path: Path, change: dict[str, Any]) -> None:
    train_fasttext(TEXTS, tmp_path / "other.bin", **(SMALL | change))
    other = FastText(tmp_path / "other.bin").vector(TEXTS[0])
    assert not np.array_equal(other, FastText(trained).vector(TEXTS[0]))


def test_line_suffix_sticks_to_the_last_word(tmp_path: Path) -> None:
    train_fasttext(["red green"] * 9, tmp_path / "suffix.bin", line_suffix="/n", **SMALL)
    assert set(floret.load_model(str(tmp_path / "suffix.bin")).words) == {"red", "green/n", "</s>"}


def test_vectors_are_rows_in_order(trained: Path) -> None:
    vectors = FastText(trained)
    rows = vectors.vectors(TEXTS[:3])
    assert rows.shape == (3, vectors.dim) == (3, 12)
    assert rows.dtype == np.float32
    np.testing.assert_array_equal(rows[1], vectors.vector(TEXTS[1]))
    assert vectors.vectors([]).shape == (0, 12)


def test_odd_texts_have_vectors(trained: Path, tmp_path: Path) -> None:
    vectors = FastText(trained)
    np.testing.assert_array_equal(vectors.vector(""), np.zeros(12))
    np.testing.assert_array_equal(vectors.vector("abc\ndef"), vectors.vector("abc def"))
    assert np.isfinite(vectors.vector("emoji 😀 \ud83d 中文 \x00")).all()
    train_fasttext([*TEXTS, "two\nlines", "\ud83d", "", "__label__a word"], tmp_path / "odd.bin", **SMALL)
    assert FastText(tmp_path / "odd.bin").dim == 12


def test_travels_to_workers(trained: Path) -> None:
    vectors = FastText(trained)
    copy = pickle.loads(pickle.dumps(vectors))
    np.testing.assert_array_equal(copy.vector(TEXTS[0]), vectors.vector(TEXTS[0]))


def test_reads_what_fasttext_itself_writes(trained: Path, tmp_path: Path) -> None:
    path = tmp_path / "genuine.bin"
    path.write_bytes(genuine(trained.read_bytes()))
    np.testing.assert_array_equal(FastText(path).vectors(TEXTS), FastText(trained).vectors(TEXTS))


@pytest.mark.timeout(60)
@pytest.mark.parametrize("make", [bytes, genuine])
def test_damaged_file_is_an_error_and_never_hangs(trained: Path, tmp_path: Path, make: Any) -> None:
    whole, path = make(trained.read_bytes()), tmp_path / "damaged.bin"
    lengths = [0, 1, 50, 60, 90, 150, 400, len(whole) // 2, len(whole) - 1]
    for content in (*(whole[:length] for length in lengths), whole + b"\0", b"text\n" * 100):
        path.write_bytes(content)
        with pytest.raises(FormatError, match=r"damaged\.bin: "):
            FastText(path)


@pytest.mark.timeout(60)
def test_wrong_numbers_in_the_header_are_errors(trained: Path, tmp_path: Path) -> None:
    whole, path = trained.read_bytes(), tmp_path / "damaged.bin"
    fields = {"magic": 0, "version": 4, "dim": 8, "model": 36, "bucket": 40, "mode": 52, "hashes": 56}
    dictionary = {"entries": 72, "words": 76, "labels": 80, "pruned": 92}
    for name, at in (fields | dictionary).items():
        for value in (-1, 0, 3, 2**31 - 1):
            damaged = bytearray(whole)
            struct.pack_into("<i", damaged, at, value)
            if damaged == whole or (name == "labels" and value == 0):
                continue
            path.write_bytes(damaged)
            if (name, value) != ("pruned", -1):
                with pytest.raises(FormatError, match=r"damaged\.bin: "):
                    FastText(path)


def test_classifier_is_refused(tmp_path: Path) -> None:
    (tmp_path / "lines.txt").write_text("__label__a good day\n__label__b bad day\n" * 20)
    model = floret.train_supervised(str(tmp_path / "lines.txt"), dim=5, thread=1, verbose=0)
    model.save_model(str(tmp_path / "classifier.bin"))
    with pytest.raises(FormatError, match=r"classifier\.bin: .* 3, dim 5, bucket 0"):
        FastText(tmp_path / "classifier.bin")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dim": 0}, "'dim': 0"),
        ({"threads": 0, "window": -1}, "'window': -1, 'threads': 0"),
        ({"min_count": 10**6}, "min_count=1000000"),
        ({"lr": 1e9}, r"lr=1000000000\.0"),
    ],
)
def test_impossible_training_is_one_clear_error(tmp_path: Path, settings: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        train_fasttext(TEXTS, tmp_path / "none.bin", **(SMALL | settings))
    assert not list(tmp_path.iterdir())


def test_existing_file_is_kept_unless_asked(trained: Path, tmp_path: Path) -> None:
    path = tmp_path / "mine.bin"
    path.write_bytes(b"mine")
    with pytest.raises(ConfigError, match=r"mine\.bin .*overwrite=true"):
        train_fasttext(TEXTS, path, **SMALL)
    assert path.read_bytes() == b"mine"
    with pytest.raises(ConfigError, match=r"mine\.bin .* a fastText model "):
        train_fasttext(TEXTS, path, overwrite=True, **SMALL)
    path.write_bytes(trained.read_bytes()[:1000])
    train_fasttext(TEXTS, path, overwrite=True, **SMALL)
    assert path.read_bytes() == trained.read_bytes()


def test_missing_library_names_the_install(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def broken(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "floret":
            raise RuntimeError("no native code here")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", broken)
    with pytest.raises(ConfigError, match=r'no native code here.*"diptych\[fasttext\]"'):
        FastText(trained)
    with pytest.raises(ConfigError, match=r"diptych\[fasttext\]"):
        train_fasttext(TEXTS, tmp_path / "none.bin", **SMALL)


@pytest.mark.parametrize("preset", [DRIVENDATA, NAV13N])
def test_presets_are_arguments(preset: dict[str, Any], tmp_path: Path) -> None:
    train_fasttext(TEXTS, tmp_path / "preset.bin", **(preset | {"bucket": 500, "epochs": 1}))
    assert FastText(tmp_path / "preset.bin").dim == preset["dim"]
