"""VCR: texts that name regions, silhouettes, the file of the leaderboard, and what is refused."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from diptych.bundle import load_bundle
from diptych.cli import main
from diptych.data import Collate, OwnBoxes, Sources
from diptych.datasets import Vcr, fabricate, find_data, named_data
from diptych.datasets.coco import coco_class
from diptych.datasets.vcr.polygons import silhouette
from diptych.errors import ConfigError, FormatError
from diptych.evaluate import evaluate
from diptych.predict import joined_data
from diptych.predictions import Predictions

QUESTION: dict[str, Any] = {
    "objects": ["person", "car", "person"],
    "img_fn": "a_film/x@0.jpg",
    "metadata_fn": "a_film/x@0.json",
    "annot_id": "val-7",
    "question": ["Do", [2, 0], "see", [1], "?"],
    "answer_choices": [["Yes", "."], ["No", ",", [0], "sleeps", "."], ["Maybe"], [[2]]],
    "rationale_choices": [[[1], "is", "far"], ["b"], ["c"], ["d"]],
    "answer_label": 1,
    "rationale_label": 0,
    "match_fold": "val-0",
}
METADATA: dict[str, Any] = {
    "boxes": [[10, 10, 29, 29, 0.9], [40, 0, 59, 19, 0.8], [0, 0, 60, 40, 0.7]],
    "segms": [[[[10, 10], [19.5, 10], [19.5, 29], [10, 29]]], [], [[[0, 0], [60, 0], [0, 40]]]],
    "names": ["person", "car", "person"],
    "width": 60,
    "height": 40,
}
HEADER = ["annot_id", *(f"answer_{one}" for one in range(4))] + [
    f"rationale_conditioned_on_a{answer}_{one}" for answer in range(4) for one in range(4)
]


def write(root: Path, *records: dict[str, Any], split: str = "val", **metadata: Any) -> Path:
    (root / f"{split}.jsonl").write_text("".join(f"{json.dumps(one)}\n" for one in records))
    folder = root / "vcr1images" / "a_film"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "x@0.json").write_text(json.dumps(METADATA | metadata))
    return root


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write(tmp_path, QUESTION)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fabricate(tmp_path_factory.mktemp("vcr") / "w", "vcr", size=40, seed=3).root


@pytest.fixture(scope="module")
def runs(world: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A run that chooses answers, and one that chooses rationales."""
    out = tmp_path_factory.mktemp("runs")
    for form, data in (("q2a", "vcr"), ("qa2r", "vcr_qa2r")):
        words = [f"data={data}", f"root={world}", f"out={out / form}", "trainer.max_steps=1", "loggers=[]"]
        assert main(["train", "model=text_bert_tiny", *words, "data.batch_size=4", "progress=false"]) == 0
    return [out / "q2a", out / "qa2r"]


def test_names_in_texts_point_to_objects(root: Path) -> None:
    assert find_data(root).kind is Vcr
    [example] = Vcr(root, "val")
    assert (example.id, example.target, example.meta) == ("val-7", 1, {"match_fold": "val-0"})
    assert [pair.text for pair in example.pairs] == ["Do Riley and Casey see car ?"] * 4
    assert [pair.text_b for pair in example.pairs] == ["Yes .", "No , Casey sleeps .", "Maybe", "Riley"]
    pair = example.pairs[1]
    assert (pair.image, pair.files) == ("a_film/x@0", ("vcr1images/a_film/x@0.jpg",))
    texts = pair.text, pair.text_b or ""
    named = [(texts[one.segment][one.start : one.stop], one.region, one.segment) for one in pair.mentions]
    assert named == [("Riley", 2, 0), ("Casey", 0, 0), ("car", 1, 0), ("Casey", 0, 1)]


def test_names_begin_again_in_every_question_and_after_the_last_one(tmp_path: Path) -> None:
    crowd = QUESTION | {"objects": ["person"] * 14, "question": [[13], [12]]}
    write(tmp_path, crowd, crowd | {"annot_id": "val-8"})
    assert [one.pairs[0].text for one in Vcr(tmp_path, "val")] == ["Casey Quinn"] * 2


def test_rationales_are_chosen_given_the_right_answer_or_each(root: Path) -> None:
    [example] = Vcr(root, "val", form="qa2r")
    assert (example.id, example.target) == ("val-7#a1", 0)
    assert example.pairs[0].text == "Do Riley and Casey see car ? No , Casey sleeps ."
    assert example.pairs[0].text_b == "car is far"
    withheld = {key: one for key, one in QUESTION.items() if not key.endswith("label")}
    write(root, withheld, split="test")
    assert [(one.id, one.target) for one in Vcr(root, "test", form="q2ar")] == [
        ("val-7", None),
        *((f"val-7#a{answer}", None) for answer in range(4)),
    ]
    assert Vcr(root, "test", form="qa2r")[3].pairs[0].text.endswith("? Riley")


def test_folds_select_questions(tmp_path: Path) -> None:
    write(tmp_path, QUESTION, QUESTION | {"annot_id": "val-8", "match_fold": "val-1"})
    assert Vcr(tmp_path, "val", folds=["val-1"]).ids == ("val-8",)
    with pytest.raises(FormatError, match="val-2"):
        Vcr(tmp_path, "val", folds=["val-1", "val-2"])


def test_boxes_and_silhouettes_come_from_the_metadata(root: Path) -> None:
    source = Vcr(root, "val", cells=4).regions
    regions = source["a_film/x@0"]
    assert ("a_film/x@0" in source, source.count("a_film/x@0"), "a_film/y" in source) == (True, 3, False)
    assert (regions.size, regions.boxes.tolist()[1]) == ((60, 40), [40, 0, 59, 19])
    assert regions.labels.tolist() == [0, 2, 0], "COCO's order"
    left, unknown, triangle = regions.silhouettes
    assert left.tolist() == [[1, 1, 0, 0]] * 4
    assert unknown.all()
    assert triangle.tolist() == [[1, 1, 1, 1], [1, 1, 1, 0], [1, 1, 0, 0], [1, 0, 0, 0]]
    assert Vcr(root, "val", cells=0).regions["a_film/x@0"].silhouettes is None


def test_classes_of_objects_are_numbered_as_in_coco() -> None:
    assert (coco_class("Toothbrush"), coco_class("wine glass"), coco_class("dragon")) == (79, 40, 80)


def test_polygons_of_several_parts_are_joined() -> None:
    parts = [np.array([[x, 0], [x + 1, 0], [x + 1, 9], [x, 9.0]]) for x in (0, 8)]
    drawn = silhouette(parts, np.array([0, 0, 9, 9.0]), cells=10)
    assert drawn.any(0).tolist() == [True, True, *[False] * 6, True, True]
    assert not silhouette([np.zeros((0, 2))], np.array([0, 0, 9, 9.0]), cells=3).any()


@pytest.mark.parametrize(
    ("change", "values"),
    [
        ({"question": ["Does", [3], "see"]}, ["val.jsonl:2", "question", "3"]),
        ({"answer_choices": [["a"], [[-1]], ["c"], ["d"]]}, ["val.jsonl:2", "answer_choices", "-1"]),
        ({"answer_choices": [["a"], ["b"], ["c"]]}, ["val.jsonl:2", "answer_choices", "3"]),
        ({"rationale_choices": [["a"], [[]], ["c"], ["d"]]}, ["val.jsonl:2", "rationale_choices", "[]"]),
        ({"question": ["Does", 2]}, ["val.jsonl:2", "question", "2"]),
        ({"question": "Does it?"}, ["val.jsonl:2", "question"]),
        ({"answer_label": 4}, ["val.jsonl:2", "answer_label", "4"]),
        ({"metadata_fn": "../x.json"}, ["val.jsonl:2", "metadata_fn", "../x.json"]),
        ({"annot_id": "val,8"}, ["val.jsonl:2", "annot_id", "val,8"]),
        ({"annot_id": "val-7"}, ["val.jsonl:2", "val-7"]),
        ({"img_fn": None}, ["val.jsonl:2", "img_fn"]),
    ],
)
def test_an_invalid_question_is_named(tmp_path: Path, change: dict[str, Any], values: list[str]) -> None:
    write(tmp_path, QUESTION, QUESTION | {"annot_id": "val-8"} | change)
    with pytest.raises(FormatError) as error:
        len(Vcr(tmp_path, "val"))
    assert all(value in str(error.value) for value in values)


def test_names_of_nothing_may_be_dropped(tmp_path: Path) -> None:
    write(tmp_path, QUESTION | {"question": ["Does", [5], "see", [0, 9], "?"]})
    assert Vcr(tmp_path, "val", stray="drop")[0].pairs[0].text == "Does see Casey ?"


@pytest.mark.parametrize(
    ("change", "values"),
    [
        ({"segms": [[[[10, 10], [70, 10], [9, 9]]], [], []]}, ["object 0", "70 10", "60 x 40"]),
        ({"segms": [[], []]}, ["(3, 2, 3)"]),
        ({"boxes": [[1, 1, 9, 9, 1], [1, 1, 9, 9, 1], [30, 1, 20, 9, 1]]}, ["box 2", "30.0"]),
        ({"boxes": [[1, 1, 9, 9]] * 3}, ["box 0", "4"]),
        ({"segms": [[[[10]]], [], []]}, ["object 0"]),
        ({"boxes": "none"}, ["boxes"]),
    ],
)
def test_invalid_metadata_are_named(tmp_path: Path, change: dict[str, Any], values: list[str]) -> None:
    source = Vcr(write(tmp_path, QUESTION, **change), "val").regions
    with pytest.raises(FormatError) as error:
        source["a_film/x@0"]
    assert all(value in str(error.value) for value in ["x@0.json", *values])


def test_missing_metadata_are_named_before_training(world: Path, tmp_path: Path) -> None:
    write(tmp_path, QUESTION, split="train")
    write(tmp_path, QUESTION)
    (tmp_path / "vcr1images" / "a_film" / "x@0.json").unlink()
    with pytest.raises(FormatError, match="x@0"):
        Vcr(tmp_path, "val").regions["a_film/x@0"]
    words = ["model=end_to_end_tiny", "data=vcr", f"root={tmp_path}", f"out={tmp_path / 'run'}"]
    assert main(["train", *words, f"vocabulary={world / 'vocabulary.txt'}", "progress=false"]) == 2


def test_several_runs_make_the_file_of_the_leaderboard(
    world: Path, runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call = ["predict", *map(str, runs), "--splits", "val,test", "--out", str(tmp_path)]
    assert main(call) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in ("Q->A", "QA->R", "Q->AR"))
    for split in ("val", "test"):
        header, *lines = (tmp_path / f"{split}.csv").read_text().splitlines()
        assert header.split(",") == HEADER
        rows = [line.split(",") for line in lines]
        assert [row[0] for row in rows] == [*Vcr(world, split).ids]
        for row in rows:
            groups = [row[start : start + 4] for start in range(1, 21, 4)]
            sums = [sum(map(float, group)) for group in groups if group != [""] * 4]
            assert sums == pytest.approx([1] * (2 if split == "val" else 5))
    before = (tmp_path / "val.csv").read_bytes()
    assert main([*call[:4], "val", *call[5:]]) == 0  # nothing has changed, so nothing is refused
    assert (tmp_path / "val.csv").read_bytes() == before
    whole = Vcr(world, "val", form="q2ar")
    again = whole.read_predictions(tmp_path / "val.csv")
    capsys.readouterr()
    words = ["--root", str(world), "--split", "val", "--samples", "20", "--json"]
    assert main(["evaluate", str(tmp_path / "val.csv"), *words]) == 0
    [measured] = json.loads(capsys.readouterr().out)["results"].values()
    targets = {one.id: str(one.target) for one in whole}
    right = {key: answer == targets[key] for key, answer in zip(again.ids, again.answers or (), strict=True)}
    both = [
        right[key] and right[next(one for one in right if one.startswith(f"{key}#"))]
        for key in Vcr(world, "val").ids
    ]
    assert measured["metrics"]["q_to_ar"]["value"] == np.mean(both)
    alone = Vcr(world, "val", form="qa2r")  # the same file, for rationales alone
    found = evaluate(alone.read_predictions(tmp_path / "val.csv"), alone, samples=20)
    assert found["accuracy"].value == measured["metrics"]["qa_to_r"]["value"]


@pytest.mark.parametrize(
    ("names", "value"),
    [(["vcr", "vcr"], "q2a, q2a"), (["vcr", "gqa"], "vcr, gqa"), (["nlvr2", "nlvr2"], "nlvr2")],
)
def test_runs_that_do_not_belong_together_are_refused(names: list[str], value: str) -> None:
    with pytest.raises(ConfigError, match=value):
        joined_data([named_data(name) for name in names])


def test_one_example_is_predicted_by_one_run(runs: list[Path]) -> None:
    assert main(["predict", *map(str, runs), "--text", "a"]) == 2


@pytest.mark.parametrize(
    ("lines", "values"),
    [
        (["annot_id,answer_0,answer_1,answer_2", "val-7,1,0,0"], ["out.csv:1"]),
        (["annot_id,answer_0,answer_1,answer_2,answer_3", "val-7,1,0,0"], ["out.csv:2", "4", "5"]),
        (["annot_id,answer_0,answer_1,answer_2,answer_3", "val-7,1,0,0,nan"], ["out.csv:2", "answer_0"]),
        (["annot_id,answer_0,answer_1,answer_2,answer_3", "val-8,1,0,0,0"], ["val-7"]),
        (["annot_id,answer_0,answer_1,answer_2,answer_3", "val-7,,,,"], ["val-7", "answer_0"]),
        (["annot_id,answer_0,answer_1,answer_2,answer_3"] + ["val-7,1,0,0,0"] * 2, ["out.csv:3", "val-7"]),
    ],
)
def test_odd_predictions_are_named(root: Path, lines: list[str], values: list[str]) -> None:
    (root / "out.csv").write_text("\n".join(lines))
    with pytest.raises(FormatError) as error:
        Vcr(root, "val").read_predictions(root / "out.csv")
    assert all(value in str(error.value) for value in ["out.csv", *values])


def test_a_file_without_scores_is_not_written(root: Path, tmp_path: Path) -> None:
    with pytest.raises(FormatError):
        Vcr(root, "val").write(Predictions(ids=("val-7",), answers=("1",)), tmp_path / "out.csv")
    assert not (tmp_path / "out.csv").exists()


@pytest.mark.parametrize("setting", [{"form": "q2q"}, {"stray": "keep"}, {"cells": 65}])
def test_settings_are_checked(root: Path, setting: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=str(next(iter(setting.values())))):
        Vcr(root, "val", **setting)


def test_a_model_learns_from_pixels_boxes_and_silhouettes(world: Path, tmp_path: Path) -> None:
    """Tokens name the regions behind that of the whole picture, whose silhouette is everything."""
    few = ["+data.train.limit=4", "+data.validate.limit=2"]
    whole = ["+processor.whole_image=true", "processor.prepare.least=32", "data.cells=4", "data.batch_size=2"]
    model = ["model.model._target_=diptych.models.vlbert_tiny", "+model.model.whole_image=false"]
    words = ["model=end_to_end_tiny", "data=vcr", f"root={world}", f"out={tmp_path}", "trainer.max_steps=1"]
    mirror = "+data.mirror={share: 1, words: keep}"
    assert main(["train", *words, *whole, *model, mirror, "loggers=[]", "progress=false", *few]) == 0
    split, bundle = Vcr(world, "val", cells=4), load_bundle(tmp_path)
    sources = Sources(regions=OwnBoxes([split.regions]), images=split.images)
    chosen = [split[3], split[4]]
    batch = Collate(bundle.processor, sources=sources)(chosen)
    regions, text = batch.inputs.regions, batch.inputs.text
    assert regions is not None
    assert regions.silhouettes is not None
    assert text is not None
    assert text.mentions is not None
    count = regions.mask.shape[1]
    assert regions.silhouettes.shape == (8, count, 4, 4)
    assert regions.silhouettes[:, 0].all()
    assert not regions.silhouettes[:, 1:].all()
    assert not regions.silhouettes[~regions.mask].any()
    assert {*range(1, count)} & set(text.mentions.unique().tolist())
    assert text.mentions.max() < count
    turned = [replace(one, pairs=tuple(replace(pair, mirrored=True) for pair in one.pairs)) for one in chosen]
    other = Collate(bundle.processor, sources=sources)(turned).inputs
    assert torch.equal(other.regions.silhouettes, regions.silhouettes.flip(-1))
    assert torch.equal(other.text.mentions, text.mentions)
    ends, last = regions.boxes[..., [2, 0]], regions.boxes[:, :1, 2:3]
    torch.testing.assert_close(other.regions.boxes[..., [0, 2]][regions.mask], (last - ends)[regions.mask])
    words = ["--splits", "val", "--out", str(tmp_path / "p"), "--limit", "1"]
    assert main(["predict", str(tmp_path), *words]) == 0
    sources = Sources(regions=Vcr(world, "val").regions, images=split.images)  # of another network
    with pytest.raises(ConfigError, match="cells"):
        bundle.task(bundle.model, Collate(bundle.processor, sources=sources)([split[3]]))
