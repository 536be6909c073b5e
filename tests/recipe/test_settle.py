import warnings

import pytest

from diptych.data import BoxSource, Prepare, Processor
from diptych.errors import ConfigError
from diptych.recipe.settle import fill_objectives, fill_sizes, require_labels
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
    with pytest.warns(UserWarning, match="all training examples have the label 'a'"):
        require_labels("training", examples("a", "a"))
    with pytest.raises(ConfigError, match="1 of 2 training examples have no label: e1"):
        require_labels("training", examples("a", None))


def end_to_end(**settings):
    return Processor(regions=True, prepare=Prepare(), **settings)


def test_end_to_end_the_network_below_decides_how_wide_features_are():
    store = BoxSource({})
    node = {"_target_": "a", "model": {"_target_": "b"}}
    fill_sizes(node, end_to_end(), store)
    assert node == {"_target_": "a", "model": {"_target_": "b"}}
    node = {"_target_": "b"}
    fill_sizes(node, Processor(regions=True), store)
    assert node["feature_dim"] == 0


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        ("RegionFeatures", {}, "end to end there are none"),
        ("MaskedRegions", {"whole_image": True}, "would hide the whole picture"),
    ],
)
def test_objectives_that_make_no_sense_end_to_end_are_refused(kind, settings, message):
    task = {"objectives": {"one": {"_target_": f"diptych.tasks.objectives.{kind}"}}}
    with pytest.raises(ConfigError, match=message):
        fill_objectives(task, end_to_end(**settings), None)
