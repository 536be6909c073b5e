import pytest

from diptych.detect.listing import list_pictures
from diptych.errors import ConfigError, FormatError


def test_pictures_come_in_the_order_of_their_paths(tmp_path):
    (tmp_path / "b").mkdir()
    for name in ("z.png", "b/a.JPG", "a.tar.webp", "notes.txt", ".hidden.png"):
        (tmp_path / name).touch()
    found = list_pictures(tmp_path)
    assert [picture.key for picture in found] == ["a.tar", "a", "z"]
    assert found[1].path == tmp_path / "b/a.JPG"


def test_a_list_names_pictures_relative_to_itself(tmp_path):
    (tmp_path / "list.txt").write_text("img/2.png\n\n/far/1.jpg\n")
    found = list_pictures(tmp_path / "list.txt")
    assert [str(picture.path) for picture in found] == ["/far/1.jpg", str(tmp_path / "img/2.png")]


def test_two_files_with_one_key_are_refused(tmp_path):
    for name in ("7.png", "7.jpg"):
        (tmp_path / name).touch()
    with pytest.raises(ConfigError, match=r"7\.jpg and .*7\.png .*'7'"):
        list_pictures(tmp_path)


def test_a_list_in_another_encoding_is_refused(tmp_path):
    (tmp_path / "list.txt").write_bytes("\u00e9.png".encode("latin1"))
    with pytest.raises(FormatError, match=r"list\.txt: .*byte 0"):
        list_pictures(tmp_path / "list.txt")


def test_nothing_to_look_at_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"\.jpeg \.jpg"):
        list_pictures(tmp_path)
    with pytest.raises(ConfigError, match=r"\.txt"):
        list_pictures(tmp_path / "absent")
