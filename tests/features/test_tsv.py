import base64
import gzip
import re
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from diptych.errors import ConfigError, FormatError
from diptych.features import ReadLog, read_features, write_tsv
from diptych.features.tsv import LXMERT


def text(array, dtype):
    return base64.b64encode(np.ascontiguousarray(array, dtype).tobytes()).decode()


@pytest.fixture
def one(tmp_path, regions, row, write_rows):
    """Writes a TSV whose second of three rows has some columns changed."""

    def make(**changes) -> Path:
        rows = [row(str(number), regions(3, seed=number)) for number in (1, 2, 3)]
        return write_rows(tmp_path / "one.tsv", [rows[0], rows[1] | changes, rows[2]])

    return make


@pytest.mark.parametrize("end", ["\r\n", "\n"])
def test_rows_of_the_original_layout_are_read(tmp_path, items, same, end, row, write_rows):
    written = items(10)
    path = write_rows(tmp_path / "a.tsv", [row(key, regions) for key, regions in written], end=end)
    path.write_bytes(path.read_bytes() + end.encode())  # a blank last line
    read = list(read_features(path))
    assert [key for key, _ in read] == [key for key, _ in written]
    for (_, got), (_, expected) in zip(read, written, strict=True):
        same(got, expected)


def test_writing_gives_the_bytes_of_the_csv_module(tmp_path, items, row, write_rows):
    written = items(6)
    written += [('he said "hi"', written[1][1]), ("a\tb", written[2][1]), ("żółć", written[3][1])]
    plain = write_rows(tmp_path / "plain.tsv", [row(key, regions) for key, regions in written])
    write_tsv(tmp_path / "ours.tsv", written)
    assert (tmp_path / "ours.tsv").read_bytes() == plain.read_bytes()
    assert [key for key, _ in read_features(plain)] == [key for key, _ in written]


def test_ids_are_taken_from_any_writer(tmp_path, regions, row, write_rows):
    ids = ["00625", 626, "b'00627'", 'b"628"', "COCO_train2014_000000132417", "b'"]
    path = write_rows(tmp_path / "a.tsv", [row(key, regions(2)) for key in ids])
    expected = ["00625", "626", "00627", "628", "COCO_train2014_000000132417", "b'"]
    assert [key for key, _ in read_features(path)] == expected


def test_a_byte_order_mark_is_no_part_of_the_id(tmp_path, regions, row, write_rows):
    path = write_rows(tmp_path / "a.tsv", [row("1", regions(2))])
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert [key for key, _ in read_features(path)] == ["1"]


def test_whole_numbers_may_be_written_as_floats(one, regions):
    path = one(img_h="261.0", img_w="320.0", num_boxes="3.0")
    assert [len(got) for _, got in read_features(path)] == [3, 3, 3]
    assert list(read_features(path))[1][1].size == (320, 261)


def test_missing_classes_and_attributes_are_written_as_zeros(tmp_path, regions):
    bare = replace(regions(2), labels=None, scores=None, attributes=None, attribute_scores=None)
    write_tsv(tmp_path / "a.tsv", [("1", bare)])
    (_, got), *_ = read_features(tmp_path / "a.tsv")
    assert got.labels.tolist() == got.attributes.tolist() == [0, 0]
    assert got.scores.tolist() == got.attribute_scores.tolist() == [0, 0]


def long(array, dtype="<f4", rows=4):
    return text(np.resize(array, (rows, *array.shape[1:])), dtype)


NOT_NUMBERS = np.full((3, 8), np.nan)
BOX = np.array([[10, 10, 20, 20]] * 3)

BAD = [
    (
        {"features": text(np.ones((4, 8)), "<f4")},
        "num_boxes 3.* features 4",
    ),
    ({"num_boxes": 4}, "num_boxes 4, .*boxes 3"),
    ({"objects_id": text(range(2), "<i8")}, "objects_id 2"),
    ({"boxes": text(BOX[:2], "<f4")}, "boxes 2, features 3"),
    ({"features": text(np.ones(20), "<f4")}, "features .* 20 .* 8"),
    ({"boxes": text(np.ones(13), "<f4")}, "boxes .* 13 .* 4"),
    ({"features": "A" * 5}, "features .*base64"),
    ({"features": "this is not base64!!"}, "features .*base64"),
    ({"boxes": base64.b64encode(b"12345").decode()}, "boxes .* 5 bytes.*<f4"),
    ({"features": text(NOT_NUMBERS, "<f4")}, "region 0 .*NaN"),
    ({"features": text(NOT_NUMBERS + np.inf, "<f4")}, "region 0 .*NaN"),
    ({"boxes": text(BOX[:, ::-1], "<f4")}, r"box 0 .*20\.0 20\.0 10\.0 10\.0"),
    ({"boxes": text(BOX + 400, "<f4")}, r"box 0 .*410\.0"),
    ({"img_h": "tall"}, "img_h .*'tall'"),
    ({"img_w": "320.5"}, r"img_w .*320\.5"),
    ({"num_boxes": "nan"}, "num_boxes .*nan"),
    ({"img_h": "0"}, "320 x 0"),
    ({"img_id": "1"}, "second"),
]


@pytest.mark.parametrize(("changes", "message"), BAD)
def test_a_bad_row_is_named_or_skipped(one, changes, message):
    path = one(**changes)
    key = changes.get("img_id", "2")
    with pytest.raises(FormatError, match=f"one.tsv: line 2, image '{key}': .*{message}"):
        list(read_features(path))
    log = ReadLog()
    assert [key for key, _ in read_features(path, on_error="skip", log=log)] == ["1", "3"]
    [fault] = log.skipped
    assert (fault.line, fault.id) == (2, key)
    assert re.search(message, fault.reason)
    assert log.done == path.stat().st_size


def test_rows_without_a_usable_id_are_named_by_line(one):
    with pytest.raises(FormatError, match="line 2: img_id"):
        list(read_features(one(img_id="")))
    path = one(img_id="ABCD")
    path.write_bytes(path.read_bytes().replace(b"ABCD", b"\xff\xfe"))
    with pytest.raises(FormatError, match=r"line 2: img_id .*UTF-8"):
        list(read_features(path))


def test_wrong_columns_are_named(tmp_path, one):
    path = one()
    lines = path.read_bytes().split(b"\r\n")
    lines[1] = b"\t".join(lines[1].split(b"\t")[:6])
    path.write_bytes(b"\r\n".join(lines))
    with pytest.raises(FormatError, match=r"line 2: .* 6 .* 10: img_id img_h"):
        list(read_features(path))
    (tmp_path / "notes.txt").write_text("nothing\nof the kind\n")
    with pytest.raises(FormatError, match=r"notes\.txt: line 1: .* 1 .* 10: img_id"):
        list(read_features(tmp_path / "notes.txt", on_error="skip"))


def test_a_file_cut_in_half_is_named(one):
    path = one()
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(FormatError, match=r"one\.tsv: line 2"):
        list(read_features(path))


@pytest.mark.parametrize("extra", ["first", "second"])
def test_the_known_surplus_row_of_features_is_cut_off_on_request(tmp_path, regions, extra, row, write_rows):
    rows = [row("first", regions(3)), row("second", regions(2))]
    for values, boxes in zip(rows, (3, 2), strict=True):
        if values["img_id"] == extra:
            values["features"] = text(np.ones((boxes + 1, 8)), "<f4")
            values["num_boxes"] = boxes + 1
    rows += [row(str(number), regions(4)) for number in range(3)]
    log = ReadLog()
    path = write_rows(tmp_path / "a.tsv", rows)
    read = dict(read_features(path, on_error="truncate", log=log))
    assert [len(got) for got in read.values()] == [3, 2, 4, 4, 4]
    assert read[extra].features.shape == (len(read[extra]), 8)
    assert [fault.id for fault in log.truncated] == [extra]
    assert f"cut to {len(read[extra])} boxes" in log.truncated[0].reason
    assert log.skipped == []


def test_truncate_does_not_mend_what_is_missing(one):
    with pytest.raises(FormatError, match=r"line 2, image '2': .*features 2"):
        list(read_features(one(features=text(np.ones((2, 8)), "<f4")), on_error="truncate"))


def test_boxes_are_clipped_on_request(one):
    path = one(boxes=text([[-9, -9, 20, 20], [300, 200, 400, 400], [500, 500, 600, 600]], "<f4"))
    got = dict(read_features(path, boxes="clip"))["2"]
    width, height = got.size
    assert got.boxes.tolist() == [[0, 0, 20, 20], [300, 200, width, height], [width, height] * 2]


def test_the_width_of_features_is_what_most_rows_agree_on(tmp_path, regions, row, write_rows):
    rows = [row(str(number), regions(number + 2)) for number in range(4)]
    rows[0]["features"] = text(np.ones((2, 12)), "<f4")  # 3 x 8, which looks like 2 x 12
    path = write_rows(tmp_path / "a.tsv", rows)
    with pytest.raises(FormatError, match=r"line 1, image '0': .*features 3"):
        list(read_features(path))
    with pytest.raises(FormatError, match=r"line 2, image '1': .*features 2"):
        list(read_features(path, feature_dim=12))


def test_images_without_boxes_need_a_width(tmp_path, regions, row, write_rows):
    path = write_rows(tmp_path / "a.tsv", [row("1", regions(0))])
    with pytest.raises(FormatError, match=r"a\.tsv: .* 1 .*feature_dim"):
        list(read_features(path))
    assert [got.features.shape for _, got in read_features(path, feature_dim=8)] == [(0, 8)]


def test_missing_and_empty_files_are_named(tmp_path):
    with pytest.raises(FormatError, match="No such file"):
        list(read_features(tmp_path / "a.tsv"))
    (tmp_path / "a.tsv").touch()
    with pytest.raises(FormatError, match=r"a\.tsv: .*10 columns: img_id"):
        list(read_features(tmp_path / "a.tsv"))


def test_a_line_without_end_is_not_read_whole(tmp_path, monkeypatch):
    monkeypatch.setattr("diptych.features.tsv.LONGEST_LINE", 1 << 20)
    (tmp_path / "a.bin").write_bytes(bytes(3 << 20))
    with pytest.raises(FormatError, match=r"line 1: .*1 MB"):
        list(read_features(tmp_path / "a.bin", on_error="skip"))


def test_ids_that_would_break_lines_are_not_written(tmp_path, regions):
    with pytest.raises(FormatError, match=re.escape(repr("a\nb"))):
        write_tsv(tmp_path / "a.tsv", [("a\nb", regions(1))])
    assert list(tmp_path.iterdir()) == []


def test_existing_files_are_kept(tmp_path, items):
    (tmp_path / "a.tsv").write_text("mine")
    with pytest.raises(ConfigError, match=r"a\.tsv"):
        write_tsv(tmp_path / "a.tsv", items(2))
    with pytest.raises(ConfigError, match=r"a\.tsv"):
        write_tsv(tmp_path / "a.tsv", items(2), overwrite=True)
    assert (tmp_path / "a.tsv").read_text() == "mine"
    (tmp_path / "a.tsv").unlink()
    write_tsv(tmp_path / "a.tsv", items(1))
    write_tsv(tmp_path / "a.tsv", items(2), overwrite=True)
    assert len(list(read_features(tmp_path / "a.tsv", feature_dim=8))) == 2


@pytest.mark.parametrize("setting", [{"on_error": "skp"}, {"boxes": "cut"}])
def test_an_unknown_setting_is_named(one, setting):
    name = next(iter(setting))
    with pytest.raises(Exception, match=name):  # the shape-checking hook may be the first to notice
        list(read_features(one(), **setting))


def packings(source, folder):
    """The same file in all the ways in which people hand it on."""
    (folder / "some").mkdir()
    lines = source.read_bytes().splitlines(keepends=True)
    (folder / "some" / "1.tsv").write_bytes(b"".join(lines[:4]))
    (folder / "some" / "2.tsv").write_bytes(b"".join(lines[4:]))
    (folder / "a.tsv.gz").write_bytes(gzip.compress(source.read_bytes()))
    with zipfile.ZipFile(folder / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(source, "train_obj36.tsv")
    cells = [line.strip().split(b"\t") for line in lines]
    (folder / "quoted").write_bytes(
        b"".join(b"\t".join(b'"%s"' % one for one in row) + b"\n" for row in cells)
    )
    return {"folder": "some", "gzip": "a.tsv.gz", "zip": "a.zip", "quoted": "quoted"}


@pytest.mark.parametrize("form", ["tsv", "caffe-tsv"])
@pytest.mark.parametrize("packing", ["folder", "gzip", "zip", "quoted"])
def test_a_packed_tsv_is_read_as_it_is(original, tmp_path, form, packing, same):
    source = original(form)
    place = tmp_path / packings(source, tmp_path)[packing]
    for (key, got), (name, one) in zip(read_features(place), read_features(source), strict=True):
        assert key == name
        same(got, one)


def test_a_header_is_passed_over(original, tmp_path):
    source = original("tsv")
    (tmp_path / "a.tsv").write_bytes(LXMERT.replace(" ", "\t").encode() + b"\n" + source.read_bytes())
    assert len(list(read_features(tmp_path / "a.tsv"))) == 7


@pytest.mark.parametrize("how", ["cut", "damaged"])
def test_of_a_broken_gzip_the_beginning_is_kept_on_request(original, tmp_path, items, how):
    data = bytearray(gzip.compress(original("tsv", items(400, boxes=3)).read_bytes()))
    place = len(data) * 2 // 3
    data = data[:place] if how == "cut" else data[:place] + bytes(40) + data[place + 40 :]
    (tmp_path / "a.tsv.gz").write_bytes(data)
    with pytest.raises(FormatError, match=r"a\.tsv\.gz: line"):
        list(read_features(tmp_path / "a.tsv.gz"))
    log = ReadLog()
    assert len(list(read_features(tmp_path / "a.tsv.gz", on_error="skip", log=log))) > 100
    assert log.skipped


def test_a_fault_in_a_folder_names_the_file(original, tmp_path, regions):
    folder = tmp_path / packings(original("tsv"), tmp_path)["folder"]
    (folder / "2.tsv").write_bytes(b"x\n" + (folder / "2.tsv").read_bytes())
    log = ReadLog()
    assert len(list(read_features(folder, on_error="skip", log=log))) == 7
    assert str(log.skipped[0]).startswith("2.tsv, line 1: ")


def test_two_rows_on_one_line_are_told_with_their_ids(original, tmp_path):
    lines = original("caffe-tsv").read_bytes().splitlines()
    glued = [*lines[:2], lines[2][:-9] + lines[3], *lines[4:]]
    (tmp_path / "a.tsv").write_bytes(b"\n".join(glued))
    log = ReadLog()
    assert len(list(read_features(tmp_path / "a.tsv", on_error="skip", log=log))) == 5
    columns = "image_id image_w image_h num_boxes boxes features"
    assert re.search(rf" 11 .* 6: {columns}\. .*'00002'.*00003'", str(log.skipped[0]))


@pytest.mark.parametrize("form", ["gzip", "zip"])
def test_a_bomb_is_not_unpacked(original, tmp_path, monkeypatch, form):
    monkeypatch.setattr("diptych.features.tsv.LONGEST_LINE", 1 << 16)
    monkeypatch.setattr("diptych.features.tsv.PACKED", 20)  # as a bomb of 1/10 of the size, for speed
    data = original("tsv").read_bytes() + b"\n" * (1 << 19)
    if form == "gzip":
        (tmp_path / "a").write_bytes(gzip.compress(data))
    else:
        with zipfile.ZipFile(tmp_path / "a", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("a.tsv", data)
    with pytest.raises(FormatError, match=r"[\d,]+ bytes"):
        list(read_features(tmp_path / "a"))
