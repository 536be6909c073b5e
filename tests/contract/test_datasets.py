"""What every data set promises, from its miniature world to its official prediction file.

A data set is tested by its file in `conf/data`; one more, unlike all others, lives in `toy.py`.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score
from tests.contract.toy import NODE, Toy
from tests.datasets.emoji_sources import emoji_sources

from diptych.bundle import read_content
from diptych.check import check
from diptych.datasets import (
    Data,
    Split,
    WorldReport,
    data_names,
    fabricate,
    find_data,
    named_data,
    open_split,
)
from diptych.errors import ConfigError, DiptychError
from diptych.evaluate import evaluate
from diptych.features import FeatureStore
from diptych.metrics.grounding import box_overlap
from diptych.predict import load
from diptych.recipe import compose, run_recipe

TRUST = ("tests.contract.toy",)
TOY = Data(node=NODE, why="test", train="train", validate="held", trust=TRUST)
SAME = {
    "memes_pretrain",
    "vcr_qa2r",
    "vcr_q2ar",
    "refcoco_plus",
    "refcocog",
}  # other uses of data sets that are tried
PRETRAINED = {"lxmert", "conceptual_captions", "corpus"}  # are not predicted
MATCHING = {
    "multi30k",
    "flickr30k",
    "coco_captions",
    "emoji",
}  # all its pairs match: without wrong ones, ranking measures are undefined
# for tasks that need more than a text
MODELS = {
    "lxmert": ["model=lxmert_tiny"],
    "refcoco": ["model=vlbert_tiny"],
    "conceptual_captions": ["model=vlbert_tiny"],
    "corpus": ["model=vlbert_tiny", "model.text_only=true", "processor.regions=false"],
}


class World(NamedTuple):
    name: str
    root: Path
    data: Data
    counts: dict[str, int]


@pytest.fixture(scope="module", params=sorted({*data_names(), "toy"} - SAME))
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> World:
    root = tmp_path_factory.mktemp("datasets") / request.param
    if request.param == "toy":
        root.mkdir()
        return World("toy", root, TOY, Toy.fabricate(root, size=40, seed=1))
    report = made(root, request.param)
    return World(request.param, root, named_data(request.param), report.splits)


def made(root: Path, name: str) -> WorldReport:
    sources = None
    if name == "emoji":
        (root.parent / "sources").mkdir()
        sources = emoji_sources(root.parent / "sources")
    return fabricate(root, name, size=40, seed=1, sources=sources)


def configuration(world: World, out: Path) -> dict[str, Any]:
    model = MODELS.get(world.name, ["model=text_bert_tiny"])
    words = [*model, f"root={world.root}", f"out={out}", "trainer.max_steps=2", "loggers=[]"]
    name = "hateful_memes" if world.data is TOY else world.name
    config = compose([f"data={name}", *words, "progress=false", "data.batch_size=4"])
    if world.name in MATCHING:
        config["trainer"]["monitor"] = "loss"
    if world.data is TOY:
        for role, split in (("train", TOY.train), ("validate", TOY.validate)):
            config["data"][role] = {**NODE, "root": str(world.root), "split": split}
        config["task"] |= {"labels": list(Toy.labels), "pairs": 2}
    return config


def test_every_split_is_read(world: World) -> None:
    assert set(world.data.splits(world.root)) >= world.counts.keys()
    for split, count in world.counts.items():
        dataset = world.data.open(world.root, split)
        assert len(dataset) == len(set(dataset.ids)) == count
        assert [dataset[row].id for row in range(count)] == [*dataset.ids]
        assert all(path.is_file() for path in dataset.images.values())
        assert len(world.data.open(world.root, split, limit=1)) == 1


def test_check_finds_nothing(world: World) -> None:
    report = check(world.root, data=world.data)
    assert not [one for one in report.findings if one.severity == "error"]


def test_same_seed_same_bytes(world: World, tmp_path: Path) -> None:
    if world.data is TOY:
        (tmp_path / "again").mkdir()
        Toy.fabricate(tmp_path / "again", size=40, seed=1)
    else:
        made(tmp_path / "again", world.name)
    for path in (path for path in world.root.iterdir() if path.is_file()):
        assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes()


def test_from_training_to_the_official_file_and_back(world: World, tmp_path: Path) -> None:
    out = tmp_path / "run"
    run_recipe(configuration(world, out))
    node = read_content(out / "bundle")["provenance"]["data"]
    dataset = open_split(node, world.root, world.data.validate, trust=TRUST)
    if world.name in PRETRAINED:  # its bundle is no predictor, and it has no official prediction file
        with pytest.raises(ConfigError, match="pre-trained"):
            load(out, device="cpu")
        return
    predictor, store = load(out, device="cpu"), world.root / "features"
    features = FeatureStore(store) if predictor.processor.regions else None
    predictions = predictor.predict_dataset(dataset, features=features)
    file = tmp_path / f"answers{dataset.suffix}"
    dataset.write(predictions, file)
    again = dataset.read_predictions(file)
    assert again.ids == dataset.ids
    if again.boxes is None:
        assert again.answers == predictions.answers
    else:  # the answer is the number of a region, which the official file does not tell
        assert again.boxes == pytest.approx(predictions.boxes)
    if again.scores is not None:  # some official files hold answers alone
        assert again.classes == predictions.classes
        assert again.scores == pytest.approx(predictions.align(dataset.ids).scores, abs=1e-6)
    found = evaluate(predictions, dataset, positive=dataset.positive, samples=20)
    assert official(dataset, file) == pytest.approx(found[dataset.measure].value, abs=1e-6, nan_ok=True)


def official(dataset: Split, file: Path) -> float:
    """The official measure, by hand, from the official file."""
    again = dataset.read_predictions(file)
    targets = [example.target for example in dataset]
    if dataset.measure == "accuracy" and all(isinstance(target, dict) for target in targets):
        scores = [
            target.get(answer, 0) for answer, target in zip(dataset.as_compared(again), targets, strict=True)
        ]
        return float(np.mean(scores))
    if again.boxes is not None:
        return float(np.mean(box_overlap(again.boxes, np.array(targets)) >= 0.5))
    if dataset.measure == "accuracy":
        rows = zip(again.answers or (), targets, strict=True)
        return float(np.mean([one == str(other) for one, other in rows]))  # a match has the target 1
    if dataset.measure == "auroc":
        return float(
            roc_auc_score([one == dataset.positive for one in targets], again.column(dataset.positive))
        )
    assert dataset.measure == "macro_auroc"
    truth = np.array([[target.get(name, 0) >= 0.5 for name in dataset.labels] for target in targets])
    usable = [place for place in range(len(dataset.labels)) if len(set(truth[:, place])) == 2]
    return float(np.mean([roc_auc_score(truth[:, one], again.scores[:, one]) for one in usable]))


@pytest.mark.parametrize("damage", ["garbage", "half a record", "missing"])
def test_a_file_that_is_damaged_or_missing_is_one_clear_error(world: World, damage: str) -> None:
    split = world.data.validate
    path = world.data.open(world.root, split).files[0]
    content = path.read_bytes()
    try:
        if damage == "missing":
            path.unlink()
        else:
            path.write_bytes(b"\xff\xfe{garbage\x00" if damage == "garbage" else content + b'{"id": "a')
        with pytest.raises(DiptychError) as error:
            world.data.open(world.root, split)
        assert "\n" not in str(error.value)
        assert (
            path.name in str(error.value) or split in str(error.value) or str(world.root) in str(error.value)
        )
    finally:
        path.write_bytes(content)


def test_a_split_that_is_not_there_lists_those_that_are(world: World) -> None:
    with pytest.raises(ConfigError, match=world.data.validate):
        world.data.open(world.root, "nowhere")


def test_the_layout_of_a_folder_tells_some_data_sets(world: World) -> None:
    kind = world.data.kind
    if world.data is not TOY and kind.name == world.name and kind.recognizes(world.root):
        assert find_data(world.root).kind.name == world.name
    elif not world.name.startswith("hateful_memes"):  # those label the same files anew
        with pytest.raises(ConfigError, match="--data"):
            find_data(world.root)


def test_a_class_that_nobody_trusts_is_not_opened(tmp_path: Path) -> None:
    for target in ("tests.contract.toy.Toy", "os.system", "diptych.datasets.base.Split.write", None, 3):
        with pytest.raises(ConfigError, match=r"Split .*diptych\.datasets"):
            open_split({"_target_": target}, tmp_path, "train")
