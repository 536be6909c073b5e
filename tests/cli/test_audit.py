"""`audit` and `report`: pages, exit codes, files that are kept, runs that do not fit."""

import json
import shutil
from html.parser import HTMLParser

import pytest
import yaml

from diptych.cli import main
from diptych.files import require_new

EVIL = "</td><script>alert(1)</script>"


class Tags(HTMLParser):
    """Tags and outside references of a page; fails where a tag is closed that is not open."""

    EMPTY = ("meta", "img")

    def __init__(self, page):
        super().__init__()
        self.open, self.seen, self.links = [], set(), []
        self.feed(page)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.seen.add(tag)
        self.links += [value for name, value in attributes if name in ("src", "href")]
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.seen.add(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def checked(path):
    page = path.read_text(encoding="utf-8")
    tags = Tags(page)
    assert "script" not in tags.seen
    assert all(link.startswith("data:") for link in tags.links)
    return page


@pytest.fixture(scope="module")
def runs(memes, pixel_run, tmp_path_factory):
    """A folder with two seeds of one recipe, and a run of another."""
    folder = tmp_path_factory.mktemp("runs")
    assert main(["predict", str(pixel_run), "--splits", "dev_seen", "--out", str(folder / "scores")]) == 0
    for name, seed, rate in (("a1", 1, None), ("a2", 2, None), ("b", 1, 0.5)):
        shutil.copytree(pixel_run, folder / "runs" / name)
        config = yaml.safe_load((folder / "runs" / name / "config.yaml").read_text())
        config["seed"] = seed
        if rate is not None:
            config["optim"]["lr"] = rate
        (folder / "runs" / name / "config.yaml").write_text(yaml.safe_dump(config))
        (folder / "runs" / name / "predictions").mkdir(exist_ok=True)
        shutil.copy(
            folder / "scores" / "dev_seen.npz", folder / "runs" / name / "predictions" / "dev_seen.npz"
        )
    return folder / "runs"


def test_an_audit_of_hostile_memes(edit, spoiled, runs, tmp_path, capsys):
    def poison(records):
        records[0]["text"] = EVIL
        records.append({**records[0], "id": f"=x{EVIL}"})

    edit(poison)
    out = tmp_path / "audit.html"
    words = [*map(str, ["audit", spoiled, "--samples", "10", "--out", out])]
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert "copies inside of train (1)" in shown
    page = checked(out)
    assert "&lt;script&gt;" in page
    assert "Blind baselines" in page
    # Kept, unless it is replaced on purpose.
    assert main(words) == 2
    assert main([*words, "--overwrite"]) == 0
    out.write_text("mine")
    assert main([*words, "--overwrite"]) == 2
    assert out.read_text() == "mine"


def test_looks_and_scores_as_json(memes, runs, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    scores = runs / "a1" / "predictions" / "dev_seen.npz"
    words = ["audit", memes, "--samples", "10", "--json", "--runs", runs, "--predictions", scores]
    # A model that was trained for one step is not shown to be better than one side.
    assert main([*map(str, words)]) == 1
    found = json.loads(capsys.readouterr().out)
    (dev,) = found["looks"]
    assert (dev["split"], dev["runs"], dev["files"]) == ("dev_seen", 3, 3)
    assert found["judged"][0]["split"] == "dev_seen"
    assert found["findings"][0]["severity"] == "error"
    assert not [*tmp_path.iterdir()]


def test_a_report_of_runs(memes, runs, tmp_path, capsys):
    out = tmp_path / "report.html"
    words = ["report", runs, "--samples", "10", "--audit", memes, "--out", out]
    assert main([*map(str, words)]) == 0
    assert "3 run(s)" in capsys.readouterr().out
    page = checked(out)
    for part in ("concat_bert_tiny (2)", "Seeds and differences on dev_seen", "Audit: What can be believed"):
        assert part in page
    # Both runs have the same scores, so they differ by nothing; the run of the other recipe has no pair.
    assert page.count("difference of runs of") == 1
    assert "a1 \N{MINUS SIGN} a2<" in page
    require_new(out, overwrite=True, kind="a page of diptych")


def test_bad_calls_are_refused(memes, runs, tmp_path, refused):
    broken = tmp_path / "broken"
    shutil.copytree(runs / "b", broken)
    (broken / "config.yaml").write_text("data: [")
    assert "config.yaml" in refused(["report", broken, "--out", tmp_path / "a.html"])
    assert "config.yaml" in refused(["audit", memes, "--runs", broken, "--out", tmp_path / "a.html"])
    assert "samples is 0" in refused(["audit", memes, "--samples", "0"])
    (tmp_path / "tags.csv").write_text("id,tag\n77777,a\n")
    assert "77777" in refused(
        ["audit", memes, "--groups", tmp_path / "tags.csv", "--out", tmp_path / "a.html"]
    )
    (tmp_path / "second.csv").write_text("id,tag\n")
    assert "second.csv" in refused(
        ["audit", memes, "--second", tmp_path / "second.csv", "--out", tmp_path / "a.html"]
    )
    (tmp_path / "half.npz").write_bytes(b"PK")
    assert "half.npz" in refused(
        ["audit", memes, "--predictions", tmp_path / "half.npz", "--out", tmp_path / "a.html"]
    )
    other = tmp_path / "other"
    shutil.copytree(runs / "b", other)
    config = yaml.safe_load((other / "config.yaml").read_text())
    config["data"]["train"]["_target_"] = "diptych.datasets.Vqa"
    (other / "config.yaml").write_text(yaml.safe_dump(config))
    assert "diptych.datasets.Vqa" in refused(["report", runs, other, "--out", tmp_path / "a.html"])
    assert not (tmp_path / "a.html").exists()
