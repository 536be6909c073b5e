import copy
import dataclasses
import warnings
from pathlib import Path

import pytest

from diptych.data import BoxSource, DetectorTransform, Processor
from diptych.errors import ConfigError
from diptych.features import FeatureStore
from diptych.recipe import compose, settle
from diptych.recipe.build import require_labels
from diptych.recipe.settle import with_answers, with_objectives, with_sizes
from diptych.tasks.objectives import RegionLabels
from diptych.types import Example, Pair


def examples(*targets):
    pair = Pair(image="a", text="x")
    return [Example(id=f"e{n}", pairs=(pair,), target=target) for n, target in enumerate(targets)]


@pytest.mark.parametrize("targets", [("a", "b"), (0, 0), ({"yes": 1.0}, {"yes": 1.0}), ([0, 0, 9, 9],)])
def test_targets_of_every_form_are_labels(targets):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        require_labels("training", examples(*targets))


def test_one_class_is_warned_about_and_missing_labels_are_named():
    with pytest.warns(UserWarning, match="'a'"):
        require_labels("training", examples("a", "a"))
    with pytest.raises(ConfigError, match=r"1 of 2 training .*e1"):
        require_labels("training", examples("a", None))


def end_to_end(**settings):
    return Processor(regions=True, prepare=DetectorTransform(), **settings)


def test_end_to_end_the_network_below_decides_how_wide_features_are():
    store = BoxSource({})
    node = {"_target_": "a", "model": {"_target_": "b"}}
    assert with_sizes(node, end_to_end(), store) == node
    node = {"_target_": "b"}
    assert with_sizes(node, Processor(regions=True), store) == {"_target_": "b", "feature_dim": 0}
    assert node == {"_target_": "b"}


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        ("RegionFeatures", {}, "RegionFeatures"),
        ("Interventions", {"whole_image": True}, r"processor\.whole_image=false"),
    ],
)
def test_objectives_that_make_no_sense_end_to_end_are_refused(kind, settings, message):
    task = {"objectives": {"one": {"_target_": f"diptych.tasks.objectives.{kind}"}}}
    with pytest.raises(ConfigError, match=message):
        with_objectives(task, end_to_end(**settings), None)


class OwnLabels(RegionLabels):
    """A class of one's own, that no name tells."""


def test_an_objective_is_known_by_its_class(memes: Path):
    store = FeatureStore(memes / "features")
    own = {"_target_": f"{__name__}.OwnLabels", "everywhere": False}
    task = {"_target_": "diptych.tasks.Pretrain", "objectives": {"one": {"predict": {"labels": own}}}}
    found = with_objectives(task, Processor(regions=True), store)
    assert found["objectives"]["one"]["predict"]["labels"] == {**own, "classes": len(store.meta.classes)}
    assert "classes" not in own


def test_labels_without_names_need_their_number(memes: Path):
    store = FeatureStore(memes / "features")
    named = len(store.meta.classes)
    store.meta = dataclasses.replace(store.meta, classes=(), attributes=())

    def settled(store: FeatureStore, **given: object) -> object:
        node = {"_target_": "diptych.tasks.objectives.RegionLabels", **given}
        return with_objectives({"one": node}, Processor(regions=True), store)["one"].get("classes")

    for field in ("labels", "attributes"):
        with pytest.raises(ConfigError, match="--attributes" if field == "attributes" else "--classes"):
            settled(store, field=field)
        assert settled(store, field=field, classes=7) == 7
    store = FeatureStore(memes / "features")
    assert settled(store, classes="auto") == named
    with pytest.raises(ConfigError, match=rf"\b{named - 1}\b.*\b{named}\b"):
        settled(store, classes=named - 1)


def test_settling_leaves_the_configuration_as_it_is(memes: Path, tmp_path: Path):
    words = ["experiment=hateful_memes/uniter_tiny", f"root={memes}", f"out={tmp_path}", "vocabulary=auto"]
    config = compose([*words, "task.threshold=f1", "task.class_weights=balanced"])
    before = copy.deepcopy(config)
    settled = settle(config, tmp_path)
    assert config == before
    assert settled.criterion == "f1"
    assert settled.config["task"]["threshold"] == 0.5
    assert len(settled.config["task"]["class_weights"]) == 2
    assert settled.config["model"]["vocab_size"] == settled.processor.text.vocab_size
    assert settled.config.keys() == config.keys()


ANSWERED = [({"yes": 1.0, "no": 0.3}, 2), ({"no": 1.0}, 1), ({"maybe": 1.0}, 1)]


class Answered:
    """A data set whose targets are answers."""

    answer_table = None

    def __init__(self) -> None:
        self.targets = [target for target, count in ANSWERED for _ in range(count)]

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> Example:
        return Example(id=str(index), pairs=(), target=self.targets[index])

    def write(self, predictions, path) -> None:
        predictions.save(path)


def test_answers_are_those_of_the_data_set_or_learned_or_given(tmp_path):
    train = Answered()
    task, coverage = with_answers({"answers": "auto"}, train, 2)
    assert task["answers"] == ["yes"]
    assert (coverage.examples, coverage.answerable, coverage.oracle) == (4, 2, 0.5)
    train.answer_table = tmp_path / "table.json"
    train.answer_table.write_text('["no", "maybe"]')
    assert with_answers({"answers": "auto"}, train, 2)[0]["answers"] == ["no", "maybe"]
    (tmp_path / "own.txt").write_text("maybe\nno\n")
    for given in (tmp_path / "own.txt", f"@{tmp_path / 'own.txt'}"):
        assert with_answers({"answers": str(given)}, train, 2)[0]["answers"] == ["maybe", "no"]
    assert with_answers({"answers": ["yes"]}, train, 2)[1].oracle == 0.5
    assert with_answers({"labels": "auto"}, train, 2) == ({"labels": "auto"}, None)


def test_answers_of_another_data_set_are_refused():
    with pytest.raises(ConfigError, match="'Ja'"):
        with_answers({"answers": ["Ja", "Nein"]}, Answered(), 1)
