"""A table of one's own on the command line, from a guess to measures."""

import json
import shlex
from pathlib import Path

import pytest

from diptych.bundle import read_content
from diptych.cli import main
from diptych.documents import dump_yaml


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("table") / "t"
    assert main(["world", str(root), "--data", "table", "--size", "40"]) == 0
    return root


@pytest.fixture(scope="module")
def trained(table: Path) -> Path:
    out = table.parent / "r"
    words = ["model=text_bert_tiny", "data=table", f"root={table}", f"out={out}", "trainer.max_steps=2"]
    assert main(["train", *words, "loggers=[]", "progress=false"]) == 0
    return out


def test_check_of_a_table_ends_with_the_words_that_train(
    table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert main(["check", str(table / "table.csv")]) == 0
    line = capsys.readouterr().out.splitlines()[-1]
    assert line == (
        f"diptych train model=concat_bert_tiny data=table root={table} data.columns.id=id "
        "data.columns.image=image data.columns.text=text data.columns.label=label data.columns.split=split "
        "data.columns.group=country data.train.split=train data.validate.split=dev out=r"
    )
    words = [word for word in shlex.split(line)[1:] if not word.startswith("out=")]
    more = [
        f"out={tmp_path / 'r'}",
        "trainer.max_steps=1",
        "data.batch_size=4",
        "loggers=[]",
        "progress=false",
    ]
    assert main([*words, *more]) == 0


def test_the_bundle_and_the_files_remember_the_table(
    table: Path, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    classes = ["against cool", "against warm", "benign"]
    content = read_content(trained / "bundle")
    assert content["task"]["labels"] == content["provenance"]["data"]["labels"] == classes
    capsys.readouterr()
    assert main(["predict", str(trained)]) == 0
    assert "data set: table (by the bundle" in capsys.readouterr().out
    assert sorted(path.name for path in (trained / "predictions").glob("*.csv")) == ["dev.csv", "test.csv"]
    file = str(trained / "predictions" / "test.csv")
    assert main(["evaluate", file, "--root", str(table), "--split", "test", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)["results"][file]
    assert set(result["by_group"]) == {"here", "there", "elsewhere"}
    assert main(["vocabulary", str(table), str(trained / "v.txt"), "--data", "table"]) == 0


def test_a_bundle_that_names_no_data_set_of_ours_is_refused(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = trained / "bundle" / "bundle.yaml"
    text = path.read_text(encoding="utf-8")
    content = read_content(trained / "bundle")
    content["provenance"]["data"] = {"_target_": "os.system", "command": "true"}
    try:
        path.write_text(dump_yaml(content), encoding="utf-8")
        assert main(["predict", str(trained), "--out", str(tmp_path)]) == 2
        assert "os.system" in capsys.readouterr().err
    finally:
        path.write_text(text, encoding="utf-8")


def test_an_unknown_name_is_one_line(memes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(memes), "--data", "hateful"]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert "'hateful'" in line
