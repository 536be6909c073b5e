from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from diptych.errors import ConfigError
from diptych.models import concat_bert_tiny, image_resnet_tiny, text_bert_tiny
from diptych.tasks import Classify, FixMatch
from diptych.types import Batch, Example, Inputs, PaddedText

LABELS = ["benign", "hateful"]


def batch(known=2, free=3):
    generator = torch.Generator().manual_seed(0)
    count = known + free
    ids = torch.randint(1, 50, (count, 5), generator=generator)
    text = PaddedText(ids=ids, mask=torch.ones_like(ids).bool(), segments=torch.zeros_like(ids))
    return Batch(
        ids=(*(f"train/{n}" for n in range(known)), *(f"unlabeled/{n}" for n in range(free))),
        inputs=Inputs(text=text, pixels=torch.randn(count, 3, 24, 24, generator=generator)),
        targets=torch.tensor([n % 2 for n in range(count)]),
    )


def built(**settings):
    torch.manual_seed(0)
    model = concat_bert_tiny(vocab_size=50, dropout=0.0).eval()  # batch norm and dropout as in prediction
    return model, FixMatch(model, labels=LABELS, **settings).train()


def loss_of(task, model, given, seed=1):
    return task(model, given, torch.Generator().manual_seed(seed))


def test_without_sure_views_the_loss_is_that_of_the_labeled():
    model, task = built(sure=1.0)
    given = batch()
    outcome = loss_of(task, model, given)
    first = given.inputs.map(lambda tensor: tensor[:2])
    logits = task.score(model(first), Batch(ids=given.ids[:2], inputs=first))
    torch.testing.assert_close(outcome.loss, F.cross_entropy(logits, given.targets[:2]))
    assert outcome.logs["sure"] == 0


def test_labels_of_unlabeled_examples_are_not_read():
    model, task = built(sure=0.0)
    given = batch()
    other = replace(given, targets=torch.cat([given.targets[:2], 1 - given.targets[2:]]))
    assert torch.equal(loss_of(task, model, given).loss, loss_of(task, model, other).loss)
    examples = [Example(id="train/1", pairs=(), target="hateful"), Example(id="unlabeled/1", pairs=())]
    assert task.targets(examples).tolist() == [1, 0]


def test_unlabeled_examples_need_no_label():
    _, task = built()
    examples = [Example(id="train/0", pairs=(), target="hateful"), Example(id="unlabeled/1", pairs=())]
    assert task.targets(examples).tolist() == [1, 0]
    assert task.targets([replace(one, target=None) for one in examples]) is None


def test_strong_views_learn_the_classes_of_weak_ones():
    """By hand: the last rows of the logits against the classes of those in the middle, sure ones alone."""
    model, task = built(sure=0.5, temperature=0.5, unlabeled_weight=3.0)
    given = batch()
    outcome = loss_of(task, model, given)
    known, weak, strong = outcome.logits.split([2, 3, 3])
    certainty, classes = (weak / 0.5).softmax(-1).max(-1)
    unlabeled = (F.cross_entropy(strong, classes, reduction="none") * (certainty >= 0.5)).mean()
    torch.testing.assert_close(outcome.loss, F.cross_entropy(known, given.targets[:2]) + 3 * unlabeled)
    assert not torch.equal(weak, strong)
    outcome.logs["labeled"].item()


def test_weak_views_get_no_gradient():
    model, task = built(sure=0.0)
    outcome = loss_of(task, model, batch())
    outcome.logits.retain_grad()
    outcome.loss.backward()
    gradient = outcome.logits.grad
    assert (gradient[2:5] == 0).all()
    assert (gradient[5:] != 0).any()


def test_without_unlabeled_examples_it_is_classification():
    model, task = built()
    given = batch(free=0)
    plain = Classify(model, labels=LABELS)
    plain.load_state_dict(task.state_dict())
    torch.testing.assert_close(loss_of(task, model, given).loss, plain(model, given).loss)
    task.eval()
    assert torch.equal(task(model, batch()).logits, task.score(model(batch().inputs), batch()))


@pytest.mark.parametrize("settings", [{"sure": 1.5}, {"temperature": 0}, {"flip": 2}])
def test_wrong_settings(settings):
    model = image_resnet_tiny()
    with pytest.raises(ConfigError, match=str(next(iter(settings.values())))):
        FixMatch(model, labels=LABELS, **settings)


def test_a_model_without_pictures():
    with pytest.raises(ConfigError, match=r"Concat.*text"):
        FixMatch(text_bert_tiny(), labels=LABELS)
