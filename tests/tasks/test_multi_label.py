import numpy as np
import pytest
import torch
from torch.nn import functional as F

from diptych.errors import ConfigError, FormatError
from diptych.tasks import LabelScores, MultiLabel
from diptych.types import Example, Pair

LABELS = ("shaming", "stereotype", "violence")


def example(target):
    return Example(id="r1", pairs=(Pair(image="a", text="x"),), target=target)


def test_targets_are_rows_of_scores():
    targets = [{"violence": 1, "shaming": 0.4}, {}, "stereotype", ["shaming", "violence"]]
    rows = LabelScores(LABELS)([example(target) for target in targets])
    torch.testing.assert_close(rows, torch.tensor([[0.4, 0, 1], [0, 0, 0], [0, 1, 0], [1, 0, 1]]))
    assert LabelScores(LABELS)([example({}), example(None)]) is None


@pytest.mark.parametrize(
    "target",
    [{"violent": 1}, {"violence": 1.5}, {"violence": -1}, {"violence": "yes"}, "violent", 3, [3], True],
)
def test_a_wrong_target_names_the_example(target):
    with pytest.raises(FormatError, match=r"^example r1 "):
        LabelScores(LABELS)([example(target)])


def test_the_loss_is_binary_cross_entropy_of_each_label(model, batch):
    truth = torch.tensor([[1.0, 0, 0], [0, 1, 1], [0, 0, 0], [0.5, 1, 0]])
    given = batch(truth)
    task = MultiLabel(model, labels=LABELS)
    logits = task.score(model(given.inputs), given)
    torch.testing.assert_close(task.loss(logits, given), F.binary_cross_entropy_with_logits(logits, truth))
    rare = MultiLabel(model, labels=LABELS, positive_weights=[1.0, 5.0, 1.0])
    expected = F.binary_cross_entropy_with_logits(logits, truth, pos_weight=torch.tensor([1.0, 5, 1]))
    torch.testing.assert_close(rare.loss(logits, given), expected)
    assert "positive_weights" not in rare.state_dict()


def test_answers_are_all_labels_from_the_threshold_on(model, batch):
    logits = torch.tensor([[3.0, -3, 3], [-3, -3, -3], [0, -1, -1], [-3, 3, -3]])
    predictions = MultiLabel(model, labels=LABELS).decode(logits, batch())
    assert predictions.answers == ("shaming | violence", "", "shaming", "stereotype")
    assert predictions.scores == pytest.approx(1 / (1 + np.exp(-logits.double().numpy())))
    strict = MultiLabel(model, labels=LABELS, threshold=0.6)
    assert strict.decode(logits, batch()).answers[2] == ""


def test_measures_skip_what_is_not_known(model, batch):
    task = MultiLabel(model, labels=LABELS)
    logits = torch.tensor([[3.0, -3, 3], [-3, -3, -3], [0, -1, -1], [-3, 3, -3]])
    predictions = task.decode(logits, batch())
    gold = {"m0": ["shaming", "violence"], "m1": {}, "m2": None, "m3": "stereotype"}
    measured = task.measure(predictions, gold)
    assert measured == {
        "macro_auroc": 1.0,
        "micro_f1": 1.0,
        "macro_f1": 1.0,
        **{f"auroc_{label}": 1.0 for label in LABELS},
    }


def test_wrong_settings_are_named(model):
    with pytest.raises(ConfigError, match=r"task\.labels .*\('a', 'a'\)"):
        MultiLabel(model, labels=["a", "a"])
    with pytest.raises(ConfigError, match=r"task\.positive_weights .* 1 .* 2 "):
        MultiLabel(model, labels=["a", "b"], positive_weights=[1.0])
