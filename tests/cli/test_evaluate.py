import json
from pathlib import Path

import pytest

from diptych.cli import main


@pytest.fixture
def scores(pixel_run: Path, tmp_path: Path) -> Path:
    words = ["--splits", "dev_seen,test_seen", "--out", str(tmp_path / "scores")]
    assert main(["predict", str(pixel_run), *words]) == 0
    return tmp_path / "scores"


def test_a_split_without_labels_says_how_to_give_them(spoiled, scores, refused) -> None:
    (spoiled / "test_seen.answers.jsonl").unlink()
    line = refused(["evaluate", scores / "test_seen.csv", "--root", spoiled, "--split", "test_seen"])
    assert "8 memes" in line
    assert "--answers FILE" in line


def test_other_ids_unknown_splits_and_no_samples_are_refused(memes, scores, refused) -> None:
    words = ["evaluate", scores / "dev_seen.csv", "--root", memes, "--split"]
    assert "48 example(s)" in refused([*words, "train"])
    assert "Did you mean 'dev_seen'?" in refused([*words, "dev_sen"])
    assert "--samples is 0" in refused([*words, "dev_seen", "--samples", "0"])


def test_the_positive_class_and_the_form_can_be_named(memes, scores, refused, capsys) -> None:
    words = ["evaluate", str(scores / "dev_seen.csv"), "--root", str(memes), "--split", "dev_seen", "--json"]
    found = {}
    for positive in (None, "benign", "hateful"):
        assert main(words if positive is None else [*words, "--positive", positive]) == 0
        found[positive] = next(iter(json.loads(capsys.readouterr().out)["results"].values()))
    assert found[None] == found["hateful"]
    assert found["benign"]["positives"] == 8 - found["hateful"]["positives"]
    assert "Did you mean 'binary'?" in refused([*words, "--form", "binry"])
    assert main([*words, "--form", "classes"]) == 0
    result = next(iter(json.loads(capsys.readouterr().out)["results"].values()))
    assert list(result["metrics"]) == ["accuracy", "macro_f1", "macro_auroc"]
    assert list(result["by_class"]) == ["benign", "hateful"]
    assert main([*words[:-1], "--form", "classes"]) == 0
    assert "per class" in capsys.readouterr().out


@pytest.mark.slow
def test_a_drawing_is_kept_unless_asked_and_whole_or_absent(
    memes, scores, tmp_path, refused, full_disk
) -> None:
    words = ["evaluate", scores / "dev_seen.csv", "--root", memes, "--split", "dev_seen", "--curves"]
    with full_disk(5000):
        assert "no space left" in refused([*words, tmp_path / "curves.png"])
    assert not list(tmp_path.glob("*curves*"))
    (tmp_path / "curves.png").write_text("mine")
    assert str(tmp_path / "curves.png") in refused([*words, tmp_path / "curves.png"])
    assert (tmp_path / "curves.png").read_text() == "mine"
    assert "PNG" in refused([*words, tmp_path / "curves.png", "--overwrite"])
    (tmp_path / "curves.png").unlink()
    for more in ([], ["--overwrite"]):
        assert main([*map(str, words), str(tmp_path / "curves.png"), *more]) == 0
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_members_of_an_ensemble_must_share_their_ids(scores, tmp_path, refused, full_disk) -> None:
    files = [scores / "dev_seen.csv", scores / "test_seen.npz"]
    line = refused(["ensemble", *files, "--out", tmp_path / "e.csv"])
    assert "16 examples: dev_seen.csv lacks 8" in line
    with full_disk(20):
        assert "no space left" in refused(["ensemble", files[0], "--out", tmp_path / "e.csv"])
    assert str(files[0]) in refused(["ensemble", files[0], "--out", files[0] / "e.csv"])
    assert not list(tmp_path.glob("*e.csv*"))


def test_cases_are_listed_and_settings_reach_the_data_set(tmp_path, refused, capsys) -> None:
    (tmp_path / "human2018.fr").write_text(
        "sea | mer | at the sea | 1.jpg | yes\nhat | sac | a hat | 2.jpg | no\n"
    )
    for name, words in (("without", "sac mer"), ("with", "mer mer")):
        (tmp_path / f"{name}.txt").write_text("\n".join(words.split()))
    files = [str(tmp_path / f"{name}.txt") for name in ("without", "with")]
    words = ["--data", "mlt", "--root", str(tmp_path), "--split", "human_2018", "--samples", "9"]
    assert "test_2016" not in refused(["evaluate", *files, *words])  # German is not there
    words += ["--set", "lang=fr", "--cases", "3"]
    assert main(["evaluate", *files, *words]) == 0
    shown = capsys.readouterr().out
    assert "sea | at the sea" in shown
    assert "1 examples are answered better, 0 worse." in shown
    assert main(["evaluate", *files, *words, "--json"]) == 0
    ((case,),) = json.loads(capsys.readouterr().out)["cases"].values()
    assert (case["id"], case["target"], case["first"], case["second"]) == (
        "human_2018/1",
        "mer",
        "sac",
        "mer",
    )
    assert "one more" in refused(["evaluate", files[0], *words])
    assert "'lang'" in refused(["evaluate", *files, *words, "--set", "lang"])
    assert "langs" in refused(["evaluate", *files, *words, "--set", "langs=fr"])
