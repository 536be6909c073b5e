import json

import numpy as np
import pytest

from diptych.detect.pictures import list_pictures, read_boxes
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
    with pytest.raises(ConfigError, match=r"7\.jpg and .*7\.png have the same key '7'"):
        list_pictures(tmp_path)


def test_a_list_in_another_encoding_is_refused(tmp_path):
    (tmp_path / "list.txt").write_bytes(b"\xfc.png")
    with pytest.raises(FormatError, match=r"list\.txt: not UTF-8 \(byte 0\)"):
        list_pictures(tmp_path / "list.txt")


def test_nothing_to_look_at_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="names no picture"):
        list_pictures(tmp_path)
    with pytest.raises(ConfigError, match=r"neither a folder nor a \.txt file"):
        list_pictures(tmp_path / "absent")


def test_given_boxes_are_found_by_key_or_number(tmp_path):
    path = tmp_path / "boxes.jsonl"
    path.write_text('{"id": 625, "boxes": [[0, 1, 2, 3]], "objects": ["cat"]}\n{"id": "b", "boxes": []}\n')
    given = read_boxes(path)
    np.testing.assert_array_equal(given.of("00625", (10, 10)), [[0, 1, 2, 3]])
    assert given.of("b", (10, 10)).shape == (0, 4)
    with pytest.raises(FormatError, match="has no record with this id"):
        given.of("c", (10, 10))


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ([5, 0, 2, 3], "box 0 is inverted"),
        ([0, 0, 30, 3], "leaves the image"),
        ([0, 0, 1e400, 1], "infinite"),
    ],
)
def test_given_boxes_must_lie_in_their_picture(tmp_path, box, message):
    path = tmp_path / "boxes.jsonl"
    path.write_text(json.dumps({"id": 1, "boxes": [box]}))
    with pytest.raises(FormatError, match=message):
        read_boxes(path).of("1", (10, 10))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "boxes.jsonl:2: .*; expected"),
        ('{"boxes": []}', "the record has no `id`"),
        ('{"id": 2}', r"`boxes` has the shape \(\)"),
        ('{"id": 2, "boxes": [[1, 2, 3]]}', r"`boxes` has the shape \(1, 3\)"),
        ('{"id": 2, "boxes": [[1, 2, 3, "x"]]}', "boxes.jsonl:2: could not convert"),
        ('{"id": 1, "boxes": []}', "id '1' occurs a second time"),
        ("\udcff", r"boxes\.jsonl:2: .*codec can't decode"),
    ],
)
def test_records_that_are_no_boxes_are_named(tmp_path, line, message):
    path = tmp_path / "boxes.jsonl"
    path.write_text('{"id": 1, "boxes": []}\n' + line + "\n", errors="surrogateescape")
    with pytest.raises(FormatError, match=message):
        read_boxes(path)
