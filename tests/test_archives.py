import errno
import io
import struct
import zipfile

import numpy as np
import pytest

from diptych.archives import guarded, open_archive, read_array, read_npz, require_plain
from diptych.errors import FormatError

ARRAYS = {
    "a": np.arange(6, dtype=np.float32).reshape(2, 3),
    "fortran": np.asfortranarray(np.arange(6.0).reshape(3, 2)),
    "big": np.arange(3, dtype=">i4"),
    "flags": np.array([True, False]),
    "point": np.array(3.0),
    "nothing": np.zeros((0, 4)),
}


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_arrays_come_back(tmp_path, save):
    save(tmp_path / "a.npz", **ARRAYS)
    got = read_npz(tmp_path / "a.npz")
    assert list(got) == list(ARRAYS)
    for name, expected in ARRAYS.items():
        np.testing.assert_array_equal(got[name], expected, name)
        assert got[name].dtype == expected.dtype


def head(description, body=b"", version=1):
    length = struct.pack("<H" if version == 1 else "<I", len(description))
    return b"\x93NUMPY" + bytes([version, 0]) + length + description.encode("latin1") + body


def shaped(shape, kind="<f4"):
    return f"{{'descr': {kind!r}, 'fortran_order': False, 'shape': {shape}, }}\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "b''"),
        (b"\x93NUMPY\x09\x00\x01\x00{}", r"NUMPY\\t"),
        (head("{")[:9], r" 1 .* 9\b"),
        (b"\x93NUMPY\x03\x00\xf0\xff\xff\xff{", " 4,294,967,280 "),
        (head("(" * 5000 + ")" * 5000), "its head: "),
        (head("{'descr': '<f4', 'fortran_order': False, 'shape': (__import__('os').getpid(),)}"), "its head"),
        (head(shaped("(4,)", "<f4\0")), "its head"),
        (head(shaped("(4,)", "<m8[99999999999999999999s]"), bytes(32)), "its head"),
        (head(shaped("(2500000000,)")), "^0 .* 10,000,000,000 "),
        (head(shaped("(4294967296, 4294967296)")), "^0 .* 73,786,976,294,838,206,464 "),
        (head(shaped("(-5, 4)"), bytes(80)), r"\(-5, 4\)"),
        (head(shaped("(0, 9223372036854775807)")), r"\(0, 9223372036854775807\)"),
        (head(shaped("()", "|O"), b"\x80\x02N."), "'object'"),
        (head(shaped("(5,)", "|V0")), r"'\|V0'"),
        (head(shaped("(2,)", "<U4"), bytes(32)), "'<U4'"),
        (head(shaped("(4,)"), bytes(15)), "^15 .* 16 "),
        (head(shaped("(4,)"), bytes(17), version=2), "^17 .* 16 "),
    ],
)
def test_heads_that_lie_are_refused_before_anything_is_allocated(content, message):
    with pytest.raises(FormatError, match=message):
        read_array(io.BytesIO(content))


def packed(path, method=zipfile.ZIP_STORED, content=b"x"):
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("a.npy", content)
    return bytearray(path.read_bytes())


def changed(at, value):
    def change(path):
        data = packed(path)
        central = data.find(b"PK\x01\x02")
        data[central + at] = value
        return data

    return change


def twice(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.npy", b"x")
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("a.npy", b"y")
    return path.read_bytes()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: packed(path)[:-30], "ZIP"),
        (lambda path: b"", "ZIP"),
        (changed(8, 1), "'a.npy' .*encrypted"),
        (changed(6, 99), "ZIP"),
        (changed(10, 99), "method 99;"),
        (lambda path: packed(path, zipfile.ZIP_LZMA), "method 14;"),
        (lambda path: packed(path, zipfile.ZIP_BZIP2), "method 12;"),
        (lambda path: packed(path, zipfile.ZIP_DEFLATED, bytes(70 << 20)), " 73,400,320, "),
        (changed(24, 200), "'a.npy': "),
        (twice, "same name"),
    ],
)
def test_archives_that_lie_are_refused(tmp_path, make, message):
    path = tmp_path / "a.npz"
    path.write_bytes(make(path))
    with pytest.raises(FormatError, match=rf"a\.npz: .*{message}"):
        read_npz(path)


def test_a_wrong_check_sum_names_the_member(tmp_path):
    np.savez(tmp_path / "a.npz", w=np.ones(99))
    data = bytearray((tmp_path / "a.npz").read_bytes())
    data[400] ^= 1
    (tmp_path / "a.npz").write_bytes(data)
    with pytest.raises(FormatError, match=r"a\.npz: 'w\.npy': "):
        read_npz(tmp_path / "a.npz")


def test_errors_inside_keep_their_own_words(tmp_path):
    packed(tmp_path / "a.zip")
    with pytest.raises(FormatError, match=r"^mine$"), open_archive(tmp_path / "a.zip"):
        raise FormatError("mine")


def test_a_member_is_looked_at_before_it_is_unpacked(tmp_path):
    packed(tmp_path / "a.zip", zipfile.ZIP_DEFLATED, b"x" * 1000)
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        [member] = archive.infolist()
    require_plain(member, 1000)
    with pytest.raises(FormatError, match=r"'a\.npy' .* 1,000 .* 999\."):
        require_plain(member, 999)


@pytest.mark.parametrize(
    "error", [RuntimeError("x"), ValueError("x"), EOFError(), KeyError("x"), MemoryError(), RecursionError()]
)
def test_whatever_damage_raises_becomes_one_error(error):
    with pytest.raises(FormatError, match=r"^f: .*a whole ZIP archive"), guarded("f", "a whole ZIP archive"):
        raise error


@pytest.mark.parametrize(
    ("named", "text", "expected"), [(False, "x", "x"), (True, "x", "f: x"), (True, "f: x", "f: x")]
)
def test_a_file_is_named_once_where_it_is_asked_for(named, text, expected):
    with pytest.raises(FormatError) as found, guarded("f", "whole", named=named):
        raise FormatError(text)
    assert str(found.value) == expected


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_is_no_damage(code):
    with pytest.raises(OSError, match="full"), guarded("f", "whole"):
        raise OSError(code, "full")
