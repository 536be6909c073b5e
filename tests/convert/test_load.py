import os
import pickle
import zipfile

import pytest
import torch
from safetensors.torch import save_file

from diptych.convert.load import read_weights
from diptych.errors import FormatError

WEIGHTS = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.ones(2)}


def same(got):
    return got.keys() == WEIGHTS.keys() and all(torch.equal(got[name], one) for name, one in WEIGHTS.items())


@pytest.mark.parametrize("name", ["w.pt", "w.pth", "w.bin", "w.ckpt"])
def test_torch_files(tmp_path, name):
    torch.save(WEIGHTS, tmp_path / name)
    assert same(read_weights(tmp_path / name))


def test_safetensors(tmp_path):
    save_file(WEIGHTS, tmp_path / "w.safetensors")
    assert same(read_weights(tmp_path / "w.safetensors"))


def test_files_of_old_torch(tmp_path):
    torch.save(WEIGHTS, tmp_path / "w.pt", _use_new_zipfile_serialization=False)
    assert same(read_weights(tmp_path / "w.pt"))


@pytest.mark.parametrize("wrapper", ["state_dict", "model", "model_state_dict"])
def test_wrappers_come_off(tmp_path, wrapper):
    torch.save({wrapper: WEIGHTS, "epoch": 3}, tmp_path / "w.pt")
    assert same(read_weights(tmp_path / "w.pt"))


def test_parallel_and_averaged_prefixes_come_off(tmp_path):
    averaged = {f"module.{name}": one for name, one in WEIGHTS.items()}
    torch.save(averaged | {"n_averaged": torch.tensor(4)}, tmp_path / "w.pt")
    assert same(read_weights(tmp_path / "w.pt"))


def test_gamma_and_beta_become_weight_and_bias(tmp_path):
    torch.save(
        {"norm.gamma": torch.ones(1), "norm.beta": torch.zeros(1), "beta.x": torch.ones(1)}, tmp_path / "w.pt"
    )
    assert list(read_weights(tmp_path / "w.pt")) == ["norm.weight", "norm.bias", "beta.x"]


class Bomb:
    """What an attacker would put into a weight file."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


def test_a_pickle_bomb_is_refused_and_never_goes_off(tmp_path):
    fuse = tmp_path / "exploded"
    torch.save({"a": WEIGHTS["a.bias"], "b": Bomb(fuse)}, tmp_path / "zip.pt")
    torch.save({"b": Bomb(fuse)}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    (tmp_path / "raw.bin").write_bytes(pickle.dumps(Bomb(fuse)))
    for name in ("zip.pt", "old.pt", "raw.bin"):
        with pytest.raises(FormatError, match=f"{name}: .*mkdir"):
            read_weights(tmp_path / name)
    assert not fuse.exists()
    pickle.loads((tmp_path / "raw.bin").read_bytes())
    assert fuse.exists(), "the bomb of this test is a dud"


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.95])
def test_truncated_files_say_so(tmp_path, suffix, share):
    path = tmp_path / f"w{suffix}"
    weights = {"a": torch.randn(1000)}
    torch.save(weights, path) if suffix == ".pt" else save_file(weights, path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(FormatError, match=f"w{suffix}: "):
        read_weights(path)


@pytest.mark.parametrize("name", ["w.pt", "w.safetensors"])
@pytest.mark.parametrize(
    "content", [b"<html>404 Not RecognizedCheckpoint</html>", b"\x80\x04garbage", b"PK\x03\x04" + b"\0" * 99]
)
def test_other_files_are_refused(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(FormatError, match=name):
        read_weights(tmp_path / name)


def test_a_zip_archive_of_something_else_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "w.pt", "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(FormatError, match=r"w\.pt"):
        read_weights(tmp_path / "w.pt")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([torch.ones(1)], r"w\.pt.* list\b"),
        ({}, r"w\.pt"),
        ({"a": 3}, r"'a' .*\bint\b"),
        ({"optimizer": {"lr": 1.0}}, r"'optimizer' .*\bdict\b"),
        ({3: torch.ones(1)}, r"\b3 .*tensor"),
    ],
)
def test_files_of_something_else_name_it(tmp_path, content, message):
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(FormatError, match=message):
        read_weights(tmp_path / "w.pt")


def test_a_missing_file_says_so(tmp_path):
    with pytest.raises(FormatError, match=r"nowhere\.pt: "):
        read_weights(tmp_path / "nowhere.pt")
