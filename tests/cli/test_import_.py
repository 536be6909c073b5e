from pathlib import Path

import pytest

from diptych.cli import main
from diptych.features.formats import WRITERS


def change(tsv: Path, out: Path, column: int, value: bytes) -> Path:
    lines = tsv.read_bytes().splitlines()
    cells = lines[2].split(b"\t")
    cells[column] = value
    out.write_bytes(b"\r\n".join([*lines[:2], b"\t".join(cells), *lines[3:]]) + b"\r\n")
    return out


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        (9, b"@@@", "features "),
        (7, b"99", "num_boxes 99"),
        (1, b"tall", "img_h is 'tall'"),
        (2, b"10", "leaves the image"),
        (8, b"x\ty", "11 tab-separated columns"),
    ],
)
def test_a_bad_row_is_one_line_or_left_out(memes, tmp_path, refused, capsys, column, value, message) -> None:
    tsv = change(memes / "features.tsv", tmp_path / "bad.tsv", column, value)
    line = refused(["import", tsv, tmp_path / "store"])
    assert "bad.tsv: line 3" in line
    assert message in line
    assert "on_error=skip" in line
    assert [path.name for path in tmp_path.iterdir()] == ["bad.tsv"]
    assert main(["import", str(tsv), str(tmp_path / "store"), "on_error=skip"]) == 0
    assert "1 image(s) skipped" in capsys.readouterr().out


def test_sources_and_places_that_cannot_be(memes, tmp_path, refused) -> None:
    (tmp_path / "empty.tsv").touch()
    tsv, names = memes / "features.tsv", next((memes / "img").iterdir())
    assert "empty.tsv: " in refused(["import", tmp_path / "empty.tsv", tmp_path / "s"])
    assert str(memes / "img") in refused(["import", memes / "img", tmp_path / "s"])
    assert str(names) in refused(["import", tsv, tmp_path / "s", "--classes", names])
    assert str(tmp_path / "empty.tsv") in refused(["import", tsv, tmp_path / "empty.tsv"])
    assert f"{tmp_path / 'empty.tsv'} is a file" in refused(["import", tsv, tmp_path / "empty.tsv" / "s"])
    assert [path.name for path in tmp_path.iterdir()] == ["empty.tsv"]


def test_an_export_never_lands_on_a_folder_or_below_a_file(memes, tmp_path, refused) -> None:
    store, file = memes / "features", tmp_path / "file"
    file.write_text("mine")
    assert str(tmp_path) in refused(["export", store, tmp_path, "--overwrite"])
    assert f"{file} is a file" in refused(["export", store, file / "x.tsv"])
    assert file.read_text() == "mine"


def test_a_full_disk_leaves_nothing(memes, tmp_path, refused, full_disk) -> None:
    with full_disk(5000):
        assert str(tmp_path / "s") in refused(["import", memes / "features.tsv", tmp_path / "s"])
        assert "no space left" in refused(["export", memes / "features", tmp_path / "x.tsv"])
        assert "no space left" in refused(["fasttext", memes, tmp_path / "v.bin", "--dim", "4"])

        assert "world" in refused(["world", tmp_path / "world", "--size", "40"])
    assert not any(tmp_path.iterdir())


def test_any_format_goes_out_and_comes_in(memes, tmp_path, capsys) -> None:
    for name in ("mmf-lmdb", "volta-hdf5", "uniter-npz"):
        assert main(["export", str(memes / "features"), str(tmp_path / name), f"format={name}"]) == 0
        assert f"wrote {tmp_path / name}: " in capsys.readouterr().out
        assert main(["import", str(tmp_path / name), str(tmp_path / f"{name}-store")]) == 0
        assert "regions per image" in capsys.readouterr().out


def test_a_format_that_is_not_known_is_one_line(memes, tmp_path, refused) -> None:
    line = refused(["export", memes / "features", tmp_path / "a", "format=lmdb"])
    assert all(name in line for name in ("'lmdb'", *WRITERS))
