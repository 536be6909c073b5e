import json
import re

import pytest
from pydantic import TypeAdapter
from tests.cli.test_calibrate import decided_by

from diptych.cli import main
from diptych.explain.document import Explanation
from diptych.study import model_of


def explain(*words):
    return main(["explain", *map(str, words), "--permutations", "2", "--groups", "4"])


@pytest.fixture(scope="module")
def meme(memes):
    return json.loads((memes / "dev_seen.jsonl").read_text().splitlines()[0])


def test_a_picture_and_its_text(region_run, memes, meme, tmp_path, capsys):
    page, document = tmp_path / "why.html", tmp_path / "why.json"
    words = [region_run, memes / meme["img"], "--text", meme["text"], "--out", page, "--json", document]
    assert explain(*words) == 0
    assert "wrote" in capsys.readouterr().out
    assert page.read_text().startswith("<!doctype html>")
    (why,) = json.loads(document.read_text())
    TypeAdapter(Explanation).validate_json(json.dumps(why), strict=False)
    assert why["text"] == meme["text"]
    assert why["sides"]["both"] - why["sides"]["none"] == pytest.approx(
        sum(part["contribution"] for part in why["parts"]), abs=1e-4
    )
    assert len(why["model"]["weights"]) == len("sha256 ") + 64
    page.write_text("mine")
    assert explain(*words) == 2  # neither file is replaced
    assert page.read_text() == "mine"


def test_examples_of_a_split_are_listed_and_swapped(region_run, memes, tmp_path):
    ids = [json.loads(line)["id"] for line in (memes / "dev_seen.jsonl").read_text().splitlines()[:2]]
    words = [region_run, "--ids", ",".join(map(str, ids)), "--split", "dev_seen"]
    out, document = tmp_path / "why.html", tmp_path / "why.json"
    assert explain(*words, "--out", out, "--json", document) == 0
    assert all(f"why-{number}.html" in out.read_text() for number in (1, 2))
    assert all((tmp_path / f"why-{number}.html").is_file() for number in (1, 2))
    truth = [json.loads(line) for line in (memes / "truth.jsonl").read_text().splitlines()]
    truth = {one["id"]: one for one in truth}
    for why in json.loads(document.read_text()):
        swapped = {(one["kind"], one["other"]) for one in why["changes"]}
        # The meme with the same text and that with the same picture are found among all others.
        assert ("picture", truth[why["id"]]["sibling_picture"]) in swapped
        assert ("text", truth[why["id"]]["sibling_text"]) in swapped


def test_a_policy_of_the_model_decides(pixel_run, memes, meme, tmp_path, refused):
    page = tmp_path / "why.html"
    words = ["explain", pixel_run, memes / meme["img"], "--text", meme["text"], "--permutations", "2"]
    words = [*map(str, words), "--out", str(page), "--policy"]
    assert main([*words, str(decided_by(tmp_path, model_of(pixel_run)))]) == 0
    verdict = re.search("<h1>(.*)</h1>", page.read_text())[1]
    assert re.search(r"\b(allow|review|block)\b", verdict)
    # The thresholds stand below, and each probability is named.
    assert "probability" not in verdict
    assert re.search(r"<p>calibrated probability of \w+ \d\.\d+; .* uncalibrated: \w+ \d", page.read_text())
    assert "abcdef" in refused([*words, decided_by(tmp_path, "abcdef"), "--overwrite"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--text", "a"], "takes 1 picture(s) with a text; got 0"),
        (["--batch"], "--split"),
        (["--ids", "99999", "--split", "dev_seen"], "'99999'"),
        (["--ids", "1", "--split", "dev_seen", "--permutations", "1"], "permutations is 1"),
        (["--ids", "1", "--split", "dev_seen", "--maps", "x"], "--attention"),
    ],
)
def test_bad_calls_are_refused(region_run, refused, words, message):
    assert message in refused(["explain", region_run, *words])


def test_pixels_are_one_area(pixel_run, memes, meme, tmp_path):
    page, document = tmp_path / "why.html", tmp_path / "why.json"
    words = [pixel_run, memes / meme["img"], "--text", meme["text"], "--out", page, "--json", document]
    assert explain(*words) == 0
    (why,) = json.loads(document.read_text())
    assert [part["kind"] for part in why["parts"] if part["kind"] != "word"] == ["pixels"]


def test_an_end_to_end_model_is_explained_by_its_boxes(box_run, memes, meme, tmp_path):
    document = tmp_path / "why.json"
    words = [box_run, memes / meme["img"], "--text", meme["text"], "--out", tmp_path / "why.html"]
    assert explain(*words, "--json", document) == 0
    (why,) = json.loads(document.read_text())
    kinds = [part["kind"] for part in why["parts"] if part["kind"] != "word"]
    assert kinds == ["pixels", *["regions"] * 4]
