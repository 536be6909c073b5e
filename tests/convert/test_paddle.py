import re
import struct

import pytest
import torch

from diptych.convert.paddle import read_paddle, read_variable
from diptych.errors import FormatError


def variable(description, numbers, *, levels=(), versions=(0, 0)):
    """The bytes of a variable, put together by hand."""
    head = struct.pack("<IQ", versions[0], len(levels))
    head += b"".join(struct.pack("<Q", 8 * len(one)) + struct.pack(f"<{len(one)}Q", *one) for one in levels)
    return head + struct.pack("<Ii", versions[1], len(description)) + description + numbers


FLOATS = struct.pack("<6f", *range(6))
TWO_BY_THREE = bytes([0x08, 5, 0x10, 2, 0x10, 3])
GOOD = variable(TWO_BY_THREE, FLOATS)


@pytest.fixture
def read(tmp_path):
    def write_and_read(content):
        (tmp_path / "encoder.w_0").write_bytes(content)
        return read_variable(tmp_path / "encoder.w_0")

    return write_and_read


@pytest.mark.parametrize(
    "content",
    [
        GOOD,
        variable(TWO_BY_THREE, FLOATS, levels=[(0, 1, 2), (0, 2)]),
        variable(bytes([0x08, 5, 0x12, 2, 2, 3]), FLOATS),
    ],
)
def test_a_variable_is_read(read, content):
    assert torch.equal(read(content), torch.arange(6.0).reshape(2, 3))


def test_dimensions_of_two_bytes_scalars_and_empty_ones(read):
    many = variable(bytes([0x08, 20, 0x10, 0xAC, 0x02]), bytes(300))
    assert read(many).shape == (300,)
    scalar = read(variable(bytes([0x08, 3]), struct.pack("<q", -7)))
    assert (scalar.shape, scalar.item()) == ((), -7)
    assert read(variable(bytes([0x08, 5, 0x10, 0]), b"")).shape == (0,)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", ""),
        (GOOD[:10], ""),
        (GOOD[:18], ""),
        (GOOD[:-3], r"\b21 bytes.*\b24 .*torch\.float32.*\(2, 3\)"),
        (GOOD + b"x", r"\b25 bytes.*\b24 "),
        (variable(TWO_BY_THREE, FLOATS, versions=(1, 0)), r"\b1 and 0\b"),
        (variable(bytes([0x08, 99, 0x10, 6]), FLOATS), "99"),
        (variable(bytes([0x10, 6]), FLOATS), "type"),
        (variable(bytes([0x1A, 6]), FLOATS), r"\b26\b"),
        (variable(bytes([0x08, 5, 0x10, 0x80]), FLOATS), ""),
        (b"a text, or anything else" * 9, ""),
    ],
)
def test_what_is_no_variable_is_an_error_with_its_path(read, content, message):
    with pytest.raises(FormatError, match=rf"encoder\.w_0: .*{message}"):
        read(content)


def test_a_folder_gives_its_files_by_name(tmp_path):
    with pytest.raises(FormatError, match=re.escape(str(tmp_path))):
        read_paddle(tmp_path)
    (tmp_path / "@LR_DECAY_COUNTER@").write_bytes(GOOD)
    (tmp_path / "image_loc.w_0").write_bytes(GOOD)
    (tmp_path / ".DS_Store").write_bytes(b"?")
    assert list(read_paddle(tmp_path)) == ["@LR_DECAY_COUNTER@", "image_loc.w_0"]
    with pytest.raises(FormatError, match=r"image_loc\.w_0"):
        read_paddle(tmp_path / "image_loc.w_0")
