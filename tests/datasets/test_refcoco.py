"""RefCOCO: references in a pickle that is not executed, candidate boxes, results, and what is refused."""

import json
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from diptych.cli import main
from diptych.datasets import RefCoco, fabricate, find_data
from diptych.datasets.coco import coco_key, coco_number
from diptych.errors import ConfigError, FormatError
from diptych.evaluate import evaluate
from diptych.predictions import Predictions

REF: dict[str, Any] = {
    "ref_id": 5,
    "ann_id": 70,
    "image_id": 581857,
    "category_id": 1,
    "split": "testA",
    "file_name": "COCO_train2014_000000581857_16.jpg",
    "sent_ids": [8, 9],
    "sentences": [
        {"sent_id": 8, "raw": "Lady w back", "sent": "lady with back", "tokens": ["lady", "with", "back"]},
        {"sent_id": 9, "raw": "blue", "sent": "blue", "tokens": ["blue"]},
    ],
}
INSTANCES: dict[str, Any] = {
    "info": {},
    "images": [{"id": 581857, "width": 100, "height": 80, "file_name": "COCO_train2014_000000581857.jpg"}],
    "annotations": [
        {
            "id": 70,
            "image_id": 581857,
            "bbox": [10.0, 20.0, 30.0, 40.0],
            "segmentation": [[1, 2]],
            "iscrowd": 0,
        },
        {"id": 71, "image_id": 581857, "bbox": [0, 0, 5, 5], "segmentation": {"counts": [1]}, "iscrowd": 1},
    ],
}
DETECTION = {"det_id": 0, "image_id": 581857, "box": [11.0, 21.0, 30.0, 40.0], "score": 0.9}
KEY = "COCO_train2014_000000581857"


class Hostile:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("executed",)


def write(root: Path, *refs: Any, protocol: int = 0, **instances: Any) -> Path:
    folder = root / "refcoco+"
    folder.mkdir(exist_ok=True)
    (folder / "refs(unc).p").write_bytes(pickle.dumps([*refs], protocol=protocol))
    (folder / "instances.json").write_text(json.dumps(INSTANCES | instances))
    return root


def opened(root: Path, split: str = "testA", **settings: Any) -> RefCoco:
    return RefCoco(root, split, dataset="refcoco+", **settings)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write(tmp_path, REF, REF | {"ref_id": 6, "split": "val"})


@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_references_become_examples(tmp_path: Path, protocol: int) -> None:
    dataset = opened(write(tmp_path, REF, protocol=protocol))
    assert [(one.id, one.pairs[0].text, one.pairs[0].image, one.target) for one in dataset] == [
        ("5/8", "lady with back", KEY, [10, 20, 40, 60]),
        ("5/9", "blue", KEY, [10, 20, 40, 60]),
    ]
    assert opened(tmp_path, text="raw")[0].pairs[0].text == "Lady w back"
    assert RefCoco.splits(tmp_path, dataset="refcoco+") == ("train", "val", "testA", "testB")
    assert RefCoco.splits(tmp_path) == ()  # of refcoco
    assert dataset.image_path(KEY).name == f"{KEY}.jpg"


@pytest.mark.parametrize(("form", "key"), [("stem", KEY), ("number", "581857"), ("padded12", "000000581857")])
def test_keys_may_be_padded_or_not(root: Path, form: str, key: str) -> None:
    dataset = opened(root, image_key=form)
    assert dataset[0].pairs[0].image == key == coco_key(coco_number(key), "train2014", form)
    assert dataset.images[key].name == f"{KEY}.jpg"
    assert key in dataset.regions


def test_candidates_are_annotated_or_detected(root: Path) -> None:
    folder = root / "detections" / "refcoco+_unc"
    folder.mkdir(parents=True)
    path = folder / "res101_coco_minus_refer_notime_dets.json"
    write(root, REF, REF | {"ref_id": 6, "split": "train"})
    annotated, detected = [[10, 20, 40, 60], [0, 0, 5, 5]], [[11, 21, 41, 61]]
    assert opened(root).regions[KEY].boxes.tolist() == annotated
    for content in ([DETECTION], {"dets": [DETECTION]}):
        path.write_text(json.dumps(content))
        regions = opened(root, boxes="detected").regions
        assert (regions[KEY].boxes.tolist(), regions.count(KEY)) == (detected, 1)
    assert opened(root, boxes="detected+annotated").regions[KEY].boxes.tolist() == detected
    both = opened(root, "train", boxes="detected+annotated").regions
    assert both[KEY].boxes.tolist() == detected + annotated
    path.rename(root / "own.json")
    assert opened(root, boxes="detected", detections="own.json").regions.count(KEY) == 1
    with pytest.raises(FormatError, match=path.name):
        opened(root, boxes="detected")


@pytest.mark.parametrize(
    ("refs", "values"),
    [
        ([Hostile()], ["refs(unc).p"]),
        ([REF, {key: one for key, one in REF.items() if key != "ann_id"}], ["reference 1", "ann_id"]),
        ([REF | {"sentences": [{"sent_id": 1, "raw": "a"}]}], ["ref_id 5", "tokens"]),
        ([REF | {"sentences": None}], ["ref_id 5", "sentences"]),
        ([REF | {"image_id": "581857"}], ["reference 0", "image_id", "581857"]),
        ([REF | {"ann_id": 99}], ["ref_id 5", "99", "instances.json"]),
        ([REF | {"image_id": 7}], ["ref_id 5", "581857", "7"]),
        ([REF, REF], ["ref_id 5", "8"]),
        ([REF | {"split": "val"}], ["testA", "val"]),
        ([[1]], ["reference 0"]),
    ],
)
def test_an_invalid_pickle_is_named_and_never_executed(
    tmp_path: Path, refs: list[Any], values: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FormatError) as error:
        opened(write(tmp_path, *refs))
    assert all(value in str(error.value) for value in values)
    assert not Path("executed").exists()


@pytest.mark.parametrize(
    ("instances", "values"),
    [
        ({"annotations": [{"id": 70, "image_id": 581857, "bbox": [1, 2, -3, 4]}]}, ["id 70", "-3"]),
        ({"annotations": [{"id": 70, "image_id": 581857, "bbox": [1, 2, 3]}]}, ["id 70", "bbox"]),
        ({"images": [{"id": 581857, "width": 100}]}, ["id 581857", "height"]),
    ],
)
def test_invalid_annotations_are_named(tmp_path: Path, instances: dict[str, Any], values: list[str]) -> None:
    with pytest.raises(FormatError) as error:
        opened(write(tmp_path, REF, **instances))
    assert all(value in str(error.value) for value in ["instances.json", *values])


def test_a_candidate_outside_of_its_picture_is_named(root: Path) -> None:
    write(root, REF, images=[{"id": 581857, "width": 30, "height": 80}])
    with pytest.raises(FormatError, match=r"581857.*30 x 80"):
        opened(root).regions[KEY]
    write(root, REF, images=[])
    with pytest.raises(FormatError, match="581857"):
        opened(root).regions[KEY]


def test_results_are_read_back_with_and_without_sentences(root: Path) -> None:
    dataset, path = opened(root), root / "out.json"
    boxes = [[10.0, 20.0, 40.0, 60.0], [0.0, 0.0, 9.0, 9.0]]
    given = [{"ref_id": 5, "sent_id": 9, "box": boxes[1]}, {"ref_id": 5, "sent_id": 8, "box": boxes[0]}]
    for records in (given, [{"ref_id": 5, "box": box} for box in boxes]):
        path.write_text(json.dumps(records))
        predictions = dataset.read_predictions(path)
        assert (predictions.ids, predictions.boxes.tolist()) == (("5/8", "5/9"), boxes)
    dataset.write(predictions, path)
    assert json.loads(path.read_text()) == given[::-1]
    found = evaluate(predictions, dataset, samples=20)
    assert (found["accuracy"].value, found["mean_iou"].value) == (0.5, 0.5)


def test_the_last_pixel_may_decide(root: Path) -> None:
    predictions = Predictions(
        ids=("5/8", "5/9"),
        boxes=np.array([[10, 20, 40, 39.8], [10, 20, 40, 60]]),
        form="boxes",
    )
    found = evaluate(predictions, opened(root), samples=20)
    assert (found["accuracy"].value, found["accuracy_last_pixel"].value) == (0.5, 1)


@pytest.mark.parametrize(
    ("records", "values"),
    [
        ([{"ref_id": 5, "sent": "a lady"}], ["record 0", "box"]),  # generated expressions
        ([{"ref_id": 6, "box": [0, 0, 1, 1]}], ["ref_id 6", "testA"]),
        ([{"ref_id": 5, "box": [0, 0, 1, 1]}] * 3, ["ref_id 5"]),
        ([{"ref_id": 5, "box": [0, 0, 1, 1]}], ["5/9"]),
        ([{"ref_id": 5, "sent_id": 8, "box": [0, 0, 1]}], ["record 0", "box"]),
    ],
)
def test_odd_results_are_named(root: Path, records: list[Any], values: list[str]) -> None:
    (root / "out.json").write_text(json.dumps(records))
    with pytest.raises(FormatError) as error:
        opened(root).read_predictions(root / "out.json")
    assert all(value in str(error.value) for value in ["out.json", *values])


@pytest.mark.parametrize(
    "setting", [{"split_by": "google"}, {"boxes": "gt"}, {"text": "words"}, {"image_key": "int"}]
)
def test_settings_are_checked(root: Path, setting: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=str(next(iter(setting.values())))):
        opened(root, **setting)


def test_every_division_is_fabricated(tmp_path: Path) -> None:
    world = fabricate(tmp_path / "g", "refcocog", size=40, seed=1)
    assert [*world.splits] == ["train", "val", "test"]
    with pytest.raises(ConfigError, match="--data"):
        find_data(world.root)


def test_a_model_learns_from_pixels_and_annotated_boxes(tmp_path: Path) -> None:
    world = fabricate(tmp_path / "w", "refcoco_plus", size=40, seed=1).root
    words = ["model=end_to_end_tiny", "data=refcoco_plus", f"root={world}", f"out={tmp_path / 'run'}"]
    few = ["+data.train.limit=4", "+data.validate.limit=2", "data.batch_size=2", "processor.prepare.least=32"]
    short = ["trainer.max_steps=1", "loggers=[]", "progress=false"]
    assert main(["train", *words, *few, *short, "data.boxes=detected+annotated"]) == 0
    assert main(["predict", str(tmp_path / "run"), "--splits", "testA", "--limit", "1"]) == 0
    results = json.loads((tmp_path / "run" / "predictions" / "testA.json").read_text())
    assert [*results[0]] == ["ref_id", "sent_id", "box"]
