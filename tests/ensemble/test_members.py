"""Which file is whose, and what is missing."""

from pathlib import Path

import pytest

from diptych.ensemble import read_members, read_predictions
from diptych.ensemble.members import name_of
from diptych.ensemble.vilio import kept_files
from diptych.errors import ConfigError, FormatError


def write(path: Path, *, ids: tuple[int, ...] = (1, 2), label: bool = True) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    header, tail = ("id,proba,label", ",1") if label else ("id,proba", "")
    path.write_text("\n".join([header, *(f"{key},0.{key}{tail}" for key in ids)]) + "\n")
    return path


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("O36_dev_seen.csv", ("O36", "dev_seen")),
        ("dev_seenELVCR72.csv", ("ELVCR72", "dev_seen")),
        ("test_unseenEL36.csv", ("EL36", "test_unseen")),
        ("EL365072_test_seen_SA.csv", ("EL365072_SA", "test_seen")),
        ("runs/a/predictions/dev_unseen.npz", ("runs/a", "dev_unseen")),
        ("runs/a/val.csv", ("runs/a", "val")),
        ("trained_bert_test.csv", ("trained_bert", "test")),
        ("dev_seenlower.csv", ("lower", "dev_seen")),
    ],
)
def test_names_tell_member_and_split(path: str, expected: tuple[str, str]) -> None:
    assert name_of(Path(path)) == expected


def test_files_and_folders_become_a_table(tmp_path: Path) -> None:
    for split in ("dev_seen", "test_seen"):
        write(tmp_path / f"b_{split}.csv", label=split == "dev_seen")
        write(tmp_path / f"runs/a/predictions/{split}.csv")
    write(tmp_path / "FIN_dev_seen.csv", ids=(7,))
    read_predictions(tmp_path / "b_dev_seen.csv").save(tmp_path / "b_dev_seen.npz")  # goes before the .csv
    members = read_members([tmp_path, tmp_path / "runs/a/predictions"])
    assert members.names == (str(tmp_path / "runs/a"), "b")
    assert {split: [len(one) for one in found] for split, found in members.predictions.items()} == {
        "dev_seen": [2, 2],
        "test_seen": [2, 2],
    }
    assert members.predictions["dev_seen"][1].meta["path"].endswith("b_dev_seen.npz")


def test_gaps_stop_or_drop_a_member_and_are_named(tmp_path: Path) -> None:
    files = [write(tmp_path / f"{name}.csv") for name in ("a_dev", "a_test", "b_dev", "c_dev", "c_test")]
    with pytest.raises(FormatError, match="b lacks test"):
        read_members(files)
    members = read_members(files, incomplete="drop")
    assert (members.names, members.dropped) == (("a", "c"), {"b": ("test",)})
    with pytest.raises(FormatError, match="a lacks test; b lacks dev"):
        read_members([tmp_path / "a_dev.csv", write(tmp_path / "b_test.csv")], incomplete="drop")


def test_what_cannot_be_sorted_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"nothing\.csv: "):
        read_members([tmp_path / "nothing.csv"])
    with pytest.raises(FormatError, match=r"a_dev\.csv and .*a_dev\.csv .* dev "):
        read_members([write(tmp_path / "a_dev.csv"), write(tmp_path / "other" / "a_dev.csv")])
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=str(tmp_path / "empty")):
        read_members([tmp_path / "empty"])
    with pytest.raises(ConfigError):
        read_members([])
    with pytest.raises(FormatError, match=r"b_dev\.csv lacks 1 \(2\)"):
        read_members([write(tmp_path / "a_dev.csv"), write(tmp_path / "b_dev.csv", ids=(1,))])
    with pytest.raises(FormatError, match=r"b_dev\.csv:4: .*'1'"):
        read_members([write(tmp_path / "b_dev.csv", ids=(1, 2, 1))])


@pytest.mark.parametrize("pattern", ["dev_seen{}.csv", "test_seen{}.csv", "test_unseen{}.csv"])
def test_vilio_hears_three_of_five_members_of_ernievil(pattern: str) -> None:
    names = ("EL36", "EL72", "ELV50", "ELVCR36", "ELVCR72")
    heard = kept_files([Path(pattern.format(name)) for name in names])
    assert [name_of(path)[0] for path in heard] == ["EL72", "ELV50", "ELVCR72"]
    theirs = [Path(f"O{boxes}_dev_seen.csv") for boxes in (36, 50)]
    assert kept_files(theirs) == theirs
