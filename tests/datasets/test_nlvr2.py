"""NLVR2: both forms of its files in all trees, its measures, its official file, and what is refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from diptych.bundle import read_content
from diptych.check import check
from diptych.cli import main
from diptych.data import Collate, Processor, Sources
from diptych.datasets import Nlvr2, fabricate, find_data
from diptych.errors import ConfigError, DiptychError, FormatError
from diptych.evaluate import evaluate
from diptych.features import FeatureStore
from diptych.predictions import Predictions
from diptych.study import score_meme
from diptych.text import WordPiece

STATEMENTS = [
    ("dev-7-0-0", "Both images show dogs.", "True"),
    ("dev-7-1-0", "Both images show dogs.", "False"),
    ("dev-7-0-1", "A cat sleeps.", "False"),
    ("dev-9-3-1", "Both images show dogs.", "True"),
]


def official(rows: list[tuple[str, str, Any]]) -> str:
    lines = [{"sentence": text, "label": label, "identifier": key} for key, text, label in rows]
    return "".join(f"{json.dumps(line)}\n" for line in lines)


def lxmert(rows: list[tuple[str, str, Any]]) -> str:
    return json.dumps(
        [
            {
                "identifier": key,
                "img0": f"{key[:-2]}-img0",
                "img1": f"{key[:-2]}-img1",
                "label": int(label == "True"),
                "sent": text,
                "uid": f"nlvr2_valid_{number}",
            }
            for number, (key, text, label) in enumerate(rows)
        ]
    )


TREES: list[tuple[str, Callable[[list[tuple[str, str, Any]]], str]]] = [
    ("dev.json", official),
    ("nlvr2/data/dev.json", official),
    ("data/dev.json", official),
    ("dev.jsonl", official),
    ("valid.json", lxmert),
    ("nlvr2/valid.json", lxmert),
    ("data/nlvr2/valid.json", lxmert),
    ("dev.json", lxmert),
]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fabricate(tmp_path_factory.mktemp("nlvr2") / "w", "nlvr2", size=80, seed=3).root


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "dev.json").write_text(official(STATEMENTS))
    return tmp_path


@pytest.mark.parametrize(("name", "form"), TREES)
@pytest.mark.parametrize("split", ["dev", "valid"])
def test_every_tree_and_both_forms_are_read_alike(
    tmp_path: Path, name: str, form: Callable[..., str], split: str
) -> None:
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text(form(STATEMENTS))
    (tmp_path / "train.json").write_text('[{"question_id": 1, "sent": "who?"}]')  # of another data set
    assert Nlvr2.splits(tmp_path) == ("dev",)
    assert find_data(tmp_path).kind is Nlvr2
    dataset = Nlvr2(tmp_path, split)
    assert [(one.id, one.pairs[1].text, one.target) for one in dataset] == STATEMENTS
    assert [pair.image for pair in dataset[3].pairs] == ["dev-9-3-img0", "dev-9-3-img1"]
    other = Nlvr2(tmp_path, split, image_key="nlvr2_{}.npz")
    assert other[3].pairs[0].image == "nlvr2_dev-9-3-img0.npz"
    assert other.image_path("nlvr2_dev-9-3-img0.npz") == dataset.image_path("dev-9-3-img0")
    [pair] = Nlvr2(tmp_path, split, together=True)[3].pairs
    assert pair.image == ("dev-9-3-img0", "dev-9-3-img1")


def test_measures_are_those_of_the_official_scripts(root: Path) -> None:
    (root / "annotated_dev_examples.txt").write_text(
        "Both images show dogs.\n* negation\n* universal quantifier\n\nA cat sleeps.\n* negation\n"
    )
    (root / "balanced_dev.json").write_text(official(STATEMENTS[:3]))
    file = root / "dev.csv"
    file.write_text("dev-7-0-0,TRUE\ndev-9-3-1,true\ndev-7-1-0,True\ndev-7-0-1,False\n")
    dataset = Nlvr2(root, "dev")
    found = evaluate(dataset.read_predictions(file), dataset, samples=20)
    assert found["accuracy"].value == 3 / 4
    assert found["consistency"].value == 2 / 3  # of the sentences 7-0, 7-1 and 9-1
    subsets, categories = (found.breakdown[f"accuracy per {name}"] for name in ("subset", "category"))
    assert {name: (one.value, one.count) for name, one in subsets.items()} == {"balanced": (2 / 3, 3)}
    assert {name: (one.value, one.count) for name, one in categories.items()} == {
        "negation": (3 / 4, 4),
        "universal quantifier": (2 / 3, 3),
    }
    part = Nlvr2(root, "balanced_dev")  # the file of the whole split serves
    assert evaluate(part.read_predictions(file), part, samples=20)["accuracy"].value == 2 / 3
    assert main(["evaluate", str(file), "--root", str(root), "--split", "dev", "--samples", "20"]) == 0


def test_the_official_file_is_whole_or_refused(root: Path, tmp_path: Path) -> None:
    dataset, file = Nlvr2(root, "dev"), tmp_path / "out.csv"
    ids = dataset.ids[::-1]
    dataset.write(Predictions(ids=ids, answers=("True", "False", "True", "False")), file)
    assert file.read_text() == "dev-7-0-0,False\ndev-7-1-0,True\ndev-7-0-1,False\ndev-9-3-1,True\n"
    with pytest.raises(FormatError, match="dev-7-0-0"):
        dataset.write(Predictions(ids=ids[:-1], answers=("True",) * 3), file)
    with pytest.raises(FormatError, match="yes"):
        dataset.write(Predictions(ids=ids, answers=("True", "yes", "True", "False")), file)
    with pytest.raises(FormatError):
        dataset.write(Predictions(ids=ids, scores=np.zeros((4, 2)), classes=("False", "True")), file)


@pytest.mark.parametrize(
    ("line", "values"),
    [
        ("dev-7-0-0,maybe", ["out.csv:2", "maybe"]),
        ("identifier,prediction", ["out.csv:2"]),
        ("dev-1-0-0,False", ["out.csv:2", "dev-1-0-0"]),
        ("dev-7-0-0", ["out.csv:2"]),
    ],
)
def test_odd_predictions_are_named(root: Path, tmp_path: Path, line: str, values: list[str]) -> None:
    (tmp_path / "out.csv").write_text(f"dev-1-0-0,True\n{line}\n")
    with pytest.raises(FormatError) as error:
        Nlvr2(root, "dev").read_predictions(tmp_path / "out.csv")
    assert all(value in str(error.value) for value in values)


@pytest.mark.parametrize(
    ("change", "values"),
    [
        ({"label": "maybe"}, ["dev.json:5", "dev-1-0-0", "maybe"]),
        ({"label": 2}, ["dev.json:5", "2"]),
        ({"identifier": "dev-1"}, ["dev.json:5", "dev-1"]),
        ({"identifier": 3}, ["dev.json:5", "3"]),
        ({"identifier": "dev-7-1-0"}, ["dev.json:5", "dev-7-1-0", "2"]),
        ({"sentence": None}, ["dev.json:5", "dev-1-0-0", "None"]),
        ({"img0": ""}, ["dev.json:5", "dev-1-0-0"]),
    ],
)
def test_odd_records_are_named(root: Path, change: dict[str, Any], values: list[str]) -> None:
    record = {"identifier": "dev-1-0-0", "sentence": "a", "label": "True"} | change
    (root / "dev.json").write_text(f"{official(STATEMENTS)}{json.dumps(record)}\n")
    with pytest.raises(FormatError) as error:
        Nlvr2(root, "dev")
    assert all(value in str(error.value) for value in values)


def test_odd_files_are_named(root: Path) -> None:
    (root / "dev.json").write_text(lxmert(STATEMENTS)[:-40])
    with pytest.raises(FormatError, match=r"dev\.json.*cut off"):
        Nlvr2(root, "dev")
    with pytest.raises(ConfigError, match=r"'tset'.*"):
        Nlvr2(root, "tset")
    with pytest.raises(ConfigError):
        Nlvr2(root, f"../{root.name}/dev")
    (root / "dev.json").write_text(official(STATEMENTS))
    (root / "annotated_dev_examples.txt").write_text("A cat sleeps.\nA dog sleeps.\n")
    dataset = Nlvr2(root, "dev")
    answers = Predictions(ids=dataset.ids, answers=("True",) * 4)
    with pytest.raises(FormatError, match=r"annotated_dev_examples\.txt:2"):
        evaluate(answers, dataset, samples=20)


def test_unlabeled_statements_are_read(tmp_path: Path) -> None:
    (tmp_path / "test2.json").write_text('{"identifier": "test2-1-0-0", "sentence": "A cat sleeps."}\n')
    assert Nlvr2(tmp_path, "hidden")[0].target is None


def test_the_world_is_balanced_in_every_group(world: Path) -> None:
    train = Nlvr2(world, "train")
    groups: dict[str, list[bool]] = {}
    for example in train:
        split, number, _, sentence = example.id.split("-")
        groups.setdefault(f"{split}-{number}-{sentence}", []).append(example.target == "True")
    assert {len(group) for group in groups.values()} == {1, 2, 4}
    assert all(sum(group) == 2 for group in groups.values() if len(group) == 4)
    assert Nlvr2.splits(world) == ("train", "dev", "test1", "test2")
    parts = [Nlvr2(world, f"{subset}_dev").ids for subset in ("balanced", "unbalanced")]
    assert {*parts[0], *parts[1]} == {*Nlvr2(world, "dev").ids}
    assert {path.read_bytes()[:2] for path in train.images.values()} == {b"\x89P", b"\xff\xd8"}
    with pytest.raises(ConfigError, match="44"):
        fabricate(world / "more", "nlvr2", size=44)


def test_a_dead_picture_is_named(world: Path, tmp_path: Path) -> None:
    (tmp_path / "dev.json").write_text((world / "dev.json").read_text())
    Image.new("RGB", (32, 32)).save(tmp_path / "dev-0-0-img0.png")
    report = check(tmp_path, data=find_data(tmp_path))
    [finding] = [one for one in report.findings if one.severity == "error"]
    assert finding.count == 7
    assert all("dev-0-" in path for path in finding.examples)


FORMS = [
    ("lxmert_tiny", []),
    ("uniter_tiny", []),
    ("uniter_paired_attention", ["model=uniter_tiny"]),
    ("uniter_pair", ["model=uniter_tiny"]),
    ("uniter_triplet", ["model=uniter_tiny"]),
    ("visualbert", ["model=visualbert_tiny"]),
    ("visualbert", ["model=visualbert_tiny", "data.together=true"]),
    ("oscar", ["model=oscar_tiny"]),
]


@pytest.mark.parametrize(
    ("name", "words"), FORMS, ids=lambda one: "+".join(one) if isinstance(one, list) else one
)
def test_every_form_goes_from_training_to_a_score(
    world: Path, tmp_path: Path, name: str, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    places = [f"root={world}", f"out={run}", "loggers=[]", "data.batch_size=4"]
    steps = ["trainer.max_steps=2", "trainer.accumulate_grad_batches=1", "trainer.val_check_interval=1.0"]
    assert (
        main(["train", f"experiment=nlvr2/{name}", *words, *places, *steps, "processor.max_tokens=12"]) == 0
    )
    about = read_content(run / "bundle")
    cut = about["provenance"]["training"]["cut_texts"]
    assert f"max_tokens=12 cuts a text of {cut} of {len(Nlvr2(world, 'train'))}" in capsys.readouterr().err
    together = name == "uniter_triplet" or "data.together=true" in words
    assert about["task"]["pairs"] == 2 - together
    assert main(["predict", str(run), "--splits", "dev"]) == 0
    file = run / "predictions" / "dev.csv"
    assert (
        main(["evaluate", str(file), "--root", str(world), "--split", "dev", "--samples", "20", "--json"])
        == 0
    )
    dataset = Nlvr2(world, "dev")
    assert dataset.read_predictions(file).ids == dataset.ids
    keys = [f"{dataset.ids[0][:-2]}-img{side}" for side in range(2)]
    pictures, text = [dataset.images[key] for key in keys], dataset[0].pairs[0].text
    verdict = score_meme(run, image=pictures, text=text, device="cpu")
    expected = Predictions.load(file.with_suffix(".npz")).column("True")[0]
    assert verdict.scores["True"] == pytest.approx(expected, abs=1e-6)
    with pytest.raises(ConfigError, match=r"2 picture.*1"):
        score_meme(run, image=pictures[0], text=text, device="cpu")


def test_images_are_numbered_within_pairs_or_across_them(world: Path) -> None:
    store, text = FeatureStore(world / "features"), WordPiece(world / "vocabulary.txt")
    numbers = {}
    for together, across in ((False, False), (False, True), (True, True)):
        processor = Processor(text=text, regions=True, number_images=across)
        batch = Collate(processor, sources=Sources(regions=store))(
            [Nlvr2(world, "dev", together=together)[0]]
        )
        regions = batch.inputs.regions
        assert regions is not None
        rows = zip(regions.image_index, regions.mask, strict=True)
        numbers[together, across] = [sorted({*row[mask].tolist()}) for row, mask in rows]
    assert numbers == {(False, False): [[0], [0]], (False, True): [[0], [1]], (True, True): [[0, 1]]}


@pytest.mark.parametrize("words", [[], ["data.together=true"]])
def test_a_number_of_pairs_that_the_data_lack_is_refused(
    world: Path, tmp_path: Path, words: list[str]
) -> None:
    from diptych.recipe import compose, run_recipe

    places = [f"root={world}", f"out={tmp_path / 'run'}"]
    config = compose(["model=text_bert_tiny", "data=nlvr2", "task.pairs=3", *places, *words])
    with pytest.raises(DiptychError, match=r"3.*[12] pair"):
        run_recipe(config)
