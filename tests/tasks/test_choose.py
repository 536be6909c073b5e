from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from diptych.errors import ConfigError
from diptych.tasks import Choose


def test_losses_are_what_they_say(model, batch):
    given = batch([1, 0], pairs=2)
    logits = torch.randn(2, 2, generator=torch.Generator().manual_seed(1))
    over = Choose(model).loss(logits, given)
    torch.testing.assert_close(over, F.cross_entropy(logits, given.targets))
    right = torch.tensor([[0.0, 1], [1, 0]])
    each = Choose(model, loss="bce").loss(logits, given)
    torch.testing.assert_close(each, F.binary_cross_entropy_with_logits(logits, right))
    wide = torch.randn(2, 2, 2, generator=torch.Generator().manual_seed(2))
    two = Choose(model, loss="two_way").loss(wide, given)
    torch.testing.assert_close(two, F.cross_entropy(wide.reshape(4, 2), torch.tensor([0, 1, 1, 0])))


@pytest.mark.parametrize("weight", [0.5, 1.0, 3.0])
def test_right_pairs_can_weigh_more(model, batch, weight):
    given = batch([1, 0], pairs=2)
    logits = torch.randn(2, 2, generator=torch.Generator().manual_seed(1))
    right = torch.tensor([[0.0, 1], [1, 0]])
    each = F.binary_cross_entropy_with_logits(logits, right, reduction="none") * (1 + (weight - 1) * right)
    loss = Choose(model, loss="bce", positive_weight=weight).loss(logits, given)
    torch.testing.assert_close(loss, each.mean() * (weight + 1) / (2 * weight))


def test_a_positive_weight_is_above_zero(model):
    with pytest.raises(ConfigError, match=r"task\.positive_weight .* 0; "):
        Choose(model, loss="bce", positive_weight=0)


def test_the_best_pair_is_chosen(model, batch):
    given = batch(pairs=2)
    predictions = Choose(model).decode(torch.tensor([[0.0, 1], [2, 0]]), given)
    assert predictions.answers == ("1", "0")
    assert predictions.scores.sum(1) == pytest.approx([1, 1])
    # by the second logit alone, as the original does, not by the difference of both
    wide = torch.tensor([[[0.0, 1], [9, 2]], [[0, 3], [0, 1]]])
    assert Choose(model, loss="two_way").decode(wide, given).answers == ("1", "0")


def test_accuracy_and_mean_reciprocal_rank(model, batch):
    task = Choose(model)
    predictions = task.decode(torch.tensor([[0.0, 1], [2, 0]]), batch(pairs=2))
    measured = task.measure(predictions, {"m0": 1, "m1": 1})
    assert measured == {"accuracy": 0.5, "mean_reciprocal_rank": 0.75}
    assert task.measure(predictions, {"m0": None, "m1": None}) == {}


def with_labels(given, labels):
    regions = replace(given.inputs.regions, labels=labels)
    return replace(given, inputs=replace(given.inputs, regions=regions))


def test_regions_learn_the_classes_of_their_objects(model, batch):
    torch.manual_seed(0)
    task, plain = Choose(model, object_weight=2, object_classes=5), Choose(model)
    task.head.load_state_dict(plain.head.state_dict())
    labels = torch.tensor([[-1, 0, 4], [-1, 2, -1], [-1, -1, -1], [-1, 3, 1]])  # padding is -1, too
    given = with_labels(batch([1, 0], pairs=2), labels)
    mask, states = given.inputs.regions.mask, given.inputs.regions.features
    wanted = F.cross_entropy(task.objects(states[mask]), torch.tensor([0, 1, 5, 0, 3, 0, 0, 4, 2]))
    outcome = task(model, given)
    torch.testing.assert_close(outcome.logs["objects"], wanted)
    torch.testing.assert_close(outcome.loss, plain(model, given).loss + 2 * wanted)
    outcome.loss.backward()
    assert task.objects[0].weight.grad.any()
    assert torch.equal(task.eval()(model, given).loss, plain.eval()(model, given).loss), "scores decide"


def test_classes_of_regions_are_asked_for(model, batch):
    task, given = Choose(model, object_weight=1, object_classes=3), batch([1, 0], pairs=2)
    with pytest.raises(ConfigError, match=r"processor\.labels=true"):
        task(model, given)
    with pytest.raises(ConfigError, match=r"class 3; .*task\.object_classes=3"):
        task(model, with_labels(given, torch.full((4, 3), 3)))
    with pytest.raises(ConfigError, match=r"task\.object_weight is -1"):
        Choose(model, object_weight=-1)


def test_a_loss_that_does_not_exist(model):
    with pytest.raises(ConfigError, match=r"task\.loss .*'mse'"):
        Choose(model, loss="mse")
