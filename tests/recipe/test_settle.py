import warnings

import pytest

from diptych.errors import ConfigError
from diptych.recipe.settle import require_labels
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
