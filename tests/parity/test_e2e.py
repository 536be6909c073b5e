"""What a user does gives what the original gave: text, vocabulary and TSV to csv, without any setting."""

import csv
import json
import math
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from diptych.bundle import load_bundle
from diptych.cli import main
from diptych.data import Collate, Sources, open_regions
from diptych.datasets import Vqa
from diptych.types import Example, Pair

EVERY = "DIPTYCH_GOLDENS" in os.environ  # a folder of all goldens, not the repository's selection
FOLDER = Path(os.environ.get("DIPTYCH_GOLDENS", Path(__file__).parents[1] / "golden"))
# folders that there must be; others of their kind are tried, too
MEMES = {"e2e-u", "e2e-o", "e2e-v", "e2e-v-reg", "e2e-d", "e2e-x"} if EVERY else {"e2e-u"}
QUESTIONS = {"e2e-lxmert-vqa", "e2e-vlbert-vqa"}
MEMES |= {path.parent.name for path in FOLDER.glob("e2e-*/expected.csv")}
QUESTIONS |= {path.parent.name for path in FOLDER.glob("e2e-*/expected.json")}
FILES = [(name, path.name) for name in sorted(MEMES) for path in sorted((FOLDER / name).glob("weights.*"))]


def run(*words):
    assert main([str(word) for word in words]) == 0


@pytest.fixture
def converted(goldens, tmp_path):
    """The folder of a golden, what it says, the bundle of its weights, and the store of its regions."""

    def make(name, file="weights.safetensors"):
        place = goldens / name
        run("convert", place / file, tmp_path / "bundle", "--vocabulary", place / "vocab.txt")
        run("import", place / "features.tsv", tmp_path / "store")
        return place, json.loads((place / "about.json").read_text()), tmp_path / "bundle", tmp_path / "store"

    return make


def rows(path):
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_there_is_every_golden():
    found = {path.parent.name for path in FOLDER.glob("e2e-*/about.json")}
    assert (MEMES | QUESTIONS if EVERY else MEMES) <= found
    assert {name for name, _ in FILES} == MEMES


@pytest.mark.parametrize(("name", "file"), FILES)
def test_predictions_equal_the_csv_of_the_original(converted, tmp_path, name, file):
    place, about, bundle, store = converted(name, file)
    options = ["--splits", "dev_seen", "--root", place, "--features", store, "--out", tmp_path / "csv"]
    run("predict", bundle, *options)
    ours, theirs = rows(tmp_path / "csv" / "dev_seen.csv"), rows(place / "expected.csv")
    assert [row["id"] for row in ours] == [row["id"] for row in theirs]
    quirks = set(map(str, about["quirk_rows"]))
    pairs = [pair for pair in zip(ours, theirs, strict=True) if pair[0]["id"] not in quirks]
    assert len(pairs) > len(quirks)
    worst = max(abs(float(our["proba"]) - math.exp(float(their["proba"]))) for our, their in pairs)
    assert worst <= about["tolerance"]
    assert [our["label"] for our, _ in pairs] == [their["label"] for _, their in pairs]
    processor = load_bundle(bundle).processor
    wanted = about["a_correct_conversion_sets"]
    assert processor.text.lowercase is wanted["lowercase"]
    assert processor.max_regions == wanted["max_regions"]


def is_official(path):
    return isinstance(json.loads(path.read_text(encoding="utf-8")), dict)


def questions(path):
    """Question number, key of the picture and text, from LXMERT's form or the official one."""
    given = json.loads(path.read_text(encoding="utf-8"))
    if not is_official(path):
        return [(one["question_id"], one["img_id"], one["sent"]) for one in given]
    return [(one["question_id"], str(one["image_id"]), one["question"]) for one in given["questions"]]


if EVERY:

    @pytest.mark.parametrize("name", sorted(QUESTIONS))
    @pytest.mark.parametrize("size", [1, 8])
    def test_answers_equal_the_original(converted, tmp_path, name, size):
        place, about, folder, store = converted(name)
        bundle, asked = load_bundle(folder), questions(place / "questions.json")
        expected = load_file(place / "expected.safetensors")
        assert [number for number, _, _ in asked] == expected["question_ids"].tolist()
        collate = Collate(
            bundle.processor, sources=Sources(regions=open_regions(bundle.processor, store, {}))
        )
        examples = [Example(id=str(one), pairs=(Pair(image=key, text=text),)) for one, key, text in asked]
        if is_official(place / "questions.json"):  # then our data set reads it
            (tmp_path / "v2_OpenEnded_mscoco_test2015_questions.json").symlink_to(place / "questions.json")
            examples = [*Vqa(tmp_path, "test", image_key="number")]
        with torch.no_grad():
            logits = torch.cat(
                [
                    bundle.task(bundle.model, collate(examples[start : start + size])).logits
                    for start in range(0, len(examples), size)
                ]
            )
        real = torch.tensor([number not in about["quirk_rows"] for number, _, _ in asked])
        assert real.sum() > (~real).sum()
        assert (logits - expected["logits"])[real].abs().max() <= about["tolerance"]
        given = json.loads((place / "expected.json").read_text(encoding="utf-8"))
        answers = {one["question_id"]: one["answer_index"] for one in given}
        best = torch.tensor([answers[number] for number, _, _ in asked])
        assert torch.equal(logits.argmax(1)[real], best[real])
        assert bundle.processor.text_b == about["a_correct_conversion_sets"].get("text_b")
