from functools import partial

import pytest
import torch
from torch import nn

from diptych.errors import FormatError
from diptych.nn import ClassifierHead, Pooled, WeightNormHead
from diptych.tasks import RightPair
from diptych.tasks.base import build_head, score_pairs
from diptych.types import Example, Pair

PAIR = Pair(image="a", text="x")


def example(target, pairs=1):
    return Example(id="7", pairs=(PAIR,) * pairs, target=target)


def test_right_pair_is_an_index_or_whether_the_only_pair_is_right():
    assert RightPair()([example(3, 4), example(0, 4)]).tolist() == [3, 0]
    assert RightPair()([example(True), example(0)]).tolist() == [1, 0]
    assert RightPair()([example(1), example(None)]) is None


@pytest.mark.parametrize(("target", "pairs"), [(4, 4), (-1, 4), (2, 1), ("yes", 1), (0.5, 2)])
def test_a_target_that_is_no_index_names_the_example(target, pairs):
    with pytest.raises(FormatError, match=rf"^example 7 .*{target!r}; .* {max(2, pairs)}\."):
        RightPair()([example(target, pairs)])


def test_pairs_are_scored_one_by_one(model, batch):
    given, head = batch(rows=4, pairs=2), ClassifierHead(6, 3)
    scores = score_pairs(Pooled(model), head, model(given.inputs), given)
    assert scores.shape == (2, 2, 3)
    torch.testing.assert_close(scores[1, 0], head(model(given.inputs).pooled[2]))


@pytest.mark.parametrize("std", [0.02, 0.2])
@pytest.mark.parametrize("head", [ClassifierHead, partial(ClassifierHead, layers=2)])
def test_a_head_begins_with_weights_as_large_as_the_models(model, head, std):
    model.std = std
    parts = build_head(head, model, 400, 200).modules()
    spreads = [part.weight.std().item() for part in parts if isinstance(part, nn.Linear)]
    assert spreads == pytest.approx([std] * len(spreads), rel=0.03)


@pytest.mark.parametrize("head", [partial(ClassifierHead, std=0.5), WeightNormHead, nn.Linear])
def test_what_a_head_says_of_its_own_weights_holds(model, head):
    model.std = 9.0
    torch.manual_seed(0)
    built = build_head(head, model, 40, 20).state_dict()
    torch.manual_seed(0)
    assert all(torch.equal(built[name], value) for name, value in head(40, 20).state_dict().items())
