"""A case that is taught counts in the next score, and is named; bad calls are one line each."""

import json
import shutil

import pytest

from diptych.cli import main
from diptych.memory import Memory

TEXT = "free coins for everybody"


@pytest.fixture(scope="module")
def fitted(memes, region_run, tmp_path_factory):
    """A memory without cases."""
    place = tmp_path_factory.mktemp("memories") / "memory"
    words = ["--model", str(region_run), "--root", str(memes), "--split", "dev_seen", "--folds", "4"]
    assert main(["memory", "fit", str(place), *words]) == 0
    return place


@pytest.fixture
def memory(fitted, tmp_path):
    return shutil.copytree(fitted, tmp_path / "memory")


@pytest.fixture
def picture(memes):
    return sorted((memes / "img").glob("*.png"))[0]


def score(capsys, picture, run, *words):
    capsys.readouterr()
    assert main(["score", str(picture), "--text", TEXT, "--model", str(run), "--json", *map(str, words)]) == 0
    return json.loads(capsys.readouterr().out)


def teach(memory, picture, run, *words, label="hateful"):
    given = ["--image", picture, "--text", TEXT, "--label", label, "--model", run, *words]
    return main(["memory", "add", *map(str, [memory, *given])])


def test_a_case_counts_in_the_next_score_until_it_is_removed(memory, region_run, picture, capsys, tmp_path):
    alone = score(capsys, picture, region_run)
    none = score(capsys, picture, region_run, "--memory", memory)
    assert none["scores"] == pytest.approx(alone["scores"])
    assert none["memory"]["cases"] == []
    assert teach(memory, picture, region_run, "--policy", "coins") == 0
    taught = score(capsys, picture, region_run, "--memory", memory)
    (case,) = taught["memory"]["cases"]
    assert taught["scores"]["hateful"] > alone["scores"]["hateful"] + 0.1
    assert taught["memory"]["before"] == pytest.approx(alone["scores"])
    assert (case["policy"], case["text"], case["picture"]) == ("coins", TEXT, picture.name)
    assert case["similarity"] == pytest.approx(1, abs=1e-4)
    assert (
        main(["score", str(picture), "--text", TEXT, "--model", str(region_run), "--memory", str(memory)])
        == 0
    )
    assert f"because of {case['id']}" in capsys.readouterr().out
    page, document = tmp_path / "why.html", tmp_path / "why.json"
    words = [region_run, picture, "--text", TEXT, "--memory", memory, "--permutations", 2, "--groups", 2]
    assert main(["explain", *map(str, [*words, "--out", page, "--json", document])]) == 0
    assert case["id"] in page.read_text(encoding="utf-8")
    (explained,) = json.loads(document.read_text())
    assert explained["memory"]["cases"][0]["id"] == case["id"]
    assert explained["memory"]["scores"] == pytest.approx(taught["scores"])
    assert main(["memory", "remove", str(memory), "--ids", case["id"]]) == 0
    assert score(capsys, picture, region_run, "--memory", memory)["scores"] == pytest.approx(alone["scores"])


def test_labeled_memes_of_a_split_become_cases(memory, memes, region_run, capsys):
    given = ["--root", str(memes), "--split", "train", "--model", str(region_run)]
    records = [json.loads(line) for line in (memes / "train.jsonl").read_text().splitlines()][:3]
    ids = ",".join(str(record["id"]) for record in records)
    assert main(["memory", "add", str(memory), *given, "--ids", ids]) == 0
    cases = Memory.load(memory).cases
    assert {case.id: case.label for case in cases} == {
        str(record["id"]): ("benign", "hateful")[record["label"]] for record in records
    }
    capsys.readouterr()
    assert (
        main(
            [
                "memory",
                "fit",
                str(memory),
                *given[:2],
                "--split",
                "dev_seen",
                *given[4:],
                "--folds",
                "4",
                "--json",
            ]
        )
        == 0
    )
    report = json.loads(capsys.readouterr().out)
    assert report["cases"] == 3
    assert report["learned"]["split"] == "dev_seen"
    assert main(["memory", "list", str(memory), "--json"]) == 0
    assert [case["id"] for case in json.loads(capsys.readouterr().out)["cases"]] == [
        case.id for case in cases
    ]
    assert main(["memory", "remove", str(memory), "--policy", "main"]) == 0
    assert Memory.load(memory).cases == ()


def test_what_cannot_work_is_one_line(memory, memes, region_run, pixel_run, picture, tmp_path, refused):
    add = ["memory", "add", memory, "--model", region_run]
    meme = ["--image", picture, "--text", TEXT, "--label", "hateful"]
    assert "rude" in refused([*add, *meme[:4], "--label", "rude"])
    assert "--label" in refused([*add, *meme[:4]])
    assert "none.png" in refused([*add, "--image", tmp_path / "none.png", *meme[2:]])
    assert "--model" in refused(["memory", "add", memory, *meme])
    assert "xyz" in refused(["memory", "remove", memory, "--ids", "xyz"])
    assert "nowhere" in refused(["memory", "remove", tmp_path / "nowhere", "--ids", "xyz"])
    assert "nowhere" in refused(["memory", "list", tmp_path / "nowhere"])
    assert str(memory) in refused(["memory", "add", memory, "--model", pixel_run, *meme])
    other = ["score", picture, "--text", TEXT, "--model", pixel_run, "--memory", memory]
    assert str(memory) in refused(other)
    assert "pooled" in refused([*add, *meme, "--parts", "pooled"])
    assert teach(memory, picture, region_run, "--id", "a") == 0
    assert "a already" in refused([*add, *meme, "--id", "a"])
    bad = tmp_path / f"{picture.stem}.png"
    bad.write_bytes(b"no picture")
    words = ["memory", "add", tmp_path / "pixels", "--model", pixel_run, "--image", bad, *meme[2:]]
    assert bad.name in refused(words)
    assert not (tmp_path / "pixels").exists()
    assert len(Memory.load(memory).cases) == 1


def test_an_unfitted_memory_says_so(region_run, picture, tmp_path, capsys):
    place = tmp_path / "new"
    assert teach(place, picture, region_run) == 0
    assert "diptych memory fit" in capsys.readouterr().out
    found = score(capsys, picture, region_run, "--memory", place)
    assert found["scores"] == found["memory"]["before"]
    assert len(found["memory"]["cases"]) == 1
