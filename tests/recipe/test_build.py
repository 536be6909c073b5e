import struct

import pytest
import torch

from diptych.convert import restore
from diptych.convert.ernievil import ERNIEVIL
from diptych.convert.vilbert import VILBERT
from diptych.errors import ConfigError
from diptych.models import ernievil_tiny, text_bert_tiny, vilbert_tiny
from diptych.recipe.build import load_weights


def load(model, path):
    load_weights(model, {"model": str(path), "text": None, "image": None}, None)


def equal(one, other):
    return all(torch.equal(weight, other.state_dict()[name]) for name, weight in one.state_dict().items())


def test_the_class_of_the_model_finds_the_reader(tmp_path):
    model, other = vilbert_tiny(), vilbert_tiny()
    torch.save(restore(model.state_dict(), VILBERT), tmp_path / "pytorch_model_11.bin")
    load(other, tmp_path / "pytorch_model_11.bin")
    assert equal(model, other)


def test_a_folder_of_paddle_parameters_is_no_bundle(tmp_path):
    model, other = ernievil_tiny(vocab_size=100), ernievil_tiny(vocab_size=100)
    for name, tensor in restore(model.state_dict(), ERNIEVIL).items():
        shape = b"".join(
            bytes([0x10, *([size] if size < 128 else [size & 0x7F | 0x80, size >> 7])])
            for size in tensor.shape
        )
        head = struct.pack("<IQIi", 0, 0, 0, 2 + len(shape)) + bytes([0x08, 5]) + shape
        (tmp_path / name).write_bytes(head + tensor.contiguous().numpy().tobytes())
    load(other, tmp_path)
    assert equal(model, other)


def test_a_model_that_nobody_published_as_a_whole_is_refused(tmp_path):
    (tmp_path / "model.pt").touch()
    with pytest.raises(ConfigError, match=r"\bConcat\b"):
        load(text_bert_tiny(), tmp_path / "model.pt")
