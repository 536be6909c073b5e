import zipfile

import pytest

from diptych.errors import FormatError
from diptych.features.archive import guarded, open_zip, require_plain


def packed(path, *, method=zipfile.ZIP_STORED, data=b"x" * 1000):
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("a", data)
    return path


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_rare_methods_are_refused(tmp_path, method):
    [member] = open_zip(packed(tmp_path / "a.zip", method=method)).infolist()
    with pytest.raises(FormatError, match="expected stored or deflated"):
        require_plain(member, 10_000)


def test_sizes_are_looked_at_before_unpacking(tmp_path):
    [member] = open_zip(packed(tmp_path / "a.zip", method=zipfile.ZIP_DEFLATED)).infolist()
    require_plain(member, 1000)
    with pytest.raises(FormatError, match="unpacks to 1,000 bytes; expected at most 999"):
        require_plain(member, 999)


def test_encrypted_members_are_refused(tmp_path):
    [member] = open_zip(packed(tmp_path / "a.zip")).infolist()
    member.flag_bits |= 1
    with pytest.raises(FormatError, match="encrypted"):
        require_plain(member, 1000)


@pytest.mark.parametrize(
    ("place", "value"), [(6, 99), (9, 8)]
)  # version needed; name in UTF-8, which it is not
def test_lists_of_files_that_cannot_be_read_are_one_error(tmp_path, place, value):
    data = bytearray(packed(tmp_path / "a.zip").read_bytes())
    central = data.find(b"PK\x01\x02")
    data[central + place] = value
    data[central + 46] = 0xFF
    (tmp_path / "a.zip").write_bytes(data)
    with pytest.raises(FormatError, match=r"a\.zip is not a whole ZIP"), guarded("a.zip", "ZIP"):
        open_zip(tmp_path / "a.zip").open("a")


@pytest.mark.parametrize(
    "error", [RuntimeError("x"), ValueError("x"), EOFError(), KeyError("x"), MemoryError()]
)
def test_all_errors_become_one(error):
    with pytest.raises(FormatError, match="f is not a whole ZIP"), guarded("f", "ZIP"):
        raise error
